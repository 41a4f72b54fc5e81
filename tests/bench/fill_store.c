/*
 * fill_store DIRECTORY EVENTS BYTES [ids]: a backlog on disk, as a server that was killed leaves
 * it: events of that size on the route "transactions", the last of them still in the log. With
 * `ids` each has an id of a caller, in no order.
 */
#include "storage/committer.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LIST = 1000, LISTS = 8, ID_SIZE = 40, POOL_SIZE = 4 << 20 };

static uint8_t pool[POOL_SIZE]; /* random: nothing for a compressor */

typedef struct list_of_requests {
    _Atomic int left;
    append_request requests[LIST];
    char ids[LIST][ID_SIZE];
} list_of_requests;

static _Atomic uint64_t refused;

static list_of_requests lists[LISTS];

static void on_done(append_request *request) {
    for (int i = 0; i < LISTS; i++)
        if (request >= lists[i].requests && request < lists[i].requests + LIST) lists[i].left--;
    if (request->result != ST_OK) refused++;
}

static void submit(event_store *store, uint32_t route, list_of_requests *list, uint64_t *number,
                   size_t size, bool ids) {
    for (int i = 0; i < LIST; i++) {
        append_request *request = &list->requests[i];
        *request = (append_request){.route = route, .remember = ids, .done = on_done};
        uint64_t now = ++*number;
        (void)snprintf(list->ids[i], ID_SIZE, "%016llx-%llu",
                       (unsigned long long)(now * 0x9e3779b97f4a7c15u), (unsigned long long)now);
        request->record.id = bytes_of_string(list->ids[i]);
        request->record.source = bytes_of_string("/bench");
        request->record.key = bytes_of(list->ids[i], 12);
        request->record.type = bytes_of_string("create_user");
        request->record.event = bytes_of(pool + now * 2654435761u % (POOL_SIZE - size), size);
        if (i) list->requests[i - 1].next = request;
    }
    list->left = LIST;
    if (committer_submit(store, list->requests) != ST_OK) abort();
}

int main(int argc, char **argv) {
    if (argc < 4) {
        (void)fprintf(stderr, "usage: fill_store DIRECTORY EVENTS BYTES [ids]\n");
        return 2;
    }
    uint64_t events = strtoull(argv[2], NULL, 10);
    size_t size = strtoull(argv[3], NULL, 10);
    bool ids = argc > 4 && strcmp(argv[4], "ids") == 0;
    uint32_t random = 1;
    for (size_t i = 0; i < POOL_SIZE; i++) {
        random = random * 1664525 + 1013904223;
        pool[i] = (uint8_t)(random >> 24);
    }
    store_options options;
    event_store *store;
    uint32_t route;
    failure why;
    store_options_init(&options);
    options.directory = argv[1];
    options.backlog_budget_bytes = UINT64_MAX / 2;
    if (store_open(&options, &store, &why) != ST_OK ||
        store_route(store, "transactions", &route, &why) != ST_OK) {
        (void)fprintf(stderr, "%s\n", why.reason);
        return 1;
    }
    uint64_t number = 0;
    for (int i = 0; number < events; i = (i + 1) % LISTS) {
        if (lists[i].left)
            (void)usleep(20);
        else
            submit(store, route, &lists[i], &number, size, ids);
    }
    for (int i = 0; i < LISTS; i++)
        while (lists[i].left)
            (void)usleep(100);
    printf("%llu events, %llu refused\n", (unsigned long long)events, (unsigned long long)refused);
    (void)fflush(stdout);
    (void)raise(SIGKILL);
}
