/* The figures of a consumer, as a struct and as Prometheus' text. Any thread: reads counters, and
 * those of the store, which has its own lock. */
#include <librdkafka/rdkafka.h>

#include "client/consumer/driver.h"
#include "server/metrics.h"
#include "storage/clock.h"

#define READ(counter) atomic_load_explicit(&it->counters.counter, memory_order_relaxed)

void ingest_consumer_stats_get(ingest_consumer *it, ingest_consumer_stats *stats) {
    failed_figures failed;
    failed_store_figures(it->store, &failed);
    *stats = (ingest_consumer_stats){.events_done = READ(events_done),
                                     .events_skipped = READ(events_skipped),
                                     .effects_done = READ(effects_done),
                                     .effects_failed = READ(effects_failed),
                                     .commits = READ(commits),
                                     .rebalances = READ(rebalances),
                                     .failed_events = failed.events,
                                     .failed_bytes = failed.bytes,
                                     .lag = READ(lag),
                                     .partitions = READ(partitions),
                                     .paused = READ(paused),
                                     .in_flight = READ(in_flight)};
}

typedef struct figure {
    metrics_type type;
    const char *name, *help;
    uint64_t value;
} figure;

static void write_all(metrics_writer *to, const figure *all, size_t count) {
    for (size_t i = 0; i < count; i++) {
        metrics_family(to, all[i].type, all[i].name, all[i].help);
        metrics_integer(to, METRICS_NO_LABELS, all[i].value);
    }
}

static void write_work(metrics_writer *to, ingest_consumer *it) {
    const figure all[] = {
        {METRICS_COUNTER, "ingest_consumer_records_total", "Records read from Kafka.",
         READ(records)},
        {METRICS_COUNTER, "ingest_consumer_read_bytes_total", "Bytes of their values.",
         READ(read_bytes)},
        {METRICS_COUNTER, "ingest_consumer_events_done_total", "Events with all effects done.",
         READ(events_done)},
        {METRICS_COUNTER, "ingest_consumer_events_skipped_total",
         "Events that were seen before within the identity window.", READ(events_skipped)},
        {METRICS_COUNTER, "ingest_consumer_effects_done_total", "Effects done.",
         READ(effects_done)},
        {METRICS_COUNTER, "ingest_consumer_effects_failed_total",
         "Attempts at effects that did not succeed.", READ(effects_failed)},
        {METRICS_COUNTER, "ingest_consumer_commits_total",
         "Commits of progress, each for all that was done meanwhile.", READ(commits)},
        {METRICS_COUNTER, "ingest_consumer_rebalances_total", "Assignments and revocations.",
         READ(rebalances)},
    };
    write_all(to, all, sizeof all / sizeof *all);
}

static void write_standing(metrics_writer *to, ingest_consumer *it) {
    const figure all[] = {
        {METRICS_GAUGE, "ingest_consumer_lag",
         "Records behind the ends of the partitions held here.", READ(lag)},
        {METRICS_GAUGE, "ingest_consumer_partitions", "Partitions held here.", READ(partitions)},
        {METRICS_GAUGE, "ingest_consumer_paused_partitions",
         "Of these, those that are not read for want of room.", READ(paused)},
        {METRICS_GAUGE, "ingest_consumer_in_flight", "Events, or parts of such, under way.",
         READ(in_flight)},
        {METRICS_GAUGE, "ingest_consumer_in_flight_bytes", "Memory that they take.", READ(bytes)},
        {METRICS_GAUGE, "ingest_consumer_waiting_groups",
         "Split transactions of which parts are missing.", READ(groups)},
        {METRICS_GAUGE, "ingest_consumer_identities", "Identities remembered.", READ(identities)},
    };
    write_all(to, all, sizeof all / sizeof *all);
    const int64_t oldest_ms = READ(identity_oldest_ms);
    const int64_t now_ms = clock_wall_ms();
    metrics_family(to, METRICS_GAUGE, "ingest_consumer_identity_window_seconds",
                   "How far back identities reach.");
    metrics_real(to, METRICS_NO_LABELS,
                 oldest_ms > 0 && oldest_ms < now_ms ? (double)(now_ms - oldest_ms) / 1000 : 0);
}

static void write_failed(metrics_writer *to, ingest_consumer *it) {
    failed_figures failed;
    failed_store_figures(it->store, &failed);
    metrics_family(to, METRICS_GAUGE, "ingest_consumer_failed_events",
                   "Events in the store of failed events.");
    metrics_integer(to, METRICS_LABELS({"state", "waiting"}), failed.waiting);
    metrics_integer(to, METRICS_LABELS({"state", "given_up"}), failed.given_up);
    metrics_integer(to, METRICS_LABELS({"state", "held"}), failed.held);
    metrics_family(to, METRICS_GAUGE, "ingest_consumer_failed_bytes", "What they take there.");
    metrics_integer(to, METRICS_NO_LABELS, failed.bytes);
    metrics_family(to, METRICS_GAUGE, "ingest_consumer_failed_oldest_age_seconds",
                   "Age of the oldest of them.");
    metrics_real(to, METRICS_NO_LABELS,
                 failed.oldest_ms ? (double)(clock_wall_ms() - failed.oldest_ms) / 1000 : 0);
}

static void write_alarms(metrics_writer *to, ingest_consumer *it) {
    static const char *const NAMES[ALARMS] = {"failed", "store", "stalled", "offsets", "kafka"};
    metrics_family(to, METRICS_COUNTER, "ingest_consumer_alarms_total",
                   "Calls of the alarm hook, by what they told.");
    for (size_t i = 0; i < ALARMS; i++)
        metrics_integer(to, METRICS_LABELS({"alarm", NAMES[i]}), READ(alarms[i]));
}

void ingest_consumer_metrics(ingest_consumer *it,
                             void (*write)(void *arg, const char *text, size_t len), void *arg) {
    text_buffer text = {0};
    metrics_writer to = {.text = &text};
    write_work(&to, it);
    write_standing(&to, it);
    write_failed(&to, it);
    write_alarms(&to, it);
    write(arg, text.data, text.failed ? 0 : text.len);
    text_free(&text);
}
