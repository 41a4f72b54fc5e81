/* What the tests of the store of failed events share: one in a folder of its own, and records. */
#ifndef INGEST_TESTS_FAILED_FIXTURE_H
#define INGEST_TESTS_FAILED_FIXTURE_H

/* Ours first: cmocka.h defines a macro called fail. */
#include "storage/failed_store.h"

#include "cmocka_includes.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

typedef struct fixture {
    char directory[64];
    failed_limits limits;
    failed_store *store;
    failure why;
} fixture;

static UNUSED outcome try_open(fixture *f) {
    f->store = NULL;
    f->why = (failure){0};
    return failed_store_open(f->directory, &f->limits, &f->store, &f->why);
}

static UNUSED void open_fixture(fixture *f) {
    if (try_open(f) != ST_OK) fail_msg("%s\n", f->why.reason);
}

static UNUSED void close_fixture(fixture *f) {
    failed_store_close(f->store);
    f->store = NULL;
}

static UNUSED void reopen(fixture *f) {
    close_fixture(f);
    open_fixture(f);
}

static UNUSED int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    (void)snprintf(f->directory, sizeof f->directory, "/tmp/ingest-failed-XXXXXX");
    if (!mkdtemp(f->directory)) return -1;
    f->limits = (failed_limits){.max_events = 100000, .max_bytes = 64 << 20};
    open_fixture(f);
    *state = f;
    return 0;
}

static UNUSED PRINTF_LIKE(1, 2) void run_shell(const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (system(line) != 0) fail_msg("%s", line);
}

static UNUSED int teardown(void **state) {
    fixture *f = *state;
    close_fixture(f);
    run_shell("rm -rf %s", f->directory);
    free(f);
    return 0;
}

/* Borrows the texts. */
static UNUSED failed_record record_of(const char *id, const char *event) {
    return (failed_record){.state = FAILED_GIVEN_UP,
                           .source = bytes_of_string("/test"),
                           .id = bytes_of_string(id),
                           .type = bytes_of_string("create_user"),
                           .key = bytes_of_string("user-1"),
                           .operation = bytes_of_string("create_user"),
                           .effect = bytes_of_string("user_index"),
                           .effects_done = 2,
                           .effects = 8,
                           .catalogue_crc = 0xdeadbeef,
                           .attempts = 3,
                           .code = bytes_of_string("timeout"),
                           .reason = bytes_of_string("no answer within 5 s"),
                           .first_failed_ms = 1700000000001,
                           .last_failed_ms = 1700000000002,
                           .topic = bytes_of_string("ingest.transactions"),
                           .partition = 7,
                           .offset = 4711,
                           .event = bytes_of_string(event)};
}

/* Puts and writes it; gives its number. */
static UNUSED uint64_t put_one(fixture *f, failed_record *record) {
    if (failed_store_put(f->store, record, &f->why) != ST_OK ||
        failed_store_write(f->store, &f->why) != ST_OK)
        fail_msg("%s\n", f->why.reason);
    return record->number;
}

static UNUSED bool count_one(void *arg, const failed_record *record) {
    (void)record;
    ++*(uint64_t *)arg;
    return true;
}

#endif
