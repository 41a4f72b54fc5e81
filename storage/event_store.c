/*
 * The store as its users see it: opening and closing, routes, how they stand, ids, anchors. Runs
 * on its callers' threads; whatever must be written goes to the committer. After a failed write
 * (store_options.fatal) reading still works and every write is ST_UNAVAILABLE.
 */
#include "storage/event_store.h"

#include "storage/cleaner.h"
#include "storage/clock.h"
#include "storage/folder.h"
#include "storage/idempotency.h"
#include "storage/store_meta.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

void store_options_init(store_options *options) {
    *options = (store_options){
        .ids_window_ms = 24u * 3600 * 1000,
        .ids_budget_bytes = 1024 * MIB,
        .backlog_budget_bytes = 8192 * MIB,
        .dead_budget_bytes = 1024 * MIB,
        .reserve_free_bytes = 512 * MIB,
        .ballast_bytes = 256 * MIB,
        .queue_max_requests = 65536,
        .queue_max_bytes = 64 * MIB,
        .memtable_bytes = 32 * MIB,
    };
}

void store_log(const event_store *store, store_log_level level, const char *format, ...) {
    if (!store->options.log) return;
    char line[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    store->options.log(store->options.arg, level, line);
}

/* ---- open and close -------------------------------------------------------------------- */

static outcome make_folder(const event_store *store, failure *why) {
    char path[PATH_SIZE];
    if (mkdir(store->directory, 0700) == 0) {
        path_join(path, store->directory, "..");
        return folder_sync(path, why);
    }
    if (errno == EEXIST) return ST_OK;
    return fail(why, ST_IO, "", "cannot create %s: %s", store->directory, strerror(errno));
}

static void init_routes(event_store *store) {
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    for (int i = 0; i < STORE_ROUTES_MAX; i++) {
        route_state *route = &store->routes[i];
        (void)pthread_mutex_init(&route->lock, NULL);
        (void)pthread_mutex_init(&route->bury_lock, NULL);
        (void)pthread_cond_init(&route->changed, &monotonic);
        route->synced.anchor.positions_partition = -1;
        route->synced.anchor.kafka_offset = -1;
        route->staged = route->synced;
    }
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&store->routes_lock, NULL);
}

void store_free(event_store *store) {
    if (store->failed) store_db_abandon(&store->db);
    if (store->db.handle) store_db_close(&store->db);
    evidence_close(&store->witness);
    ballast_close(&store->ballast);
    for (int i = 0; i < STORE_ROUTES_MAX; i++) {
        route_state *route = &store->routes[i];
        (void)pthread_mutex_destroy(&route->lock);
        (void)pthread_mutex_destroy(&route->bury_lock);
        (void)pthread_cond_destroy(&route->changed);
        free(route->moved);
    }
    (void)pthread_mutex_destroy(&store->routes_lock);
    free(store->incarnations);
    free(store->directory);
    /* Last: from here on another process may have the folder. */
    if (store->lock_file >= 0) (void)close(store->lock_file);
    free(store);
}

event_store *store_new(const store_options *options) {
    event_store *store = calloc(1, sizeof *store);
    if (!store) return NULL;
    store->options = *options;
    store->directory = strdup(options->directory);
    store->options.directory = store->directory;
    store->lock_file = -1;
    store->witness.file = -1;
    store->ballast.file = -1;
    ids_window_init(&store->ids, options->ids_window_ms, options->ids_budget_bytes);
    init_routes(store);
    if (store->directory) return store;
    store_free(store);
    return NULL;
}

static outcome open_once(const store_options *options, event_store **out, failure *why) {
    event_store *store = store_new(options);
    if (!store) return fail(why, ST_NO_MEMORY, "", "no memory for the store");
    outcome result = make_folder(store, why);
    if (result == ST_OK) result = folder_lock(store->directory, &store->lock_file, why);
    if (result == ST_OK) result = store_recover(store, why);
    if (result == ST_OK) result = committer_start(store, why);
    if (result == ST_OK) {
        result = cleaner_start(store, why);
        if (result != ST_OK) committer_stop(store);
    }
    if (result != ST_OK) {
        store_free(store);
        return result;
    }
    *out = store;
    return ST_OK;
}

/*
 * Damage is looked at twice: up to version 8.5.1 an iterator of RocksDB may pass over a table that
 * it cannot open (no descriptor or memory left) and not say so
 * (https://github.com/facebook/rocksdb/pull/11782), which looks as if records were missing.
 */
outcome store_open(const store_options *options, event_store **out, failure *why) {
    outcome result = open_once(options, out, why);
    return result == ST_CORRUPT ? open_once(options, out, why) : result;
}

void store_close(event_store *store) {
    if (!store) return;
    committer_stop(store);
    cleaner_stop(store);
    store_free(store);
}

uuid store_id(const event_store *store) { return store->id; }

uuid store_incarnation(const event_store *store) {
    return store->incarnations[store->incarnation_count - 1].id;
}

/* ---- routes ------------------------------------------------------------------------------ */

uint32_t store_route_count(const event_store *store) {
    return atomic_load_explicit(&store->route_count, memory_order_acquire);
}

bool store_has_route(const event_store *store, uint32_t route) {
    return route < store_route_count(store);
}

const char *store_route_name(const event_store *store, uint32_t route) {
    return store_has_route(store, route) ? store->routes[route].name : NULL;
}

static outcome add_route(event_store *store, const char *name, uint32_t number, failure *why) {
    if (number == STORE_ROUTES_MAX)
        return fail(why, ST_INVALID, "routes",
                    "%s would be one more than the %d routes that a "
                    "store can have, ever",
                    name, STORE_ROUTES_MAX);
    command request = {.kind = COMMAND_ROUTE, .route = number, .name = name};
    outcome result = committer_execute(store, &request);
    if (result != ST_OK) return fail(why, result, "", "route %s: %s", name, outcome_text(result));
    (void)snprintf(store->routes[number].name, ROUTE_NAME_SIZE, "%s", name);
    atomic_store_explicit(&store->route_count, number + 1, memory_order_release);
    return ST_OK;
}

outcome store_route(event_store *store, const char *name, uint32_t *route, failure *why) {
    size_t len = strlen(name);
    if (len == 0 || len >= ROUTE_NAME_SIZE)
        return fail(why, ST_INVALID, "routes", "a route's name has 1 to %d bytes, not %zu",
                    ROUTE_NAME_SIZE - 1, len);
    outcome result = ST_OK;
    (void)pthread_mutex_lock(&store->routes_lock);
    uint32_t count = store_route_count(store);
    uint32_t found = 0;
    while (found < count && strcmp(store->routes[found].name, name) != 0)
        found++;
    if (found == count) result = add_route(store, name, found, why);
    (void)pthread_mutex_unlock(&store->routes_lock);
    *route = found;
    return result;
}

/* ---- how a route stands ------------------------------------------------------------------ */

static outcome get_record(event_store *store, uint32_t route, uint64_t sequence, char **value,
                          event_record *record, failure *why) {
    uint8_t key[EVENT_KEY_SIZE];
    size_t len;
    outcome result =
        store_db_get(&store->db, FAMILY_OUTBOX, event_key(key, route, sequence), value, &len, why);
    if (result == ST_NOT_FOUND)
        return fail(why, ST_NOT_FOUND, "", "route %s: no record %llu", store->routes[route].name,
                    (unsigned long long)sequence);
    if (result != ST_OK) return result;
    result = record_decode(sequence, bytes_of(*value, len), record, why);
    if (result != ST_OK) rocksdb_free(*value);
    return result;
}

outcome store_cumulative(event_store *store, uint32_t number, uint64_t sequence,
                         uint64_t *cumulative, failure *why) {
    route_state *route = &store->routes[number];
    bool known = true;
    (void)pthread_mutex_lock(&route->lock);
    if (sequence == route->synced.last)
        *cumulative = route->synced.last_cumulative;
    else if (sequence == route->position)
        *cumulative = route->position_cumulative;
    else if (sequence == route->synced.anchor.sequence)
        *cumulative = route->synced.anchor_cumulative;
    else
        known = false;
    (void)pthread_mutex_unlock(&route->lock);
    if (known) return ST_OK;
    char *value;
    event_record record;
    outcome result = get_record(store, number, sequence, &value, &record, why);
    if (result != ST_OK) return result;
    *cumulative = record.cumulative_bytes;
    rocksdb_free(value);
    return ST_OK;
}

void store_set_position(event_store *store, uint32_t number, uint64_t sequence) {
    route_state *route = &store->routes[number];
    if (sequence <= atomic_load(&route->position)) return;
    uint64_t cumulative = 0;
    failure why;
    /* Read before the lock is taken. Cannot fail but for damage, which the next reader reports:
     * then the backlog in bytes is too large for a while, its other figures are right. */
    outcome result = store_cumulative(store, number, sequence, &cumulative, &why);
    if (result != ST_OK)
        store_log(store, STORE_LOG_ERROR, "position %llu: %s", (unsigned long long)sequence,
                  why.reason);
    (void)pthread_mutex_lock(&route->lock);
    if (sequence > route->position && sequence <= route->synced.last) {
        size_t passed = 0;
        while (passed < route->moved_count && route->moved[passed] <= sequence)
            passed++;
        route->moved_count -= passed;
        if (passed && route->moved_count)
            memmove(route->moved, route->moved + passed, route->moved_count * sizeof *route->moved);
        if (result == ST_OK) route->position_cumulative = cumulative;
        atomic_store_explicit(&route->position, sequence, memory_order_release);
    }
    (void)pthread_mutex_unlock(&route->lock);
}

/* Under the route's lock: the first pending sequence, 0 when there is none. */
static uint64_t first_pending(const route_state *route) {
    uint64_t first = route->position + 1;
    for (size_t i = 0; i < route->moved_count && route->moved[i] == first; i++)
        first++;
    return first <= route->synced.last ? first : 0;
}

void store_stats(event_store *store, uint32_t number, route_stats *stats) {
    route_state *route = &store->routes[number];
    (void)pthread_mutex_lock(&route->lock);
    const route_durable *at = &route->synced;
    *stats = (route_stats){
        .last_sequence = at->last,
        .position = route->position,
        .accepted = at->last - at->ledger.replayed,
        .pending = at->last - route->position - route->moved_count,
        .dead = at->ledger.dead,
        .purged = at->ledger.purged,
        .lost = at->ledger.lost,
        .backlog_bytes = at->last_cumulative - route->position_cumulative,
        .dead_bytes = at->ledger.dead_bytes,
    };
    stats->published = stats->accepted - stats->pending - stats->dead - stats->purged - stats->lost;
    uint64_t first = first_pending(route);
    (void)pthread_mutex_unlock(&route->lock);

    char *value;
    event_record record;
    /* Not found: settled and cleaned up since. */
    if (!first || get_record(store, number, first, &value, &record, NULL) != ST_OK) return;
    stats->oldest_accepted_ms = record.accepted_ms;
    rocksdb_free(value);
}

uint64_t store_wait(event_store *store, uint32_t number, uint64_t after, int64_t timeout_ms) {
    route_state *route = &store->routes[number];
    int64_t until_us = clock_monotonic_us() + timeout_ms * 1000;
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    (void)pthread_mutex_lock(&route->lock);
    route->waiters++;
    while (route->synced.last <= after && !route->woken)
        if (pthread_cond_timedwait(&route->changed, &route->lock, &until) == ETIMEDOUT) break;
    route->waiters--;
    route->woken = false;
    uint64_t last = route->synced.last;
    (void)pthread_mutex_unlock(&route->lock);
    return last;
}

void store_wake(event_store *store, uint32_t number) {
    route_state *route = &store->routes[number];
    (void)pthread_mutex_lock(&route->lock);
    route->woken = true;
    (void)pthread_cond_broadcast(&route->changed);
    (void)pthread_mutex_unlock(&route->lock);
}

/* ---- ids and anchors ------------------------------------------------------------------------ */

outcome store_lookup(event_store *store, bytes source, bytes id, id_entry *entry, failure *why) {
    uint8_t small[512];
    size_t size = id_key_size(source, id);
    uint8_t *buffer = size <= sizeof small ? small : malloc(size);
    if (!buffer) return fail(why, ST_NO_MEMORY, "", "no memory for an id");
    outcome result = ids_get(store, id_key_put(buffer, source, id), clock_wall_ms(), entry, why);
    if (buffer != small) free(buffer);
    return result == ST_NOT_FOUND ? fail(why, result, "id", "unknown, or no longer remembered")
                                  : result;
}

void store_anchor(event_store *store, uint32_t number, route_anchor *anchor) {
    route_state *route = &store->routes[number];
    (void)pthread_mutex_lock(&route->lock);
    *anchor = route->synced.anchor;
    (void)pthread_mutex_unlock(&route->lock);
}

outcome store_check_position(event_store *store, uint32_t route, const uuid *who,
                             uint64_t sequence) {
    size_t count = store->incarnation_count;
    for (size_t i = 0; i < count; i++) {
        if (!uuid_equal(&store->incarnations[i].id, who)) continue;
        uint64_t given = i + 1 < count ? store->incarnations[i + 1].last_at_open[route]
                                       : atomic_load(&store->routes[route].visible);
        return sequence <= given ? ST_OK : ST_INVALID;
    }
    return ST_NOT_FOUND;
}

/* ---- figures ---------------------------------------------------------------------------- */

void store_measure_disk(event_store *store) {
    struct statvfs volume;
    if (statvfs(store->directory, &volume) == 0)
        store->disk_free_bytes = (uint64_t)volume.f_bavail * volume.f_frsize;
}

void store_figures_get(event_store *store, store_figures *figures) {
    *figures = (store_figures){
        .commits = store->commits,
        .committed_requests = store->committed_requests,
        .sync = {.count = store->sync_time.count, .sum_us = store->sync_time.sum_us},
        .duplicates = store->duplicates,
        .disk_free_bytes = store->disk_free_bytes,
        .ids_window_ms = (int64_t)ids_window_in_force_ms(&store->ids),
        .ids_bytes = store_db_table_bytes(&store->db, FAMILY_IDS),
    };
    for (size_t i = 0; i < sizeof figures->sync.buckets / sizeof *figures->sync.buckets; i++)
        figures->sync.buckets[i] = store->sync_time.buckets[i];
    committer_figures(store, &figures->queued_requests, &figures->queued_bytes);
}
