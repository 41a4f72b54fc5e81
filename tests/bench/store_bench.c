/*
 * store_bench [DIRECTORY [raw]]: appends a second through committer_submit, next to raw RocksDB
 * with synced batches of 1,000 in the same run; or the latter alone. 300-byte events; CPU is of the
 * whole process.
 */
#include "storage/clock.h"
#include "storage/committer.h"

#include <rocksdb/c.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EVENT_SIZE = 300, SECONDS_US = 2000000 };

typedef struct bench_list {
    _Atomic int left; /* requests not yet done */
} bench_list;

typedef struct bench_request {
    append_request request;
    bench_list *owner;
} bench_request;

static uint8_t body[EVENT_SIZE];

static int64_t cpu_us(void) {
    struct rusage use;
    (void)getrusage(RUSAGE_SELF, &use);
    return (int64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 + use.ru_utime.tv_usec +
           use.ru_stime.tv_usec;
}

static void on_done(append_request *request) {
    if (request->result != ST_OK || request->duplicate) abort();
    ((bench_request *)(void *)request)->owner->left--;
}

typedef enum bench_ids { IDS_OFF, IDS_RANDOM, IDS_IN_ORDER } bench_ids;

static double run_store(event_store *store, uint32_t route, int size, int lists, bench_ids kind) {
    static const char *const KINDS[] = {"off", "random", "ordered"};
    bench_list *all = calloc((size_t)lists, sizeof *all);
    bench_request *requests = calloc((size_t)lists * (size_t)size, sizeof *requests);
    char(*ids)[40] = calloc((size_t)lists * (size_t)size, sizeof *ids);
    static uint64_t number;
    uint64_t events = 0;
    int64_t began = clock_monotonic_us();
    int64_t cpu = cpu_us();
    bool busy = true;
    while (busy) {
        bool more = clock_monotonic_us() - began < SECONDS_US;
        bool waited = true;
        busy = more;
        for (int i = 0; i < lists; i++) {
            if (all[i].left) {
                busy = true;
                continue;
            }
            if (!more) continue;
            bench_request *first = requests + (size_t)i * (size_t)size;
            for (int j = 0; j < size; j++) {
                bench_request *at = &first[j];
                char *id = ids[(size_t)i * (size_t)size + (size_t)j];
                number++;
                (void)snprintf(id, sizeof *ids, "%016llx-%llu",
                               (unsigned long long)(kind == IDS_RANDOM
                                                        ? number * 0x9e3779b97f4a7c15u
                                                        : number),
                               (unsigned long long)number);
                *at = (bench_request){.owner = &all[i]};
                at->request.route = route;
                at->request.remember = kind != IDS_OFF;
                at->request.done = on_done;
                at->request.record.id = bytes_of_string(id);
                at->request.record.source = bytes_of_string("/bench");
                at->request.record.key = bytes_of_string("key");
                at->request.record.type = bytes_of_string("create_user");
                at->request.record.event = bytes_of(body, sizeof body);
                if (j) first[j - 1].request.next = &at->request;
            }
            all[i].left = size;
            if (committer_submit(store, &first->request) != ST_OK) abort();
            events += (uint64_t)size;
            waited = false;
        }
        if (waited) (void)usleep(20);
        uuid me = store_incarnation(store);
        route_stats stats;
        store_stats(store, route, &stats);
        committer_advance(store, route, stats.last_sequence, &me, 0);
    }
    double seconds = (double)(clock_monotonic_us() - began) / 1e6;
    double rate = (double)events / seconds;
    printf("lists of %4d, %4d in flight, ids %-7s: %9.0f events/s, %5.2f us CPU an event\n", size,
           lists, KINDS[kind], rate, (double)(cpu_us() - cpu) / (double)events);
    free(all);
    free(requests);
    free(ids);
    return rate;
}

static double run_raw(const char *directory) {
    char path[256];
    char *error = NULL;
    (void)snprintf(path, sizeof path, "%s-raw", directory);
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_t *db = rocksdb_open(options, path, &error);
    if (!db) abort();
    rocksdb_writeoptions_t *sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(sync, 1);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    uint64_t events = 0;
    int64_t began = clock_monotonic_us();
    int64_t cpu = cpu_us();
    while (clock_monotonic_us() - began < SECONDS_US) {
        rocksdb_writebatch_clear(batch);
        for (int i = 0; i < 1000; i++) {
            uint64_t key = __builtin_bswap64(++events);
            rocksdb_writebatch_put(batch, (const char *)&key, sizeof key, (const char *)body,
                                   sizeof body);
        }
        rocksdb_write(db, sync, batch, &error);
        if (error) abort();
    }
    double rate = (double)events / ((double)(clock_monotonic_us() - began) / 1e6);
    printf(
        "raw RocksDB, synced batches of 1000           : %9.0f events/s, %5.2f us CPU an event\n",
        rate, (double)(cpu_us() - cpu) / (double)events);
    rocksdb_writebatch_destroy(batch);
    rocksdb_writeoptions_destroy(sync);
    rocksdb_close(db);
    rocksdb_options_destroy(options);
    return rate;
}

int main(int argc, char **argv) {
    char directory[] = "/tmp/ingest-bench-XXXXXX";
    store_options options;
    event_store *store;
    uint32_t route;
    failure why;
    store_options_init(&options);
    options.directory = argc > 1 ? argv[1] : mkdtemp(directory);
    options.queue_max_requests = 1 << 20;
    options.queue_max_bytes = 1 << 30;
    if (store_open(&options, &store, &why) != ST_OK ||
        store_route(store, "bench", &route, &why) != ST_OK) {
        (void)fprintf(stderr, "%s\n", why.reason);
        return 1;
    }
    double raw = run_raw(options.directory);
    if (argc > 2) return 0;
    double off = run_store(store, route, 1000, 8, IDS_OFF);
    double ordered = run_store(store, route, 1000, 8, IDS_IN_ORDER);
    (void)run_store(store, route, 1, 1, IDS_IN_ORDER);
    (void)run_store(store, route, 1, 1000, IDS_IN_ORDER);
    (void)run_store(store, route, 100, 20, IDS_IN_ORDER);
    double random = run_store(store, route, 1000, 8, IDS_RANDOM);
    printf("ratio to raw: %.2f without ids, %.2f with ordered, %.2f with random ones\n", off / raw,
           ordered / raw, random / raw);
    store_close(store);
    return 0;
}
