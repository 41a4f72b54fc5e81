/*
 * store_verify and store_repair. A repair writes a new database beside the damaged one and then
 * puts it in its place; nothing that was there is changed, only moved.
 *
 *   DIRECTORY/salvage/db, evidence   the new ones, complete and synced before
 *   DIRECTORY/salvage/ready          is written: the name of the folder for the damaged ones. From
 *                                    then on the exchange is all there is to do, from any point
 *   DIRECTORY/damaged-TIME/          db, evidence and torn-tail as they were
 *
 * Fails with nothing changed, or with `ready` there, and then it is run again.
 */
#include "storage/folder.h"
#include "storage/store_meta.h"
#include "storage/survey.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_BYTES = 4 << 20, KEPT_SIZE = 64 };

/* ---- the new database ------------------------------------------------------------------------ */

typedef struct builder {
    store_db db;
    rocksdb_writebatch_t *batch;
    size_t batch_bytes;
} builder;

static outcome write_out(builder *self, failure *why) {
    outcome result = store_db_write(&self->db, self->batch, why);
    rocksdb_writebatch_clear(self->batch);
    self->batch_bytes = 0;
    return result;
}

static outcome put_entry(void *arg, store_family family, bytes key, bytes value, failure *why) {
    builder *self = arg;
    batch_put(&self->db, self->batch, family, key, value);
    self->batch_bytes += key.len + value.len;
    return self->batch_bytes < BATCH_BYTES ? ST_OK : write_out(self, why);
}

/* The tombstones above the hint, as ranges. */
static outcome put_lost(builder *self, uint32_t number, const route_state *route, failure *why) {
    if (route->moved_count == 0) return ST_OK;
    lost_range *ranges = malloc(route->moved_count * sizeof *ranges);
    if (!ranges) return fail(why, ST_NO_MEMORY, "", "no memory for the losses");
    size_t count = 0;
    for (size_t i = 0; i < route->moved_count; i++) {
        if (count && ranges[count - 1].last + 1 == route->moved[i])
            ranges[count - 1].last++;
        else
            ranges[count++] = (lost_range){route->moved[i], route->moved[i]};
    }
    outcome result = meta_put_lost(&self->db, self->batch, number, ranges, count, why);
    free(ranges);
    return result;
}

/* With the identity gone nothing ties the store to what Kafka has of it. */
static outcome put_meta(builder *self, const event_store *meta, const store_survey *survey,
                        failure *why) {
    outcome result = ST_OK;
    uuid id = survey->identity_lost ? uuid_random() : meta->id;
    meta_put_identity(&self->db, self->batch, &id);
    for (uint32_t i = 0; result == ST_OK && i < survey->route_count; i++) {
        const route_durable *at = &meta->routes[i].synced;
        route_anchor anchor = at->anchor;
        if (survey->identity_lost)
            anchor = (route_anchor){
                .sequence = anchor.sequence, .positions_partition = -1, .kafka_offset = -1};
        meta_put_route(&self->db, self->batch, i, survey->routes[i].name);
        meta_put_ledger(&self->db, self->batch, i, &at->ledger);
        meta_put_anchor(&self->db, self->batch, i, &anchor, at->anchor_cumulative);
        result = put_lost(self, i, &meta->routes[i], why);
    }
    for (size_t i = 0; i < meta->incarnation_count && !survey->identity_lost; i++)
        meta_put_incarnation(&self->db, self->batch, &meta->incarnations[i], survey->route_count);
    return result == ST_OK ? write_out(self, why) : result;
}

/* Names from the operator for routes that have lost theirs. */
static void name_routes(event_store *meta, const repair_options *options) {
    for (uint32_t i = 0; options && i < STORE_ROUTES_MAX; i++) {
        char *name = meta->routes[i].name;
        if (name[0] || !options->names[i]) continue;
        (void)snprintf(name, ROUTE_NAME_SIZE, "%s", options->names[i]);
    }
}

static outcome write_evidence(const char *directory, const event_store *meta, const store_db *db,
                              failure *why) {
    char path[PATH_SIZE];
    bool found;
    evidence witness;
    evidence_state state;
    path_join(path, directory, SALVAGE_FOLDER "/evidence");
    outcome result = evidence_open(&witness, path, &found, &state, why);
    if (result != ST_OK) return result;
    state = (evidence_state){.writes = rocksdb_get_latest_sequence_number(db->handle)};
    path_join(path, directory, SALVAGE_FOLDER "/db");
    manifest_extent extent = manifest_now(path);
    state.manifest_number = extent.number;
    state.manifest_size = extent.size;
    for (int i = 0; i < STORE_ROUTES_MAX; i++) {
        state.last[i] = meta->routes[i].synced.last;
        state.buried[i] = (uint32_t)meta->routes[i].synced.ledger.buried;
    }
    result = evidence_write(&witness, &state, why);
    if (result == ST_OK) result = evidence_sync(&witness, why);
    evidence_close(&witness);
    return result;
}

/* Without a builder only looks. */
static outcome go_over(salvage *from, const repair_options *options, builder *into, failure *why) {
    event_store *meta;
    outcome result = survey_meta(from, &meta, why);
    if (result != ST_OK) return result;
    name_routes(meta, options);
    result = survey_walk(from, meta, into ? put_entry : NULL, into, why);
    if (result == ST_OK && into) result = put_meta(into, meta, from->survey, why);
    if (result == ST_OK && into) result = write_evidence(from->directory, meta, &into->db, why);
    store_free(meta);
    return result;
}

/* Writes the new database and evidence. A second walk finds what the first one found. */
static outcome build(salvage *from, const repair_options *options, failure *why) {
    char path[PATH_SIZE];
    builder made = {0};
    store_survey again = {0};
    store_options defaults;
    store_options_init(&defaults);
    path_join(path, from->directory, SALVAGE_FOLDER);
    outcome result = folder_make(path, why);
    path_join(path, from->directory, SALVAGE_FOLDER "/db");
    if (result == ST_OK) result = folder_remove(path, why);
    if (result == ST_OK) result = store_db_open(&made.db, path, &defaults, NULL, false, why);
    if (result != ST_OK) return result;
    made.batch = rocksdb_writebatch_create();
    store_survey *first = from->survey;
    from->survey = &again;
    result = go_over(from, options, &made, why);
    from->survey = first;
    store_survey_free(&again);
    rocksdb_writebatch_destroy(made.batch);
    store_db_close(&made.db);
    return result;
}

/* ---- the exchange ---------------------------------------------------------------------------- */

static outcome move(const char *from, const char *to, failure *why) {
    if (rename(from, to) == 0 || errno == ENOENT) return ST_OK;
    return fail(why, ST_IO, "", "cannot move %s to %s: %s", from, to, strerror(errno));
}

static outcome keep_aside(const char *directory, const char *kept, const char *name, failure *why) {
    char from[PATH_SIZE];
    char folder[PATH_SIZE];
    char to[PATH_SIZE];
    path_join(from, directory, name);
    path_join(folder, directory, kept);
    path_join(to, folder, name);
    return move(from, to, why);
}

/* Once the new one is in its place there is nothing to do any more. */
static outcome exchange(const char *directory, const char *kept, const char *name, failure *why) {
    char folder[PATH_SIZE];
    char new[PATH_SIZE];
    char place[PATH_SIZE];
    path_join(folder, directory, SALVAGE_FOLDER);
    path_join(new, folder, name);
    if (access(new, F_OK) != 0) return ST_OK;
    path_join(place, directory, name);
    outcome result = keep_aside(directory, kept, name, why);
    return result == ST_OK ? move(new, place, why) : result;
}

static outcome write_ready(const char *directory, const char *kept, failure *why) {
    char folder[PATH_SIZE];
    char path[PATH_SIZE];
    path_join(folder, directory, SALVAGE_FOLDER);
    path_join(path, folder, "ready.new");
    FILE *file = fopen(path, "we");
    bool done = file && fputs(kept, file) >= 0 && fflush(file) == 0 && fsync(fileno(file)) == 0;
    int error = errno;
    if (file) (void)fclose(file);
    if (!done) return fail(why, ST_IO, "", "cannot write %s: %s", path, strerror(error));
    char ready[PATH_SIZE];
    path_join(ready, folder, "ready");
    outcome result = move(path, ready, why);
    if (result == ST_OK) result = folder_sync(folder, why);
    return result == ST_OK ? folder_sync(directory, why) : result;
}

static bool read_ready(const char *directory, char kept[KEPT_SIZE]) {
    char path[PATH_SIZE];
    path_join(path, directory, SALVAGE_READY);
    FILE *file = fopen(path, "re");
    bool found = file && fgets(kept, KEPT_SIZE, file) != NULL;
    if (file) (void)fclose(file);
    return found;
}

static outcome put_in_place(const char *directory, const char *kept, failure *why) {
    char path[PATH_SIZE];
    path_join(path, directory, kept);
    outcome result = folder_make(path, why);
    if (result == ST_OK) result = exchange(directory, kept, "db", why);
    if (result == ST_OK) result = exchange(directory, kept, "evidence", why);
    if (result == ST_OK) result = keep_aside(directory, kept, "torn-tail", why);
    if (result == ST_OK) result = folder_sync(path, why);
    if (result == ST_OK) result = folder_sync(directory, why);
    path_join(path, directory, SALVAGE_FOLDER);
    if (result == ST_OK) result = folder_remove(path, why);
    return result == ST_OK ? folder_sync(directory, why) : result;
}

static void name_kept(char kept[KEPT_SIZE]) {
    time_t now = time(NULL);
    struct tm utc;
    (void)gmtime_r(&now, &utc);
    (void)strftime(kept, KEPT_SIZE, "damaged-%Y%m%dT%H%M%SZ", &utc);
}

/* ---- the calls ------------------------------------------------------------------------------- */

static outcome lock_store(const char *directory, int *lock, failure *why) {
    *lock = -1;
    if (salvage_is_store(directory)) return folder_lock(directory, lock, why);
    return fail(why, ST_NOT_FOUND, "", "%s is not the folder of a store", directory);
}

static outcome verify_locked(const char *directory, store_survey *survey, failure *why) {
    salvage from;
    char kept[KEPT_SIZE];
    if (read_ready(directory, kept))
        return fail(why, ST_CORRUPT, "repair", "%s: a repair was interrupted; run it again",
                    directory);
    outcome result = salvage_open(&from, directory, survey, why);
    if (result != ST_OK) return result;
    result = go_over(&from, NULL, NULL, why);
    salvage_close(&from);
    return result;
}

outcome store_verify(const char *directory, store_survey *survey, failure *why) {
    int lock;
    *survey = (store_survey){0};
    outcome result = lock_store(directory, &lock, why);
    if (result == ST_OK) result = verify_locked(directory, survey, why);
    if (lock >= 0) (void)close(lock);
    return result;
}

static outcome check_options(const store_survey *survey, const repair_options *options,
                             failure *why) {
    for (uint32_t i = 0; i < survey->route_count; i++)
        if (!survey->routes[i].name[0])
            return fail(why, ST_PRECONDITION, "route",
                        "the name of route %u is unreadable, and has to be given", i);
    if (options->accept &&
        (strcmp(options->accept, "any") == 0 || strcmp(options->accept, survey->damage_id) == 0))
        return ST_OK;
    return fail(why, ST_PRECONDITION, "accept",
                "nothing was changed: the loss of %llu events has to be accepted, by the name of "
                "this damage: %s",
                (unsigned long long)survey->events_lost, survey->damage_id);
}

static outcome build_ready(const char *directory, const repair_options *options,
                           store_survey *survey, char kept[KEPT_SIZE], failure *why) {
    salvage from;
    outcome result = salvage_open(&from, directory, survey, why);
    if (result != ST_OK) return result;
    result = go_over(&from, options, NULL, why);
    if (result == ST_OK && !survey->sound) {
        result = check_options(survey, options, why);
        name_kept(kept);
        if (result == ST_OK) result = build(&from, options, why);
        if (result == ST_OK) result = write_ready(directory, kept, why);
    }
    salvage_close(&from);
    return result;
}

outcome store_repair(const char *directory, const repair_options *options, store_survey *survey,
                     failure *why) {
    int lock;
    char kept[KEPT_SIZE] = "";
    *survey = (store_survey){0};
    outcome result = lock_store(directory, &lock, why);
    if (result == ST_OK && !read_ready(directory, kept))
        result = build_ready(directory, options, survey, kept, why);
    if (result == ST_OK && kept[0]) {
        (void)snprintf(survey->kept_in, sizeof survey->kept_in, "%s", kept);
        result = put_in_place(directory, kept, why);
    }
    if (lock >= 0) (void)close(lock);
    return result;
}
