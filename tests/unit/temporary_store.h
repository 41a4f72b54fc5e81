/* A store in a folder of its own, with one route, removed at the end. */
#ifndef INGEST_TESTS_TEMPORARY_STORE_H
#define INGEST_TESTS_TEMPORARY_STORE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "storage/event_store.h"

typedef struct temporary_store {
    char directory[64];
    event_store *store;
    uint32_t route;
} temporary_store;

static inline int temporary_store_remove(const char *path, const struct stat *info, int type,
                                         struct FTW *walk) {
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

/* Any of these failing fails the test. */
static inline void temporary_store_open(temporary_store *it) {
    (void)snprintf(it->directory, sizeof it->directory, "/tmp/ingest-test-XXXXXX");
    assert_non_null(mkdtemp(it->directory));
    store_options options;
    store_options_init(&options);
    options.directory = it->directory;
    options.reserve_free_bytes = options.ballast_bytes = 0;
    failure why = {0};
    if (store_open(&options, &it->store, &why) != ST_OK) fail_msg("%s", why.reason);
    if (store_route(it->store, "transactions", &it->route, &why) != ST_OK)
        fail_msg("%s", why.reason);
}

static inline void temporary_store_close(temporary_store *it) {
    store_close(it->store);
    (void)nftw(it->directory, temporary_store_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
