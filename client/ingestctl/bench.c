/*
 * ingestctl bench: load on a server, each event with an id of its own. Closed loop: --concurrency
 * unanswered, the next is sent when one is answered. Open loop: at a fixed rate, and latency counts
 * from when an event was meant to be sent, so that a server that stalls is not spared the events
 * that had to wait. The main thread sends; the library's own takes the answers.
 */
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/latency.h"
#include "client/ingestctl/stop.h"

enum { WAIT_MS = 200, OPEN_WINDOW = 1 << 17 };

typedef struct bench {
    const arguments *given;
    ingest_publisher *publisher;
    uint64_t events, rate, size;
    const char *operation, *source;
    sem_t turns; /* closed loop: how many more may be unanswered */
    int64_t began_us, ended_us;
    latency
        *times; /* of those that did not fail; the publisher's thread until the flush, as below */
    uint64_t failed;
    ingest_result trouble; /* of the first that failed */
} bench;

typedef struct sending {
    bench *of;
    int64_t meant_us;
} sending;

static int64_t now_us(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void answered(void *arg, const ingest_result *result) {
    sending *one = arg;
    bench *it = one->of;
    if (result->status == INGEST_OK)
        latency_add(it->times, (uint64_t)(now_us() - one->meant_us), 1);
    else if (it->failed++ == 0)
        it->trouble = *result;
    if (!it->rate) (void)sem_post(&it->turns);
    free(one);
}

/* Until the next one is to be sent; when that was. A signal ends it early. */
static int64_t wait_for_turn(bench *it, uint64_t number) {
    if (!it->rate) {
        (void)sem_wait(&it->turns);
        return now_us();
    }
    const int64_t due_us = it->began_us + (int64_t)(number * 1000000 / it->rate);
    const int64_t left_us = due_us - now_us();
    if (left_us > 0) {
        const struct timespec pause = {.tv_sec = left_us / 1000000,
                                       .tv_nsec = left_us % 1000000 * 1000};
        (void)nanosleep(&pause, NULL);
    }
    return due_us;
}

static bool send_one(bench *it, const char *filler, int64_t meant_us) {
    ingest_result result;
    sending *one = malloc(sizeof *one);
    if (!one) abort();
    *one = (sending){.of = it, .meant_us = meant_us};
    ingest_event *event = ingest_transaction_new(it->source, NULL);
    ingest_operation *operation = ingest_event_add(event, it->operation, NULL);
    ingest_operation_raw(operation, filler, it->size);
    ingest_status status = INGEST_WINDOW_FULL;
    while (status == INGEST_WINDOW_FULL && !stop_asked())
        status = ingest_publish_async(it->publisher, event, WAIT_MS, answered, one, &result);
    ingest_event_free(event);
    if (status == INGEST_OK) return true;
    free(one);
    return status == INGEST_WINDOW_FULL ? false : complain(it->given, 0, "%s", result.reason);
}

/* The number of those that were sent. */
static uint64_t send_all(bench *it) {
    char *filler = malloc(it->size + 1);
    if (!filler) abort();
    memset(filler, 'x', it->size);
    uint64_t sent = 0;
    it->began_us = now_us();
    while (sent < it->events && !stop_asked() && send_one(it, filler, wait_for_turn(it, sent)))
        sent++;
    while (!ingest_flush(it->publisher, STOP_GRACE_MS) && !stop_asked()) {
    }
    it->ended_us = now_us();
    ingest_publisher_close(it->publisher, 0);
    free(filler);
    return sent;
}

static const struct {
    double q;
    const char *name, *json;
} QUANTILES[] = {
    {0.5, "p50", "p50_us"},
    {0.9, "p90", "p90_us"},
    {0.99, "p99", "p99_us"},
    {0.999, "p99.9", "p999_us"},
};
enum { QUANTILE_COUNT = sizeof QUANTILES / sizeof *QUANTILES };

static void print_json(const bench *it, uint64_t sent, double seconds) {
    (void)printf("{\"events\":%llu,\"failed\":%llu,\"seconds\":%.3f,\"per_s\":%.1f",
                 (unsigned long long)sent, (unsigned long long)it->failed, seconds,
                 (double)it->times->count / seconds);
    for (int i = 0; i < QUANTILE_COUNT; i++)
        (void)printf(",\"%s\":%llu", QUANTILES[i].json,
                     (unsigned long long)latency_quantile_us(it->times, QUANTILES[i].q));
    (void)printf(",\"max_us\":%llu}\n", (unsigned long long)it->times->max_us);
}

/* A bar for each doubling of the latency that anything falls into. */
static void print_histogram(const latency *times) {
    for (uint64_t from = 0, to = 1; from <= times->max_us; from = to, to *= 2) {
        const uint64_t count = latency_below(times, to) - latency_below(times, from);
        if (count == 0) continue;
        char bar[41];
        memset(bar, '#', sizeof bar - 1);
        bar[(count * (sizeof bar - 1) + times->count - 1) / times->count] = '\0';
        (void)printf("  < %10.2f ms %10llu %s\n", (double)to / 1000, (unsigned long long)count,
                     bar);
    }
}

static void print_result(const bench *it, uint64_t sent) {
    const double seconds = (double)(it->ended_us - it->began_us) / 1e6;
    if (flag(it->given, "json")) {
        print_json(it, sent, seconds);
        return;
    }
    (void)printf("%llu events in %.2f s: %.0f/s, %llu failed\n", (unsigned long long)sent, seconds,
                 (double)it->times->count / seconds, (unsigned long long)it->failed);
    for (int i = 0; i < QUANTILE_COUNT; i++)
        (void)printf("  %-5s %8.2f ms\n", QUANTILES[i].name,
                     (double)latency_quantile_us(it->times, QUANTILES[i].q) / 1000);
    (void)printf("  max   %8.2f ms\n\n", (double)it->times->max_us / 1000);
    print_histogram(it->times);
}

static bool take_options(const arguments *given, ingest_publisher_options *options, bench *it) {
    uint64_t concurrency;
    if (!connection_options(given, options)) return false;
    if (!argument_number(given, "events", 100000, 1, UINT32_MAX, &it->events)) return false;
    if (!argument_number(given, "rate", 0, 1, 10000000, &it->rate)) return false;
    if (!argument_number(given, "size", 300, 0, 1 << 20, &it->size)) return false;
    if (!argument_number(given, "concurrency", 1024, 1, 1 << 17, &concurrency)) return false;
    if (it->rate && flag(given, "concurrency"))
        return complain(given, 0, "--rate is an open loop, --concurrency a closed one");
    (void)sem_init(&it->turns, 0, (unsigned)concurrency);
    options->window = OPEN_WINDOW; /* neither loop is to wait for it */
    it->operation = argument(given, "operation");
    if (!it->operation) it->operation = "create_user";
    it->source = argument(given, "source");
    if (!it->source) it->source = "/ingestctl/bench";
    return true;
}

static int run(const arguments *given) {
    bench it = {.given = given};
    ingest_publisher_options options;
    ingest_error error;
    if (!take_options(given, &options, &it)) return EX_USAGE;
    it.publisher = ingest_publisher_open(&options, &error);
    if (!it.publisher) return complain(given, EX_USAGE, "%s", error.reason);
    it.times = calloc(1, sizeof *it.times);
    if (!it.times) abort();
    stop_on_signals();
    const uint64_t sent = send_all(&it);
    print_result(&it, sent);
    free(it.times);
    (void)sem_destroy(&it.turns);
    if (it.failed)
        return complain(given, exit_code_of(it.trouble.status), "the first that failed: %s",
                        it.trouble.reason);
    return sent == it.events ? EX_OK : stop_asked() ? EX_TEMPFAIL : EX_DATAERR;
}

static const command_option OPTIONS[] = {
    {"events", "N", "how many; default 100000"},
    {"rate", "N", "open loop: so many a second, whatever the server does"},
    {"concurrency", "N", "closed loop: events unanswered at a time; default 1024"},
    {"size", "BYTES", "of the payload; default 300"},
    {"operation", "NAME", "of the catalogue; default create_user"},
    {"source", "SOURCE", "default /ingestctl/bench"},
    {"json", NULL, "as JSON, for scripts"},
    {0}};

const command COMMAND_BENCH = {
    .group = "",
    .name = "bench",
    .operands = "",
    .summary = "load on a server, and how long acknowledgements take",
    .help = "Publishes real events, each with an id of its own: they are stored, and go to Kafka.\n"
            "Prints the rate and the latency's quantiles. With --rate latency counts from when an\n"
            "event was meant to be sent, so that waiting behind a stall counts too.",
    .example = "  ingestctl bench --events 1000000\n"
               "  ingestctl bench --rate 20000 --events 200000",
    .options = OPTIONS,
    .online = true,
    .run = run,
};
