/*
 * ingestctl bench: load on a server, each event with an id of its own. Closed loop: as many as
 * --window unanswered. Open loop: at a fixed rate, and latency counts from when an event was meant
 * to be sent, so that a server that stalls is not spared the events that had to wait. The main
 * thread sends; the library's own takes the answers.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/latency.h"

typedef struct bench {
    const arguments *given;
    ingest_publisher *publisher;
    uint64_t events, rate, size;
    const char *operation, *source;
    int64_t began_us, ended_us;
    latency *times; /* the publisher's thread, until the flush; as all below */
    uint64_t failed;
    char trouble[512]; /* of the first that failed */
} bench;

typedef struct sending {
    bench *of;
    int64_t meant_us;
} sending;

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static int64_t now_us(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void answered(void *arg, const ingest_result *result) {
    sending *one = arg;
    bench *it = one->of;
    latency_add(it->times, (uint64_t)(now_us() - one->meant_us), 1);
    if (result->status != INGEST_OK && it->failed++ == 0)
        (void)snprintf(it->trouble, sizeof it->trouble, "%s", result->reason);
    free(one);
}

/* When the next one is to be sent: by the rate, or now. */
static int64_t wait_for_turn(const bench *it, uint64_t number) {
    if (!it->rate) return now_us();
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
    const ingest_status status =
        ingest_publish_async(it->publisher, event, UINT32_MAX, answered, one, &result);
    ingest_event_free(event);
    if (status == INGEST_OK) return true;
    free(one);
    return complain(it->given, 0, "%s", result.reason);
}

/* The number of those that were sent. */
static uint64_t send_all(bench *it) {
    char *filler = malloc(it->size + 1);
    if (!filler) abort();
    memset(filler, 'x', it->size);
    uint64_t sent = 0;
    it->began_us = now_us();
    while (sent < it->events && !interrupted && send_one(it, filler, wait_for_turn(it, sent)))
        sent++;
    while (!ingest_flush(it->publisher, 1000)) {
    }
    it->ended_us = now_us();
    free(filler);
    return sent;
}

static const double QUANTILES[] = {0.5, 0.9, 0.99, 0.999};

static void print_result(const bench *it, uint64_t sent) {
    const double seconds = (double)(it->ended_us - it->began_us) / 1e6;
    const unsigned long long failed = it->failed;
    if (flag(it->given, "json")) {
        (void)printf("{\"events\":%llu,\"failed\":%llu,\"seconds\":%.3f,\"per_s\":%.1f",
                     (unsigned long long)sent, failed, seconds, (double)sent / seconds);
        for (size_t i = 0; i < sizeof QUANTILES / sizeof *QUANTILES; i++)
            (void)printf(",\"p%g_us\":%llu", QUANTILES[i] * 100,
                         (unsigned long long)latency_quantile_us(it->times, QUANTILES[i]));
        (void)printf(",\"max_us\":%llu}\n", (unsigned long long)it->times->max_us);
        return;
    }
    (void)printf("%llu events in %.2f s: %.0f/s, %llu failed\n", (unsigned long long)sent, seconds,
                 (double)sent / seconds, failed);
    for (size_t i = 0; i < sizeof QUANTILES / sizeof *QUANTILES; i++)
        (void)printf("  p%-5g %8.2f ms\n", QUANTILES[i] * 100,
                     (double)latency_quantile_us(it->times, QUANTILES[i]) / 1000);
    (void)printf("  max    %8.2f ms\n", (double)it->times->max_us / 1000);
}

static bool take_options(const arguments *given, ingest_publisher_options *options, bench *it) {
    uint64_t window;
    if (!connection_options(given, options)) return false;
    if (!argument_number(given, "events", 100000, 1, UINT32_MAX, &it->events)) return false;
    if (!argument_number(given, "rate", 0, 1, 10000000, &it->rate)) return false;
    if (!argument_number(given, "size", 300, 0, 1 << 20, &it->size)) return false;
    /* In an open loop the window must not be what limits. */
    const uint32_t usual = it->rate ? 1 << 16 : 1024;
    if (!argument_number(given, "window", usual, 1, 1 << 20, &window)) return false;
    options->window = (uint32_t)window;
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
    const struct sigaction stop = {.sa_handler = interrupt};
    (void)sigaction(SIGINT, &stop, NULL);
    const uint64_t sent = send_all(&it);
    ingest_publisher_close(it.publisher, 0);
    print_result(&it, sent);
    free(it.times);
    if (it.failed) return complain(given, EX_UNAVAILABLE, "the first that failed: %s", it.trouble);
    return sent ? EX_OK : EX_USAGE;
}

static const command_option OPTIONS[] = {
    {"events", "N", "how many; default 100000"},
    {"rate", "N", "open loop: so many a second, whatever the server does"},
    {"window", "N", "closed loop: events unanswered at a time; default 1024"},
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
