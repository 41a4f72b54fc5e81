/*
 * Start and stop of the whole server, on the main thread. Each step is a function; the first that
 * fails ends the start, and ingestd_stop undoes what was done.
 */
#include "server/ingestd.h"

#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "server/admin_service.h"
#include "server/dead_letter_service.h"
#include "server/default_catalogue.h"
#include "server/exposition.h"
#include "server/store_opening.h"
#include "storage/clock.h"

static const char INGEST_SERVICE[] = "ingest.v1.IngestService";
static const char PUBLISHER_HEALTH[] = "ingest.publisher";

/* ---- hooks ----------------------------------------------------------------------------- */

static void store_log(void *arg, store_log_level level, const char *message) {
    (void)arg;
    static const log_level LEVELS[] = {LOG_INFO, LOG_WARNING, LOG_ERROR};
    log_line(LEVELS[level], "store", "detail=%s", message);
}

/* No acknowledgement may follow a failed sync, and the page cache cannot be believed any more: the
 * process ends at once, and recovery decides what the disk has. */
static void store_failed(void *arg, const char *reason) {
    (void)arg;
    log_line(LOG_ERROR, "the store cannot be written; ending without a further acknowledgement",
             "reason=%s", reason);
    _exit(EX_IOERR);
}

static void rpc_log(int level, const char *message) {
    log_line((log_level)level, "grpc", "detail=%s", message);
}

static void position_moved(void *arg, uint32_t route, uint64_t sequence) {
    ack_waiters_position(((ingestd *)arg)->waiters, route, sequence);
}

static void event_died(void *arg, uint32_t route, uint64_t sequence, const char *reason) {
    ack_waiters_dead(((ingestd *)arg)->waiters, route, sequence, reason);
}

/* ---- start ----------------------------------------------------------------------------- */

static outcome load_catalogue(ingestd *it, failure *why) {
    if (!it->config.catalogue_file[0])
        return catalogue_parse(bytes_of(ingest_default_catalogue, ingest_default_catalogue_size),
                               &it->catalogue, why);
    return catalogue_load(it->config.catalogue_file, &it->catalogue, why);
}

static outcome start_trial(ingestd *it, failure *why) {
    if (!it->config.trial) return ST_OK;
    const char *topics[STORE_ROUTES_MAX + 1];
    size_t count = 0;
    for (size_t i = 0; i < it->config.route_count; i++)
        topics[count++] = it->config.routes[i].topic;
    topics[count++] = it->config.kafka.positions_topic;
    const outcome result = trial_kafka_start(topics, count, 3, &it->trial, why);
    if (result != ST_OK) return result;
    (void)snprintf(it->config.kafka.brokers, sizeof it->config.kafka.brokers, "%s",
                   trial_kafka_brokers(it->trial));
    return ST_OK;
}

static outcome open_store(ingestd *it, failure *why) {
    const config *all = &it->config;
    store_options options;
    store_options_init(&options);
    options.directory = all->data_dir;
    options.ids_window_ms = all->storage.ids_window_ms;
    options.ids_budget_bytes = all->storage.ids_budget_bytes;
    options.backlog_budget_bytes = all->storage.backlog_budget_bytes;
    options.dead_budget_bytes = all->storage.dead_budget_bytes;
    options.reserve_free_bytes = all->storage.reserve_free_bytes;
    options.ballast_bytes = all->storage.ballast_bytes;
    options.queue_max_requests = all->storage.queue_max_requests;
    options.queue_max_bytes = all->storage.queue_max_bytes;
    options.memtable_bytes = all->storage.memtable_bytes;
    options.log = store_log;
    options.fatal = store_failed;
    options.arg = it;
    outcome result = store_opening(&options, all->storage.accept_loss, &it->store, why);
    for (size_t i = 0; result == ST_OK && i < all->route_count; i++)
        result = store_route(it->store, all->routes[i].name, &it->store_routes[i], why);
    return result;
}

static outcome make_services(ingestd *it, failure *why) {
    it->waiters = ack_waiters_new(it->store);
    it->health = health_new();
    if (!it->waiters || !it->health) return fail(why, ST_NO_MEMORY, "", "out of memory");

    ingest_service *ingest = &it->ingest;
    ingest->rules.config = &it->config;
    ingest->rules.catalogue = it->catalogue;
    memcpy(ingest->rules.store_routes, it->store_routes, sizeof it->store_routes);
    ingest->store = it->store;
    ingest->waiters = it->waiters;
    const uuid store = store_id(it->store);
    uuid_format(&store, ingest->store_text);

    ingest_methods(ingest, it->methods);
    it->method_count = INGEST_METHOD_COUNT;
    admin_methods(it, it->methods + it->method_count);
    it->method_count += ADMIN_METHOD_COUNT;
    dead_letter_methods(it, it->methods + it->method_count);
    it->method_count += DEAD_LETTER_METHOD_COUNT;
    it->method_count += health_methods(it->health, it->methods + it->method_count);
    static const char *const SERVICES[] = {
        INGEST_SERVICE,
        "ingest.v1.AdminService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    };
    const outcome result =
        reflection_new(bytes_of(ingest_descriptor_set, ingest_descriptor_set_size), SERVICES,
                       sizeof SERVICES / sizeof *SERVICES, &it->reflection, why);
    if (result != ST_OK) return result;
    it->method_count += reflection_methods(it->reflection, it->methods + it->method_count);
    return intake_check_routes(&ingest->rules, why);
}

static outcome start_publishers(ingestd *it, failure *why) {
    for (size_t i = 0; i < it->config.route_count; i++) {
        const publisher_options options = {
            .store = it->store,
            .route = it->store_routes[i],
            .config = &it->config,
            .settings = &it->config.routes[i],
            .catalogue = it->catalogue,
            .on_position = position_moved,
            .on_dead = event_died,
            .arg = it,
        };
        const outcome result = publisher_start(&options, &it->publishers[i], why);
        if (result != ST_OK) return result;
    }
    return ST_OK;
}

/* One core is left to the committer, which also sends the answers: so they pile up at a connection
 * while another is being written, and go out together. */
static uint32_t rpc_threads(const config *all) {
    enum { MOST = 8 };
    if (all->limits.threads > 0) return (uint32_t)all->limits.threads;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN) - 1;
    return cores < 1 ? 1 : cores > MOST ? MOST : (uint32_t)cores;
}

static outcome start_rpc(ingestd *it, failure *why) {
    const config *all = &it->config;
    const rpc_options options = {
        .address = all->listen.address,
        .threads = rpc_threads(all),
        .max_message_bytes = (uint32_t)all->limits.max_message_bytes,
        .max_metadata_bytes = 16 * 1024,
        .max_concurrent_streams = (uint32_t)all->limits.max_concurrent_streams,
        .max_calls = (uint32_t)all->limits.max_calls,
        .memory_bytes = all->limits.memory_bytes,
        .handshake_timeout_ms = 10000,
        .stream_window = (uint32_t)all->limits.stream_window,
        .log = rpc_log,
    };
    health_set(it->health, "", true);
    health_set(it->health, INGEST_SERVICE, true);
    health_set(it->health, PUBLISHER_HEALTH, false);
    const outcome result = rpc_server_start(&options, it->methods, it->method_count, &it->rpc, why);
    if (result != ST_OK) return result;
    atomic_store(&it->accepting, true);
    log_line(LOG_INFO, "listening", "address=%s port=%d threads=%u", all->listen.address,
             rpc_server_port(it->rpc), options.threads);
    return ST_OK;
}

static outcome start_http(ingestd *it, failure *why) {
    if (!it->config.http.address[0]) return ST_OK;
    const outcome result = exposition_start(it, &it->http, why);
    if (result == ST_OK)
        log_line(LOG_INFO, "serving metrics", "address=%s port=%d", it->config.http.address,
                 http_server_port(it->http));
    return result;
}

outcome ingestd_start(ingestd *it, failure *why) {
    static outcome (*const STEPS[])(ingestd *, failure *) = {
        load_catalogue,   start_trial, open_store, make_services,
        start_publishers, start_rpc,   start_http,
    };
    it->started_ms = clock_wall_ms();
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS; i++) {
        const outcome result = STEPS[i](it, why);
        if (result == ST_OK) continue;
        ingestd_stop(it);
        return result;
    }
    return ST_OK;
}

/* ---- running --------------------------------------------------------------------------- */

void ingestd_tick(ingestd *it) {
    bool all_running = true;
    for (size_t i = 0; i < it->config.route_count; i++) {
        publisher_status status;
        publisher_status_get(it->publishers[i], &status);
        all_running = all_running && status.state == PUBLISHER_RUNNING;
    }
    health_set(it->health, PUBLISHER_HEALTH, all_running);
}

/* ---- stop ------------------------------------------------------------------------------ */

static int64_t left_ms(int64_t deadline_ms) {
    const int64_t left = deadline_ms - clock_monotonic_ms();
    return left > 0 ? left : 0;
}

static void stop_rpc(ingestd *it, int64_t deadline_ms) {
    atomic_store(&it->accepting, false);
    if (!it->rpc) return;
    health_shutdown(it->health);
    ack_waiters_stop(
        it->waiters); /* they are stored; Kafka may be away for longer than our grace */
    rpc_server_drain(it->rpc, left_ms(deadline_ms) / 2);
}

static void stop_publishers(ingestd *it, int64_t deadline_ms) {
    for (size_t i = 0; i < it->config.route_count; i++)
        if (it->publishers[i]) publisher_stop(it->publishers[i]);
    for (size_t i = 0; i < it->config.route_count; i++)
        if (it->publishers[i]) publisher_join(it->publishers[i], left_ms(deadline_ms));
}

void ingestd_stop(ingestd *it) {
    const int64_t deadline_ms = clock_monotonic_ms() + (int64_t)it->config.shutdown_grace_ms;
    stop_rpc(it, deadline_ms);
    if (it->http) http_server_stop(it->http);
    stop_publishers(it, deadline_ms);
    if (it->rpc) rpc_server_free(it->rpc);
    if (it->store) store_close(it->store);
    if (it->trial) trial_kafka_stop(it->trial);
    if (it->health) health_free(it->health);
    if (it->reflection) reflection_free(it->reflection);
    ack_waiters_free(it->waiters);
    catalogue_free(it->catalogue);
}
