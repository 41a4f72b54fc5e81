/*
 * Every metric in one place. One scrape takes one picture of each route, so that the ledger's
 * identity holds in it: accepted = published + pending + dead + purged + lost.
 */
#include "server/exposition.h"

#include <librdkafka/rdkafka.h>

#include "storage/clock.h"

typedef struct route_figures {
    metrics_label labels[2]; /* {route} and the end */
    route_stats store;
    publisher_status publisher;
} route_figures;

typedef struct picture {
    const ingestd *server;
    size_t route_count;
    route_figures routes[STORE_ROUTES_MAX];
    store_figures store;
} picture;

static void take_picture(ingestd *server, picture *out) {
    out->server = server;
    out->route_count = server->config.route_count;
    for (size_t i = 0; i < out->route_count; i++) {
        route_figures *route = &out->routes[i];
        route->labels[0] = (metrics_label){"route", server->config.routes[i].name};
        route->labels[1] = (metrics_label){NULL, NULL};
        store_stats(server->store, server->store_routes[i], &route->store);
        publisher_status_get(server->publishers[i], &route->publisher);
    }
    store_figures_get(server->store, &out->store);
}

/* A family with one sample for each route; `value` is an expression of `route`. */
#define EACH_ROUTE(to, type, name, help, value)                                                    \
    do {                                                                                           \
        metrics_family(to, type, name, help);                                                      \
        for (size_t i_ = 0; i_ < now->route_count; i_++) {                                         \
            const route_figures *route = &now->routes[i_];                                         \
            metrics_integer(to, route->labels, value);                                             \
        }                                                                                          \
    } while (0)

/* ---- the routes ------------------------------------------------------------------------ */

static void write_ledger(metrics_writer *to, const picture *now) {
    EACH_ROUTE(to, METRICS_COUNTER, "ingest_events_accepted_total",
               "Events accepted in the life of the store.", route->store.accepted);
    EACH_ROUTE(to, METRICS_COUNTER, "ingest_events_published_total",
               "Events that Kafka has committed.", route->store.published);
    EACH_ROUTE(to, METRICS_GAUGE, "ingest_events_pending", "Events that wait to be published.",
               route->store.pending);
    EACH_ROUTE(to, METRICS_GAUGE, "ingest_events_dead", "Dead letters.", route->store.dead);
    EACH_ROUTE(to, METRICS_GAUGE, "ingest_dead_letter_bytes",
               "What the dead letters take of their budget.", route->store.dead_bytes);
    EACH_ROUTE(to, METRICS_COUNTER, "ingest_events_purged_total",
               "Dead letters that an operator deleted.", route->store.purged);
    EACH_ROUTE(to, METRICS_COUNTER, "ingest_events_lost_total",
               "Events that an operator declared lost.", route->store.lost);
    EACH_ROUTE(to, METRICS_GAUGE, "ingest_backlog_bytes", "Size of the events that wait.",
               route->store.backlog_bytes);
}

static double age_seconds(int64_t since_ms) {
    return since_ms > 0 ? (double)(clock_wall_ms() - since_ms) / 1000 : 0;
}

static void write_publishers(metrics_writer *to, const picture *now) {
    metrics_family(to, METRICS_GAUGE, "ingest_backlog_oldest_age_seconds",
                   "Age of the oldest event that waits; 0 when none does.");
    for (size_t i = 0; i < now->route_count; i++)
        metrics_real(to, now->routes[i].labels,
                     age_seconds(now->routes[i].store.oldest_accepted_ms));
    EACH_ROUTE(to, METRICS_GAUGE, "ingest_route_blocked",
               "1 when the route cannot be written or waits for an operator.",
               route->publisher.state == PUBLISHER_BLOCKED ||
                   route->publisher.state == PUBLISHER_HALTED);
    EACH_ROUTE(to, METRICS_GAUGE, "ingest_route_halted", "1 when the route waits for an operator.",
               route->publisher.state == PUBLISHER_HALTED);
    metrics_family(to, METRICS_HISTOGRAM, "ingest_transaction_duration_seconds",
                   "From the begin of a Kafka transaction to its commit.");
    for (size_t i = 0; i < now->route_count; i++)
        metrics_buckets(to, now->routes[i].labels, now->routes[i].publisher.transaction_us_buckets,
                        now->routes[i].publisher.transaction_us_sum);
    metrics_family(to, METRICS_COUNTER, "ingest_producer_restarts_total",
                   "Kafka producers that were thrown away.");
    static const char *const REASONS[] = {"doubt", "abort", "fenced", "fatal"};
    for (size_t i = 0; i < now->route_count; i++)
        for (size_t r = 0; r < sizeof REASONS / sizeof *REASONS; r++)
            metrics_integer(to,
                            METRICS_LABELS({"route", now->server->config.routes[i].name},
                                           {"reason", REASONS[r]}),
                            now->routes[i].publisher.restarts[r]);
}

/* ---- the store and the requests ---------------------------------------------------------- */

static void write_store(metrics_writer *to, const picture *now) {
    metrics_family(to, METRICS_HISTOGRAM, "ingest_fsync_duration_seconds",
                   "Synced writes of the store, each a group commit.");
    metrics_buckets(to, METRICS_NO_LABELS, now->store.sync.buckets, now->store.sync.sum_us);
    metrics_family(to, METRICS_COUNTER, "ingest_committed_requests_total",
                   "Appends over all group commits.");
    metrics_integer(to, METRICS_NO_LABELS, now->store.committed_requests);
    metrics_family(to, METRICS_GAUGE, "ingest_commit_queue_requests", "Appends that wait now.");
    metrics_integer(to, METRICS_NO_LABELS, now->store.queued_requests);
    metrics_family(to, METRICS_COUNTER, "ingest_duplicates_total",
                   "Requests answered from the ids, because the event was known already.");
    metrics_integer(to, METRICS_NO_LABELS, now->store.duplicates);
    metrics_family(to, METRICS_GAUGE, "ingest_ids_window_seconds",
                   "How long the id of a published event is remembered, as in force.");
    metrics_real(to, METRICS_NO_LABELS, (double)now->store.ids_window_ms / 1000);
    metrics_family(to, METRICS_GAUGE, "ingest_ids_bytes", "Tables of the ids on disk.");
    metrics_integer(to, METRICS_NO_LABELS, now->store.ids_bytes);
    metrics_family(to, METRICS_GAUGE, "ingest_disk_free_bytes", "Free space of the volume.");
    metrics_integer(to, METRICS_NO_LABELS, now->store.disk_free_bytes);
}

static void write_requests(metrics_writer *to, const picture *now) {
    const ingest_service *ingest = &now->server->ingest;
    metrics_family(to, METRICS_HISTOGRAM, "ingest_ack_duration_seconds",
                   "From a Publish or PublishBatch request to its OK.");
    metrics_histogram(to, METRICS_NO_LABELS, &ingest->ack_duration);
    metrics_family(to, METRICS_COUNTER, "ingest_refused_total", "Events that were not accepted.");
    for (size_t i = ST_OK + 1; i < OUTCOME_COUNT; i++) {
        const uint64_t count = atomic_load_explicit(&ingest->refused[i], memory_order_relaxed);
        if (count > 0) metrics_integer(to, METRICS_LABELS({"reason", outcome_name(i)}), count);
    }
    metrics_family(to, METRICS_GAUGE, "ingest_grpc_calls_in_flight", "gRPC calls not ended.");
    metrics_integer(to, METRICS_NO_LABELS, rpc_server_calls(now->server->rpc));
    metrics_family(to, METRICS_GAUGE, "ingest_build_info", "1; versions are labels.");
    metrics_integer(
        to, METRICS_LABELS({"version", INGEST_VERSION}, {"librdkafka", rd_kafka_version_str()}), 1);
}

/* ---- the paths ------------------------------------------------------------------------- */

static int show_metrics(void *arg, text_buffer *body) {
    picture now;
    take_picture(arg, &now);
    metrics_writer to = {.text = body};
    write_ledger(&to, &now);
    write_publishers(&to, &now);
    write_store(&to, &now);
    write_requests(&to, &now);
    return body->failed ? 500 : 200;
}

static int say(text_buffer *body, int status, const char *text) {
    text_add(body, text, strlen(text));
    return status;
}

/* The process works. That Kafka is away is no reason to restart it. */
static int show_live(void *arg, text_buffer *body) {
    (void)arg;
    return say(body, 200, "alive\n");
}

static int show_ready(void *arg, text_buffer *body) {
    const ingestd *server = arg;
    return atomic_load(&server->accepting) ? say(body, 200, "ready\n")
                                           : say(body, 503, "not accepting events\n");
}

outcome exposition_start(ingestd *server, http_server **out, failure *why) {
    const http_route paths[] = {
        {"/metrics", HTTP_PROMETHEUS, show_metrics, server},
        {"/livez", HTTP_TEXT, show_live, server},
        {"/readyz", HTTP_TEXT, show_ready, server},
    };
    return http_server_start(server->config.http.address, paths, sizeof paths / sizeof *paths, out,
                             why);
}
