/* The publisher without a server: options, the window, callbacks, flush and close; from several
 * threads. */
#include "cmocka_includes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ingest/publisher.h"

#define NOBODY "127.0.0.1:1" /* refuses connections */

static ingest_publisher_options options_for(const char *target) {
    ingest_publisher_options options;
    ingest_publisher_options_init(&options);
    options.target = target;
    return options;
}

static ingest_publisher *open_with(const ingest_publisher_options *options) {
    ingest_error error;
    ingest_publisher *made = ingest_publisher_open(options, &error);
    if (!made) fail_msg("%s\n", error.reason);
    return made;
}

static ingest_event *some_event(void) {
    ingest_event *event = ingest_transaction_new("tests", NULL);
    ingest_event_add(event, "create_user", NULL);
    return event;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- options ------------------------------------------------------------------------------- */

static void expect_refused(ingest_publisher_options options, const char *reason) {
    ingest_error error = {INGEST_OK, ""};
    assert_null(ingest_publisher_open(&options, &error));
    assert_int_equal(error.status, INGEST_INVALID);
    if (!strstr(error.reason, reason)) fail_msg("\"%s\" lacks \"%s\"\n", error.reason, reason);
    assert_null(ingest_publisher_open(&options, NULL));
}

static void test_bad_options(void **state) {
    (void)state;
    ingest_publisher_options good = options_for(NOBODY), bad = options_for(NULL);
    expect_refused(bad, "target: ");
    bad = good, bad.timeout_ms = 0;
    expect_refused(bad, "timeout_ms");
    bad = good, bad.window = 0;
    expect_refused(bad, "window");
    bad = good, bad.window_bytes = 0;
    expect_refused(bad, "window_bytes");
    bad = good, bad.max_event_bytes = SIZE_MAX;
    expect_refused(bad, "max_event_bytes");
    bad = good, bad.backoff_first_ms = 0;
    expect_refused(bad, "backoff");
    bad = good, bad.backoff_first_ms = 3000;
    expect_refused(bad, "backoff");
    bad = good, bad.ack = (ingest_ack)7;
    expect_refused(bad, "ack");
    bad = good, bad.key_file = "/dev/null";
    expect_refused(bad, "certificate_file, key_file");
    bad = good, bad.ca_file = "/nonexistent";
    expect_refused(bad, "ca_file: /nonexistent: No such file");
    bad = good, bad.token = "a\nb";
    expect_refused(bad, "token");
    bad = options_for("example.com:1"), bad.token = "secret";
    expect_refused(bad, "token: would go over the network in the clear");
    bad = options_for("127.0.0.1:1,10.0.0.1:1"), bad.token = "secret";
    expect_refused(bad, "token: would go");
}

static void test_texts_of_status(void **state) {
    (void)state;
    assert_string_equal(ingest_status_text(INGEST_OK), "ok");
    assert_string_equal(ingest_status_text(INGEST_FAILED), "the server failed");
    assert_string_equal(ingest_status_text((ingest_status)-1), "unknown");
    assert_string_equal(ingest_status_text((ingest_status)1000), "unknown");
}

/* ---- nobody answers ------------------------------------------------------------------------ */

static void test_publishing_times_out(void **state) {
    (void)state;
    ingest_publisher_options options = options_for(NOBODY);
    options.timeout_ms = 300;
    ingest_publisher *publisher = open_with(&options);
    ingest_event *event = some_event();
    ingest_result result;
    const int64_t start_ms = now_ms();
    assert_int_equal(ingest_publish(publisher, event, &result), INGEST_TIMEOUT);
    assert_in_range(now_ms() - start_ms, 300, 5000);
    assert_int_equal(result.status, INGEST_TIMEOUT);
    assert_false(result.maybe_stored);
    assert_true(result.retry);
    assert_int_equal(result.attempts, 0);
    assert_string_equal(result.id, ingest_event_id(event));
    assert_non_null(strstr(result.reason, "Connection refused"));
    assert_int_equal(ingest_publish(publisher, event, NULL), INGEST_TIMEOUT);
    ingest_event_free(event);
    assert_true(ingest_flush(publisher, 1000));
    ingest_publisher_stats stats;
    ingest_publisher_stats_get(publisher, &stats);
    assert_int_equal(stats.failed, 2);
    assert_int_equal(stats.replicas, 1);
    assert_int_equal(stats.replicas_ready, 0);
    ingest_publisher_close(publisher, 1000);
    ingest_publisher_close(NULL, 0);
}

static void test_bad_events_are_never_taken(void **state) {
    (void)state;
    ingest_publisher_options options = options_for(NOBODY);
    options.max_event_bytes = 1000;
    ingest_publisher *publisher = open_with(&options);
    ingest_event *event = ingest_transaction_new("tests", NULL);
    ingest_result result;
    assert_int_equal(ingest_publish(publisher, event, &result), INGEST_INVALID);
    assert_non_null(strstr(result.reason, "event.transaction.operations: is empty"));
    char raw[1000] = "";
    ingest_operation_raw(ingest_event_add(event, "create_user", NULL), raw, sizeof raw);
    assert_int_equal(ingest_publish_async(publisher, event, 0, NULL, NULL, &result),
                     INGEST_INVALID);
    assert_non_null(strstr(result.reason, "max_event_bytes allows 1000"));
    assert_false(result.retry);
    ingest_event_free(event);
    assert_true(ingest_flush(publisher, 0));
    ingest_publisher_close(publisher, 0);
}

/* ---- windows, callbacks, close ------------------------------------------------------------- */

typedef struct tally {
    ingest_publisher *publisher;
    atomic_int of[INGEST_FAILED + 1];
    atomic_int refused_inside;
} tally;

static void count(void *arg, const ingest_result *result) {
    tally *all = arg;
    atomic_fetch_add(&all->of[result->status], 1);
}

static void test_window(void **state) {
    (void)state;
    ingest_publisher_options options = options_for(NOBODY);
    options.window = 3;
    tally all = {0};
    ingest_publisher *publisher = open_with(&options);
    ingest_event *event = some_event();
    for (int i = 0; i < 3; i++)
        assert_int_equal(ingest_publish_async(publisher, event, 0, count, &all, NULL), INGEST_OK);
    ingest_result result;
    const int64_t start_ms = now_ms();
    assert_int_equal(ingest_publish_async(publisher, event, 200, count, &all, &result),
                     INGEST_WINDOW_FULL);
    assert_in_range(now_ms() - start_ms, 200, 5000);
    assert_true(result.retry && !result.maybe_stored);
    assert_false(ingest_flush(publisher, 50));
    ingest_publisher_stats stats;
    ingest_publisher_stats_get(publisher, &stats);
    assert_int_equal(stats.in_flight, 3);
    ingest_publisher_close(publisher, 50);
    assert_int_equal(all.of[INGEST_CLOSED], 3);
    ingest_event_free(event);
}

static void test_window_in_bytes(void **state) {
    (void)state;
    ingest_publisher_options options = options_for(NOBODY);
    options.window_bytes = 1; /* one event at a time all the same */
    tally all = {0};
    ingest_publisher *publisher = open_with(&options);
    ingest_event *event = some_event();
    assert_int_equal(ingest_publish_async(publisher, event, 0, count, &all, NULL), INGEST_OK);
    assert_int_equal(ingest_publish_async(publisher, event, 0, count, &all, NULL),
                     INGEST_WINDOW_FULL);
    ingest_publisher_close(publisher, 0);
    assert_int_equal(all.of[INGEST_CLOSED], 1);
    ingest_event_free(event);
}

/* What would wait for itself is refused; what does not wait works. */
static void call_inside(void *arg, const ingest_result *outer) {
    tally *all = arg;
    ingest_event *event = some_event();
    ingest_result result;
    assert_int_equal(outer->status, INGEST_TIMEOUT);
    assert_int_equal(ingest_publish(all->publisher, event, &result), INGEST_INVALID);
    assert_non_null(strstr(result.reason, "callback"));
    assert_false(ingest_flush(all->publisher, 1000));
    assert_int_equal(ingest_publish_async(all->publisher, event, 60000, count, all, NULL),
                     INGEST_OK);
    assert_int_equal(ingest_publish_async(all->publisher, event, 60000, count, all, NULL),
                     INGEST_WINDOW_FULL);
    ingest_event_free(event);
    atomic_fetch_add(&all->refused_inside, 1);
}

static void test_calls_from_a_callback(void **state) {
    (void)state;
    ingest_publisher_options options = options_for(NOBODY);
    options.window = 2;
    options.timeout_ms = 50;
    ingest_publisher *publisher = open_with(&options);
    tally all = {.publisher = publisher};
    ingest_event *event = some_event();
    assert_int_equal(ingest_publish_async(publisher, event, 0, call_inside, &all, NULL), INGEST_OK);
    while (!all.refused_inside)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_true(ingest_flush(publisher, 5000));
    assert_int_equal(all.of[INGEST_TIMEOUT], 1);
    ingest_event_free(event);
    ingest_publisher_close(publisher, 0);
}

/* ---- threads ------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 300 };

static void *publish_many(void *arg) {
    tally *all = arg;
    for (int i = 0; i < ROUNDS; i++) {
        ingest_event *event = some_event();
        if (i % 3) ingest_event_set_key(event, "shared");
        ingest_result result = {0};
        const ingest_status taken =
            i % 7 ? ingest_publish_async(all->publisher, event, 1000, count, all, &result)
                  : ingest_publish(all->publisher, event, &result);
        if (i % 7 == 0 || taken != INGEST_OK) count(all, &(ingest_result){.status = taken});
        ingest_event_free(event);
    }
    return NULL;
}

/* Every event has one fate, also when the publisher is closed under their hands. */
static void run_threads(int64_t close_after_ms) {
    ingest_publisher_options options = options_for("localhost:1,127.0.0.1:1");
    options.timeout_ms = 20;
    options.window = 64;
    tally all = {.publisher = open_with(&options)};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, publish_many, &all), 0);
    if (close_after_ms) {
        nanosleep(&(struct timespec){.tv_nsec = close_after_ms * 1000000}, NULL);
        assert_in_range(ingest_flush(all.publisher, 10), 0, 1);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ingest_publisher_close(all.publisher, 1000);
    int sum = 0;
    for (size_t i = 0; i < sizeof all.of / sizeof *all.of; i++)
        sum += all.of[i];
    assert_int_equal(sum, THREADS * ROUNDS);
    assert_int_equal(all.of[INGEST_OK], 0);
    assert_true(all.of[INGEST_TIMEOUT] > 0);
}

static void test_many_threads(void **state) {
    (void)state;
    run_threads(0);
    run_threads(20);
}

/* A thread that waits for room is told when the publisher closes. */
static void *wait_for_room(void *arg) {
    tally *all = arg;
    ingest_event *event = some_event();
    const ingest_status status =
        ingest_publish_async(all->publisher, event, 60000, count, all, NULL);
    count(all, &(ingest_result){.status = status});
    ingest_event_free(event);
    return NULL;
}

static void test_close_with_a_waiting_thread(void **state) {
    (void)state;
    ingest_publisher_options options = options_for(NOBODY);
    options.window = 1;
    tally all = {.publisher = open_with(&options)};
    ingest_event *event = some_event();
    assert_int_equal(ingest_publish_async(all.publisher, event, 0, count, &all, NULL), INGEST_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_room, &all), 0);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    ingest_publisher_close(all.publisher, 50);
    pthread_join(thread, NULL);
    assert_int_equal(all.of[INGEST_CLOSED], 2);
    ingest_event_free(event);
}

static void test_opening_and_closing(void **state) {
    (void)state;
    for (int i = 0; i < 30; i++) {
        ingest_publisher_options options = options_for(i % 2 ? NOBODY : "dns:///localhost:1");
        ingest_publisher_close(open_with(&options), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_texts_of_status),
        cmocka_unit_test(test_publishing_times_out),
        cmocka_unit_test(test_bad_events_are_never_taken),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_window_in_bytes),
        cmocka_unit_test(test_calls_from_a_callback),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_close_with_a_waiting_thread),
        cmocka_unit_test(test_opening_and_closing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
