/*
 * Drains a backlog through the publisher: appends `count` events of `size` bytes, then starts the
 * publisher and measures until the last one is settled. Prints events/s of both.
 *
 *   publisher_drain DIRECTORY BROKERS|trial TOPIC COUNT SIZE [EVENTS_PER_TRANSACTION [KEEP_MS]]
 *
 * Run again on the same directory it goes on where it stood. KEEP_MS: appends nothing before, but
 * the events one by one over that time, while the publisher runs; prints the p50 and p99 from the
 * append to the settled position.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/log.h"
#include "server/publisher.h"
#include "server/trial.h"
#include "storage/clock.h"
#include "storage/committer.h"

static atomic_ulong settled;
static atomic_ulong appended;
static atomic_ulong buried;

static void on_position(void *arg, uint32_t route, uint64_t sequence) {
    (void)arg, (void)route;
    atomic_store(&settled, sequence);
}

static void on_dead(void *arg, uint32_t route, uint64_t sequence, const char *reason) {
    (void)arg, (void)route;
    atomic_fetch_add(&buried, 1);
    printf("buried %llu: %s\n", (unsigned long long)sequence, reason);
}

static void on_fatal(void *arg, const char *reason) {
    (void)arg;
    fprintf(stderr, "store: %s\n", reason);
    _exit(1);
}

static void check(outcome result, const failure *why) {
    if (result == ST_OK) return;
    fprintf(stderr, "%s: %s %s\n", outcome_name(result), why->field, why->reason);
    exit(1);
}

static void on_appended(append_request *request) {
    if (request->result) fprintf(stderr, "append: %s\n", outcome_name(request->result));
    atomic_fetch_add(&appended, 1);
    free(request);
}

static void append(event_store *store, uint32_t route, size_t size, uint64_t number) {
    append_request *request = calloc(1, sizeof *request + size + 32);
    char *id = (char *)(request + 1);
    uint8_t *body = (uint8_t *)id + 32;
    int length = snprintf(id, 32, "%llx-%llx", (unsigned long long)clock_wall_ms(),
                          (unsigned long long)number);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)((number * 31 + i * (i ^ number)) >> 3);
    bytes name = bytes_of(id, (size_t)length);
    request->route = route;
    request->done = on_appended;
    request->record = (event_record){.kind = RECORD_EVENT,
                                     .id = name,
                                     .source = bytes_of_string("bench"),
                                     .key = name,
                                     .type = bytes_of_string("create_user"),
                                     .time_seconds = clock_wall_ms() / 1000,
                                     .transaction = true,
                                     .operations = 1,
                                     .event = bytes_of(body, size)};
    while (committer_submit(store, request))
        usleep(1000);
}

static void await(atomic_ulong *counter, unsigned long value) {
    while (atomic_load(counter) < value)
        usleep(200);
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc < 6) return fprintf(stderr, "see the head of publisher_drain.c\n"), 2;
    unsigned long count = strtoul(argv[4], NULL, 10);
    size_t size = strtoul(argv[5], NULL, 10);
    static config all;
    route_config *route = &all.routes[0];
    trial_kafka *trial = NULL;
    failure why = {0};
    event_store *store;
    publisher *it;
    uint32_t number;

    log_setup(LOG_INFO, LOG_LOGFMT);
    *route =
        (route_config){.name = "transactions",
                       .linger_ms = 5,
                       .transaction_max_events = argc > 6 ? strtoul(argv[6], NULL, 10) : 100000,
                       .transaction_max_bytes = 64 << 20,
                       .max_record_bytes = 1000000};
    snprintf(route->topic, sizeof route->topic, "%s", argv[3]);
    snprintf(all.kafka.positions_topic, sizeof all.kafka.positions_topic, "ingest.positions");
    snprintf(all.kafka.brokers, sizeof all.kafka.brokers, "%s", argv[2]);
    all.kafka.create_topics = true;
    all.kafka.topic_partitions = 12;
    all.route_count = 1;
    property more[] = {{getenv("PROPERTY"), getenv("VALUE")}};
    all.kafka.properties = more;
    all.kafka.property_count = more[0].name != NULL;
    if (getenv("AT_LEAST_ONCE")) route->delivery = DELIVERY_AT_LEAST_ONCE;
    if (strcmp(argv[2], "trial") == 0) {
        const char *topics[] = {route->topic, all.kafka.positions_topic};
        check(trial_kafka_start(topics, 2, 4, &trial, &why), &why);
        snprintf(all.kafka.brokers, sizeof all.kafka.brokers, "%s", trial_kafka_brokers(trial));
        all.trial = true;
    }
    store_options options;
    store_options_init(&options);
    options.directory = argv[1];
    options.fatal = on_fatal;
    check(store_open(&options, &store, &why), &why);
    check(store_route(store, route->name, &number, &why), &why);
    route_stats stats;
    store_stats(store, number, &stats);
    uint64_t before = stats.last_sequence;
    bool slowly = argc > 7;

    int64_t started = clock_monotonic_us();
    for (unsigned long i = 0; i < count && !slowly; i++)
        append(store, number, size, i);
    if (!slowly) await(&appended, count);
    if (!slowly)
        printf("appended  %8.0f events/s\n", count * 1e6 / (clock_monotonic_us() - started));
    started = clock_monotonic_us();
    check(publisher_start(&(publisher_options){.store = store,
                                               .route = number,
                                               .config = &all,
                                               .settings = route,
                                               .on_position = on_position,
                                               .on_dead = on_dead},
                          &it, &why),
          &why);
    if (slowly) {
        int64_t *took = calloc(count + 1, sizeof *took);
        while (atomic_load(&settled) == 0 && before > 0)
            usleep(1000);
        sleep(2); /* settled */
        for (unsigned long i = 0; i < count; i++) {
            int64_t from = clock_monotonic_us();
            append(store, number, size, i);
            await(&settled, before + i + 1);
            took[i] = clock_monotonic_us() - from;
            usleep((useconds_t)(strtoul(argv[7], NULL, 10) * 1000 / count));
        }
        qsort(took, count, sizeof *took, by_value);
        printf("settled after p50 %.1f ms, p99 %.1f ms\n", took[count / 2] / 1e3,
               took[count * 99 / 100] / 1e3);
        free(took);
    } else {
        while (before + count > 0 && atomic_load(&settled) == 0)
            usleep(200);
        unsigned long first = atomic_load(&settled);
        int64_t first_us = clock_monotonic_us();
        await(&settled, before + count);
        int64_t end_us = clock_monotonic_us();
        printf("published %8.0f events/s behind the first position, which took %.0f ms\n",
               (before + count - first) * 1e6 / (end_us - first_us), (first_us - started) / 1e3);
    }
    publisher_status status;
    publisher_status_get(it, &status);
    printf("transactions %llu, mean %.1f ms, aborted %llu, restarts doubt %llu abort %llu fenced "
           "%llu fatal %llu, dead %lu, last error '%s'\n",
           (unsigned long long)status.transactions,
           status.transactions ? status.transaction_us_sum / 1e3 / status.transactions : 0.0,
           (unsigned long long)status.aborted, (unsigned long long)status.restarts[0],
           (unsigned long long)status.restarts[1], (unsigned long long)status.restarts[2],
           (unsigned long long)status.restarts[3], atomic_load(&buried), status.last_error);
    publisher_stop(it);
    publisher_join(it, 5000);
    store_close(store);
    trial_kafka_stop(trial);
    return 0;
}
