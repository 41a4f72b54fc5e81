/* What the storage tests share: a store in a folder of its own, and appends that wait. */
#ifndef INGEST_TESTS_STORE_FIXTURE_H
#define INGEST_TESTS_STORE_FIXTURE_H

/* Ours first: cmocka.h defines a macro called fail. */
#include "storage/committer.h"
#include "storage/event_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

typedef struct fixture {
    char directory[64];
    store_options options;
    event_store *store;
    uint32_t route;
    _Atomic int fatals;
    char log[512]; /* last line */
    failure why;
} fixture;

static UNUSED void on_fatal(void *arg, const char *reason) {
    (void)reason;
    ((fixture *)arg)->fatals++;
}

static UNUSED void on_log(void *arg, store_log_level level, const char *message) {
    (void)level;
    (void)snprintf(((fixture *)arg)->log, sizeof((fixture *)arg)->log, "%s", message);
}

static UNUSED outcome try_open(fixture *f) {
    f->store = NULL;
    memset(&f->why, 0, sizeof f->why);
    outcome result = store_open(&f->options, &f->store, &f->why);
    if (result == ST_OK) result = store_route(f->store, "transactions", &f->route, &f->why);
    return result;
}

static UNUSED void open_fixture(fixture *f) {
    outcome result = try_open(f);
    if (result != ST_OK) print_error("%s\n", f->why.reason);
    assert_int_equal(result, ST_OK);
}

static UNUSED void close_fixture(fixture *f) {
    store_close(f->store);
    f->store = NULL;
}

static UNUSED void reopen(fixture *f) {
    close_fixture(f);
    open_fixture(f);
}

static UNUSED int setup_closed(void **state) {
    fixture *f = calloc(1, sizeof *f);
    (void)snprintf(f->directory, sizeof f->directory, "/tmp/ingest-store-XXXXXX");
    if (!mkdtemp(f->directory)) return -1;
    store_options_init(&f->options);
    f->options.directory = f->directory;
    f->options.reserve_free_bytes = f->options.ballast_bytes = 0;
    f->options.fatal = on_fatal;
    f->options.log = on_log;
    f->options.arg = f;
    *state = f;
    return 0;
}

static UNUSED int setup(void **state) {
    if (setup_closed(state) != 0) return -1;
    open_fixture(*state);
    return 0;
}

static UNUSED PRINTF_LIKE(1, 2) void run_shell(const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (system(line) != 0) fail_msg("%s", line);
}

/*
 * Starts this program once more, as a child that works on the folder and reports to `pipe_end`;
 * main hands it to the test's child_main. Not a bare fork: RocksDB's threads would be missing in
 * it.
 */
static UNUSED pid_t start_child(const fixture *f, const char *what, int number, int pipe_end) {
    pid_t child = fork();
    if (child != 0) return child;
    char numbers[2][16];
    (void)snprintf(numbers[0], sizeof numbers[0], "%d", number);
    (void)snprintf(numbers[1], sizeof numbers[1], "%d", pipe_end);
    (void)execl("/proc/self/exe", "child", what, f->directory, numbers[0], numbers[1],
                (char *)NULL);
    _exit(127);
}

static UNUSED void init_child(fixture *f, char **argv) {
    *f = (fixture){0};
    (void)snprintf(f->directory, sizeof f->directory, "%s", argv[2]);
    store_options_init(&f->options);
    f->options.directory = f->directory;
    f->options.reserve_free_bytes = f->options.ballast_bytes = 0;
    f->options.fatal = on_fatal;
    f->options.arg = f;
}

static UNUSED int teardown(void **state) {
    fixture *f = *state;
    if (f->store) store_close(f->store);
    run_shell("rm -rf %s", f->directory);
    free(f);
    return 0;
}

/* An append whose completion can be waited for. */
typedef struct waiting_append {
    append_request request; /* first: done() casts back */
    _Atomic bool finished;
} waiting_append;

static UNUSED void on_done(append_request *request) {
    ((waiting_append *)(void *)request)->finished = true;
}

static UNUSED void fill(waiting_append *append, uint32_t route, const char *id, const char *body) {
    *append = (waiting_append){.request = {.route = route, .remember = true, .done = on_done}};
    append->request.record.source = bytes_of_string("/test");
    append->request.record.id = bytes_of_string(id);
    append->request.record.key = bytes_of_string(id);
    append->request.record.type = bytes_of_string("create_user");
    append->request.record.event = bytes_of_string(body);
    append->request.record.transaction = true;
    append->request.record.operations = 1;
    size_t len = strlen(body);
    memcpy(append->request.fingerprint, body,
           len < STORE_FINGERPRINT_SIZE ? len : STORE_FINGERPRINT_SIZE);
}

static UNUSED bool wait_done(waiting_append *append, int timeout_ms) {
    for (int i = 0; i < timeout_ms * 10 && !append->finished; i++)
        usleep(100);
    return append->finished;
}

static UNUSED outcome append_one(fixture *f, const char *id, const char *body,
                                 waiting_append *append) {
    waiting_append own;
    if (!append) append = &own;
    fill(append, f->route, id, body);
    outcome result = committer_submit(f->store, &append->request);
    if (result != ST_OK) return result;
    if (!wait_done(append, 20000)) abort(); /* the request lives on this stack */
    return append->request.result;
}

static UNUSED void append_many(fixture *f, const char *prefix, int count) {
    enum { LIST = 1000 };
    waiting_append *list = calloc(LIST, sizeof *list);
    char(*ids)[64] = calloc(LIST, sizeof *ids);
    for (int done = 0; done < count;) {
        int size = count - done < LIST ? count - done : LIST;
        for (int i = 0; i < size; i++) {
            (void)snprintf(ids[i], sizeof ids[i], "%s-%d", prefix, done + i);
            fill(&list[i], f->route, ids[i], "body of an event");
            if (i) list[i - 1].request.next = &list[i].request;
        }
        assert_int_equal(committer_submit(f->store, &list[0].request), ST_OK);
        for (int i = 0; i < size; i++) {
            assert_true(wait_done(&list[i], 20000));
            assert_int_equal(list[i].request.result, ST_OK);
        }
        done += size;
    }
    free(list);
    free(ids);
}

static UNUSED route_stats stats_of(fixture *f) {
    route_stats stats;
    store_stats(f->store, f->route, &stats);
    assert_int_equal(stats.accepted,
                     stats.published + stats.pending + stats.dead + stats.purged + stats.lost);
    return stats;
}

static UNUSED outcome bury(fixture *f, uint64_t sequence) {
    bury_reason reason = {.reason = "too large", .error_code = 10, .attempts = 3};
    return committer_bury(f->store, f->route, sequence, &reason, &f->why);
}

#endif
