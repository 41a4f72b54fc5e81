/*
 * Opening: what the folder has, whether that is all it should have, and where each route goes on.
 * Runs in store_open, before the committer. Order: WAL check, RocksDB, meta, routes, evidence, and
 * only then the first write. Before all of it the ballast, when there is no room to write. Fails
 * with ST_CORRUPT rather than open with anything missing.
 *
 *   DIRECTORY/LOCK  db/ (RocksDB)  evidence  torn-tail, torn-manifest (what was cut off last)
 */
#include "storage/clock.h"
#include "storage/database_check.h"
#include "storage/encoding.h"
#include "storage/folder.h"
#include "storage/idempotency.h"
#include "storage/manifest.h"
#include "storage/store_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bytes iterator_key(const rocksdb_iterator_t *all) {
    bytes key;
    key.data = (const uint8_t *)rocksdb_iter_key(all, &key.len);
    return key;
}

static outcome check_files(event_store *store, const char *database, const evidence_state *seen,
                           failure *why) {
    database_cuts cuts;
    outcome result = database_check(store->directory, database, seen, &cuts, why);
    if (cuts.log.repaired)
        store_log(store, STORE_LOG_INFO,
                  "%s ended in the middle of a batch that was never acknowledged: cut to %llu "
                  "bytes, %llu kept in torn-tail",
                  cuts.log.file, (unsigned long long)cuts.log.kept,
                  (unsigned long long)cuts.log.cut_bytes);
    if (cuts.manifest[0])
        store_log(store, STORE_LOG_INFO,
                  "%s ended in edits that had no effect yet: cut to %llu bytes, the rest kept in "
                  "torn-manifest",
                  cuts.manifest, (unsigned long long)cuts.manifest_kept);
    return result;
}

/* The last record above the hint, if there is any, says where the route stands. */
static outcome recover_last(event_store *store, uint32_t number, failure *why) {
    route_durable *at = &store->routes[number].synced;
    uint8_t low[EVENT_KEY_SIZE];
    uint8_t high[EVENT_KEY_SIZE];
    bytes lower = event_key(low, number, at->anchor.sequence + 1);
    bytes upper = event_key(high, number, UINT64_MAX);
    at->last = at->anchor.sequence;
    at->last_cumulative = at->anchor_cumulative;

    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_iterate_lower_bound(read, (const char *)lower.data, lower.len);
    rocksdb_readoptions_set_iterate_upper_bound(read, (const char *)upper.data, upper.len);
    rocksdb_iterator_t *all =
        rocksdb_create_iterator_cf(store->db.handle, read, store->db.families[FAMILY_OUTBOX]);
    rocksdb_iter_seek_to_last(all);
    char *error = NULL;
    rocksdb_iter_get_error(all, &error);
    outcome result = store_db_outcome(error, "read the outbox", why);
    if (result == ST_OK && rocksdb_iter_valid(all)) {
        bytes value;
        event_record record;
        value.data = (const uint8_t *)rocksdb_iter_value(all, &value.len);
        result = record_decode(get_be64(iterator_key(all).data + 1), value, &record, why);
        if (result == ST_OK) {
            at->last = record.sequence;
            at->last_cumulative = record.cumulative_bytes;
        }
    }
    rocksdb_iter_destroy(all);
    rocksdb_readoptions_destroy(read);
    return result;
}

static int by_sequence(const void *a, const void *b) {
    uint64_t first = *(const uint64_t *)a;
    uint64_t second = *(const uint64_t *)b;
    return (first > second) - (first < second);
}

/*
 * Dead letters above the hint are exactly the RECORD_MOVED above it: whoever takes a letter out of
 * `dead` (stage_letter) must first move the hint past its sequence, in the same batch at latest.
 *
 * All are counted. A log may be needed for the sake of letters alone, when all else in it has been
 * flushed; nothing but their number tells that such a log is gone.
 */
static outcome recover_letters(event_store *store, uint32_t number, failure *why) {
    route_state *route = &store->routes[number];
    const uint64_t hint = route->synced.anchor.sequence, expected = route->synced.ledger.dead;
    uint64_t found = 0;
    uint8_t low[EVENT_KEY_SIZE];
    uint8_t high[EVENT_KEY_SIZE];
    bytes lower = event_key(low, number, 0);
    bytes upper = event_key(high, number, UINT64_MAX);
    outcome result = ST_OK;
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_iterate_upper_bound(read, (const char *)upper.data, upper.len);
    rocksdb_iterator_t *all =
        rocksdb_create_iterator_cf(store->db.handle, read, store->db.families[FAMILY_DEAD]);
    rocksdb_iter_seek(all, (const char *)lower.data, lower.len);
    for (; result == ST_OK && rocksdb_iter_valid(all); rocksdb_iter_next(all), found++) {
        const uint64_t sequence = get_be64(iterator_key(all).data + 1);
        if (sequence > hint && !meta_add_moved(route, sequence))
            result = fail(why, ST_NO_MEMORY, "", "no memory for the dead letters");
    }
    char *error = NULL;
    rocksdb_iter_get_error(all, &error);
    if (result == ST_OK)
        result = store_db_outcome(error, "read the dead letters", why);
    else
        rocksdb_free(error);
    rocksdb_iter_destroy(all);
    rocksdb_readoptions_destroy(read);
    if (route->moved_count) /* those that are lost came first */
        qsort(route->moved, route->moved_count, sizeof *route->moved, by_sequence);
    if (result == ST_OK && found != expected)
        result = fail(
            why, ST_CORRUPT, "dead", "%s: route %s has %llu dead letters, and there had been %llu",
            store->directory, route->name, (unsigned long long)found, (unsigned long long)expected);
    return result;
}

static outcome recover_route(event_store *store, uint32_t number, failure *why) {
    route_state *route = &store->routes[number];
    outcome result = recover_last(store, number, why);
    if (result == ST_OK) result = recover_letters(store, number, why);
    if (result != ST_OK) return result;
    route->position = route->hint = route->synced.anchor.sequence;
    route->position_cumulative = route->synced.anchor_cumulative;
    route->visible = route->synced.last;
    route->deleted_cumulative = route->synced.anchor_cumulative;
    route->staged = route->synced;
    return ST_OK;
}

static outcome check_witness(const event_store *store, const evidence_state *seen, failure *why) {
    for (uint32_t i = 0; i < STORE_ROUTES_MAX; i++) {
        const route_state *route = &store->routes[i];
        const uint32_t buried_lost = seen->buried[i] - (uint32_t)route->synced.ledger.buried;
        if (buried_lost > 0 && buried_lost <= UINT32_MAX / 2) /* the counter wraps */
            return fail(why, ST_CORRUPT, "evidence",
                        "%s: %u dead letters of route %s are missing, as is their count",
                        store->directory, buried_lost, route->name[0] ? route->name : "(unknown)");
        if (route->synced.last >= seen->last[i]) continue;
        return fail(why, ST_CORRUPT, "evidence",
                    "%s: acknowledged events are missing: route %s ends at %llu, but had been "
                    "synced up to %llu (missing: %llu to %llu)",
                    store->directory, route->name[0] ? route->name : "(unknown)",
                    (unsigned long long)route->synced.last, (unsigned long long)seen->last[i],
                    (unsigned long long)route->synced.last + 1, (unsigned long long)seen->last[i]);
    }
    uint64_t writes = rocksdb_get_latest_sequence_number(store->db.handle);
    if (writes < seen->writes)
        return fail(why, ST_CORRUPT, "evidence",
                    "%s: synced writes are missing: %llu of %llu are here (no event is missing; "
                    "dead letters or positions are)",
                    store->directory, (unsigned long long)writes, (unsigned long long)seen->writes);
    return ST_OK;
}

/*
 * Incarnations that no position in Kafka can still name: those before the oldest that an anchor of
 * a route that has published names. An anchor without one keeps all. Some more are kept, so that a
 * Kafka that went back in time is recognised as that, and not taken for a clone of this volume.
 */
#define INCARNATIONS_KEPT 32

static size_t first_needed_incarnation(const event_store *store) {
    size_t needed = store->incarnation_count;
    for (uint32_t i = 0; i < store->route_count; i++) {
        const route_anchor *anchor = &store->routes[i].synced.anchor;
        if (!anchor->has_published) continue;
        size_t named = 0;
        while (named < store->incarnation_count &&
               !uuid_equal(&store->incarnations[named].id, &anchor->incarnation))
            named++;
        if (named == store->incarnation_count) return 0;
        if (named < needed) needed = named;
    }
    size_t older = store->incarnation_count > INCARNATIONS_KEPT
                       ? store->incarnation_count - INCARNATIONS_KEPT
                       : 0;
    return needed < older ? needed : older;
}

/* All of it, though it is there: it is little, and so no single bad block takes it away. */
static void put_meta_again(event_store *store, size_t first_incarnation,
                           rocksdb_writebatch_t *batch) {
    meta_put_identity(&store->db, batch, &store->id);
    for (uint32_t i = 0; i < store->route_count; i++) {
        const route_durable *at = &store->routes[i].synced;
        meta_put_route(&store->db, batch, i, store->routes[i].name);
        meta_put_ledger(&store->db, batch, i, &at->ledger);
        meta_put_anchor(&store->db, batch, i, &at->anchor, at->anchor_cumulative);
    }
    for (size_t i = first_incarnation; i < store->incarnation_count; i++)
        meta_put_incarnation(&store->db, batch, &store->incarnations[i], store->route_count);
}

static outcome mint_incarnation(event_store *store, bool fresh, failure *why) {
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    size_t count = store->incarnation_count;
    size_t drop = first_needed_incarnation(store);
    for (size_t i = 0; i < drop; i++)
        meta_delete_incarnation(&store->db, batch, store->incarnations[i].number);
    incarnation_entry entry = {.number = count ? store->incarnations[count - 1].number + 1 : 1,
                               .id = uuid_random()};
    for (uint32_t i = 0; i < store->route_count; i++)
        entry.last_at_open[i] = store->routes[i].synced.last;
    if (fresh) store->id = uuid_random();
    put_meta_again(store, drop, batch);
    meta_put_incarnation(&store->db, batch, &entry, store->route_count);
    outcome result = store_db_write(&store->db, batch, why);
    rocksdb_writebatch_destroy(batch);
    if (result != ST_OK) return result;

    size_t kept = count - drop;
    incarnation_entry *list = malloc((kept + 1) * sizeof *list);
    if (!list) return fail(why, ST_NO_MEMORY, "", "no memory for %zu incarnations", kept + 1);
    if (kept) memcpy(list, store->incarnations + drop, kept * sizeof *list);
    list[kept] = entry;
    free(store->incarnations);
    store->incarnations = list;
    store->incarnation_count = kept + 1;
    return ST_OK;
}

static outcome note_opening(event_store *store, failure *why) {
    for (uint32_t i = 0; i < store->route_count; i++)
        store->routes[i].staged = store->routes[i].synced;
    outcome result = store_note_evidence(store, why);
    return result == ST_OK ? evidence_sync(&store->witness, why) : result;
}

static outcome open_witness(event_store *store, bool *found, evidence_state *seen, failure *why) {
    char path[PATH_SIZE];
    path_join(path, store->directory, "evidence");
    return evidence_open(&store->witness, path, found, seen, why);
}

/* A repair was cut short when its result was complete: neither database may be used before. */
static outcome check_repair(const event_store *store, failure *why) {
    char path[PATH_SIZE];
    path_join(path, store->directory, SALVAGE_READY);
    if (access(path, F_OK) != 0) return ST_OK;
    return fail(why, ST_CORRUPT, "repair", "%s: a repair was interrupted; run it again",
                store->directory);
}

enum {
    OPENING_BYTES = 16 << 20, /* manifest, options, a first log; besides what the logs hold */
    OPENING_BYTES_MIN = 1 << 20,
};

/* A RocksDB built with its assertions may abort, rather than fail, where it finds no room. */
static outcome make_room(event_store *store, const char *database, failure *why) {
    char path[PATH_SIZE];
    path_join(path, store->directory, "ballast");
    outcome result = ballast_open(&store->ballast, path, store->options.ballast_bytes, why);
    if (result != ST_OK) return result;
    uint64_t needed = wal_bytes(database) + OPENING_BYTES;
    store_measure_disk(store);
    if (store->disk_free_bytes >= needed) return ST_OK;
    store->compaction_held = true;
    if (store->ballast.size > 0) {
        store_log(store, STORE_LOG_WARNING,
                  "the volume has %llu bytes left and opening may need %llu: the ballast of %llu "
                  "is released",
                  (unsigned long long)store->disk_free_bytes, (unsigned long long)needed,
                  (unsigned long long)store->ballast.size);
        result = ballast_release(&store->ballast, why);
        store_measure_disk(store);
    }
    if (result == ST_OK && store->disk_free_bytes < OPENING_BYTES_MIN)
        return fail(why, ST_IO, "data_dir", "the volume of %s is full: %llu bytes are left",
                    store->directory, (unsigned long long)store->disk_free_bytes);
    return result;
}

outcome store_recover(event_store *store, failure *why) {
    char database[PATH_SIZE];
    path_join(database, store->directory, "db");
    bool witnessed;
    bool exists;
    bool fresh;
    evidence_state seen = {0};
    outcome result = check_repair(store, why);
    if (result == ST_OK) result = make_room(store, database, why);
    if (result == ST_OK) result = open_witness(store, &witnessed, &seen, why);
    if (result == ST_OK)
        result = database_exists(store->directory, database, witnessed, &exists, why);
    if (result == ST_OK && exists) result = check_files(store, database, &seen, why);
    if (result != ST_OK) return result;
    if (exists && !witnessed)
        store_log(store, STORE_LOG_WARNING,
                  "%s: the evidence file is missing or unreadable: a cut end of the log would "
                  "not be noticed at this opening",
                  store->directory);
    result = store_db_open(&store->db, database, &store->options, ids_filter_create(store),
                           store->compaction_held, why);
    if (result != ST_OK) return result;
    store->manifest.noted = manifest_now(database); /* at once: so far the opening has synced it */
    store->working_bytes = store_db_working_bytes(&store->db);
    result = meta_load(store, &fresh, why);
    if (result == ST_OK) ids_window_update(&store->ids, clock_wall_ms());
    for (uint32_t i = 0; result == ST_OK && i < store->route_count; i++)
        result = recover_route(store, i, why);
    if (result == ST_OK && witnessed) result = check_witness(store, &seen, why);
    if (result == ST_OK) result = mint_incarnation(store, fresh, why);
    /* The names first: evidence without a database looks like a database that was lost. */
    if (result == ST_OK) result = folder_sync(store->directory, why);
    if (result == ST_OK) result = note_opening(store, why);
    return result;
}
