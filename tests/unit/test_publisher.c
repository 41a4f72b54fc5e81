/* The publisher's thread with a real store and the Kafka inside librdkafka. */
#include "server/log.h"
#include "server/publisher.h"
#include "server/trial.h"
#include "storage/clock.h"
#include "storage/committer.h"

#include <librdkafka/rdkafka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

#define TOPIC "events"
#define POSITIONS "ingest.positions"
#define WAIT_MS 30000

typedef struct fixture {
    char folder[64];
    trial_kafka *kafka;
    event_store *store;
    uint32_t route;
    config config;
    publisher *publisher;
    atomic_ulong settled;
    atomic_ulong dead; /* the last one */
    atomic_ulong appended;
    bool late_dead; /* on_dead came after on_position had passed it */
} fixture;

static fixture *now;

static void on_position(void *arg, uint32_t route, uint64_t sequence) {
    fixture *it = arg;
    assert_int_equal(route, it->route);
    atomic_store(&it->settled, sequence);
}

static void on_dead(void *arg, uint32_t route, uint64_t sequence, const char *reason) {
    fixture *it = arg;
    (void)route;
    assert_non_null(strstr(reason, "large"));
    if (atomic_load(&it->settled) >= sequence) it->late_dead = true;
    atomic_store(&it->dead, sequence);
}

static void on_appended(append_request *request) {
    atomic_fetch_add(&now->appended, 1);
    free(request);
}

static void append(fixture *it, size_t size) {
    unsigned long before = atomic_load(&it->appended);
    append_request *request = calloc(1, sizeof *request + size);
    bytes key = bytes_of_string("key");
    request->route = it->route;
    request->done = on_appended;
    request->record = (event_record){.kind = RECORD_EVENT,
                                     .id = key,
                                     .source = key,
                                     .key = key,
                                     .type = bytes_of_string("create_user"),
                                     .transaction = true,
                                     .operations = 1,
                                     .event = bytes_of(request + 1, size)};
    assert_int_equal(committer_submit(it->store, request), ST_OK);
    while (atomic_load(&it->appended) == before)
        usleep(100);
}

static void open_store(fixture *it) {
    failure why;
    store_options options;
    store_options_init(&options);
    options.directory = it->folder;
    if (store_open(&options, &it->store, &why)) fail_msg("%s", why.reason);
    assert_int_equal(store_route(it->store, "transactions", &it->route, &why), ST_OK);
}

static int setup(void **state) {
    fixture *it = now = calloc(1, sizeof *it);
    const char *topics[] = {TOPIC, POSITIONS};
    snprintf(it->folder, sizeof it->folder, "/tmp/test-publisher-XXXXXX");
    assert_non_null(mkdtemp(it->folder));
    open_store(it);
    assert_int_equal(trial_kafka_start(topics, 2, 4, &it->kafka, NULL), ST_OK);
    it->config.trial = true;
    snprintf(it->config.kafka.brokers, sizeof it->config.kafka.brokers, "%s",
             trial_kafka_brokers(it->kafka));
    snprintf(it->config.kafka.positions_topic, sizeof it->config.kafka.positions_topic, POSITIONS);
    it->config.routes[0] = (route_config){.name = "transactions",
                                          .topic = TOPIC,
                                          .linger_ms = 5,
                                          .transaction_max_events = 50,
                                          .transaction_max_bytes = 1 << 20,
                                          .max_record_bytes = 2000};
    it->config.route_count = 1;
    *state = it;
    return 0;
}

static int teardown(void **state) {
    fixture *it = *state;
    char command[128];
    store_close(it->store);
    trial_kafka_stop(it->kafka);
    snprintf(command, sizeof command, "rm -rf %s", it->folder);
    int left = system(command);
    free(it);
    return left;
}

static void start(fixture *it) {
    const publisher_options options = {.store = it->store,
                                       .route = it->route,
                                       .config = &it->config,
                                       .settings = &it->config.routes[0],
                                       .on_position = on_position,
                                       .on_dead = on_dead,
                                       .arg = it};
    assert_int_equal(publisher_start(&options, &it->publisher, NULL), ST_OK);
}

static void stop(fixture *it) {
    publisher_stop(it->publisher);
    publisher_join(it->publisher, 10000);
    it->publisher = NULL;
}

static void await_settled(fixture *it, uint64_t sequence) {
    int64_t deadline = clock_monotonic_ms() + WAIT_MS;
    while (atomic_load(&it->settled) < sequence) {
        publisher_status status;
        publisher_status_get(it->publisher, &status);
        if (clock_monotonic_ms() > deadline || status.state == PUBLISHER_HALTED)
            fail_msg("stands at %lu of %lu: %s", atomic_load(&it->settled), (unsigned long)sequence,
                     status.last_error);
        usleep(1000);
    }
}

/* Records of the events on the topic; the trial's Kafka shows aborted ones too. */
static int records_on_topic(fixture *it) {
    char text[200];
    int count = 0, ends = 0;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", it->config.kafka.brokers, text, sizeof text);
    rd_kafka_conf_set(conf, "enable.partition.eof", "true", text, sizeof text);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, TOPIC, NULL);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    for (int i = 0; i < 4; i++)
        rd_kafka_consume_start_queue(topic, i, RD_KAFKA_OFFSET_BEGINNING, queue);
    while (ends < 4) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(queue, WAIT_MS);
        assert_non_null(message);
        if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            ends++;
        else if (!message->err)
            count++;
        rd_kafka_message_destroy(message);
    }
    for (int i = 0; i < 4; i++)
        rd_kafka_consume_stop(topic, i);
    rd_kafka_queue_destroy(queue);
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(rk);
    return count;
}

static void publishes_and_goes_on_where_it_stood(void **state) {
    fixture *it = *state;
    for (int i = 0; i < 120; i++)
        append(it, 100);
    start(it);
    await_settled(it, 120);
    append(it, 100);
    await_settled(it, 121);
    stop(it);
    store_close(it->store);
    open_store(it);
    atomic_store(&it->settled, 0);
    append(it, 100);
    start(it);
    await_settled(it, 122);
    route_stats stats;
    store_stats(it->store, it->route, &stats);
    assert_int_equal(stats.pending, 0);
    assert_int_equal(stats.published, 122);
    stop(it);
    assert_int_equal(records_on_topic(it), 122);
}

static void an_event_that_cannot_be_published_is_set_aside(void **state) {
    fixture *it = *state;
    for (int i = 1; i <= 60; i++)
        append(it, i == 23 ? 5000 : 100);
    start(it);
    await_settled(it, 60);
    assert_int_equal(atomic_load(&it->dead), 23);
    assert_false(it->late_dead);
    stop(it);
    route_stats stats;
    store_stats(it->store, it->route, &stats);
    assert_int_equal(stats.dead, 1);
    assert_int_equal(stats.published, 59);
}

static void another_cluster_halts_the_route(void **state) {
    fixture *it = *state;
    failure why;
    route_anchor anchor;
    append(it, 100);
    start(it);
    await_settled(it, 1);
    stop(it);
    store_anchor(it->store, it->route, &anchor);
    assert_true(anchor.has_published);
    snprintf(anchor.cluster_id, sizeof anchor.cluster_id, "elsewhere");
    assert_int_equal(committer_set_anchor(it->store, it->route, &anchor, &why), ST_OK);
    append(it, 100);
    start(it);
    publisher_status status;
    int64_t deadline = clock_monotonic_ms() + WAIT_MS;
    do {
        usleep(1000);
        publisher_status_get(it->publisher, &status);
    } while (status.state != PUBLISHER_HALTED && clock_monotonic_ms() < deadline);
    assert_int_equal(status.state, PUBLISHER_HALTED);
    assert_non_null(strstr(status.last_error, "elsewhere"));
    stop(it);
    assert_int_equal(atomic_load(&it->settled), 1);
}

static void stops_soon_when_kafka_is_away(void **state) {
    fixture *it = *state;
    append(it, 100);
    snprintf(it->config.kafka.brokers, sizeof it->config.kafka.brokers, "127.0.0.1:9");
    start(it);
    usleep(700 * 1000);
    int64_t asked = clock_monotonic_ms();
    publisher_status status;
    publisher_status_get(it->publisher, &status);
    assert_int_equal(status.state, PUBLISHER_SETTLING);
    assert_false(status.kafka_reachable);
    stop(it);
    assert_true(clock_monotonic_ms() - asked < 5000);
    assert_int_equal(atomic_load(&it->settled), 0);
}

static void at_least_once_needs_no_transactions(void **state) {
    fixture *it = *state;
    it->config.routes[0].delivery = DELIVERY_AT_LEAST_ONCE;
    for (int i = 0; i < 70; i++)
        append(it, 100);
    start(it);
    await_settled(it, 70);
    stop(it);
    assert_int_equal(records_on_topic(it), 70);
}

int main(void) {
    log_setup(LOG_ERROR, LOG_LOGFMT);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(publishes_and_goes_on_where_it_stood),
        TEST(an_event_that_cannot_be_published_is_set_aside),
        TEST(another_cluster_halts_the_route),
        TEST(stops_soon_when_kafka_is_away),
        TEST(at_least_once_needs_no_transactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
