/*
 * Order: evidence, MANIFEST, logs, then the first view; each flaw is noted as damage and reading
 * goes on. Fails only where nothing can be read at all for another reason than damage.
 *
 *   DIRECTORY/salvage/copy/     tables linked, logs rewritten with the whole batches they have
 *   DIRECTORY/salvage/rebuilt/  the same without a MANIFEST, given to RocksDB's repair
 *   DIRECTORY/salvage/empty/    a database with our families, to tell that repair of them
 */
#include "storage/salvage.h"

#include "storage/encoding.h"
#include "storage/wal_check.h"
#include "storage/wal_log.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char DATABASE[] = "db";

outcome salvage_note(store_survey *survey, failure *why, const char *format, ...) {
    size_t size = (survey->damage_count + 1) * sizeof *survey->damages;
    store_damage *grown = realloc(survey->damages, size);
    if (!grown) return fail(why, ST_NO_MEMORY, "", "no memory for the damages");
    survey->damages = grown;
    store_damage *damage = &grown[survey->damage_count];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(damage->text, sizeof damage->text, format, args);
    va_end(args);
    for (size_t i = 0; i < survey->damage_count; i++) /* said once is enough */
        if (strcmp(survey->damages[i].text, damage->text) == 0) return ST_OK;
    survey->damage_count++;
    return ST_OK;
}

/* Damage is noted, and the work goes on; anything else is passed on. */
static outcome note_if_corrupt(salvage *self, outcome result, failure *why) {
    if (result != ST_CORRUPT) return result;
    failure found = *why;
    return salvage_note(self->survey, why, "%s", found.reason);
}

/* ---- copies -------------------------------------------------------------------------------- */

typedef struct copying {
    const salvage *from;
    const char *to;
    bool manifest; /* copy it too */
} copying;

static bool has_suffix(const char *name, const char *suffix) {
    size_t len = strlen(name);
    size_t end = strlen(suffix);
    return len > end && strcmp(name + len - end, suffix) == 0;
}

static outcome write_batch(void *arg, bytes record, failure *why) {
    return wal_writer_add(arg, record, why);
}

/* The log with the whole batches it has, and nothing else. */
static outcome rewrite_log(const char *from, const char *to, failure *why) {
    wal_writer writer;
    wal_log_scan scan;
    outcome result = wal_writer_open(&writer, to, why);
    if (result != ST_OK) return result;
    result = wal_log_read(from, write_batch, &writer, &scan, why);
    outcome closed = wal_writer_close(&writer, result == ST_OK ? why : NULL);
    return result == ST_OK ? closed : result;
}

static outcome copy_file(const copying *self, const char *name, failure *why) {
    char database[PATH_SIZE];
    char from[PATH_SIZE];
    char to[PATH_SIZE];
    path_join(database, self->from->directory, DATABASE);
    path_join(from, database, name);
    path_join(to, self->to, name);
    if (has_suffix(name, ".sst")) return file_link(from, to, why);
    if (has_suffix(name, ".log")) return rewrite_log(from, to, why);
    bool wanted = strcmp(name, "CURRENT") == 0 || strcmp(name, self->from->manifest.file) == 0;
    return wanted && self->manifest ? file_copy(from, to, why) : ST_OK;
}

static outcome copy_database(const copying *self, failure *why) {
    char path[PATH_SIZE];
    struct dirent **files = NULL;
    path_join(path, self->from->directory, DATABASE);
    outcome result = folder_make(self->to, why);
    int count = scandir(path, &files, NULL, NULL);
    for (int i = 0; i < count; i++) {
        if (result == ST_OK) result = copy_file(self, files[i]->d_name, why);
        free(files[i]);
    }
    free(files);
    return result;
}

static outcome make_scratch(const salvage *self, const char *name, char path[PATH_SIZE],
                            failure *why) {
    path_join(path, self->directory, SALVAGE_FOLDER);
    outcome result = folder_make(path, why);
    path_join(path, self->directory, name);
    return result == ST_OK ? folder_remove(path, why) : result;
}

/* ---- the first view ------------------------------------------------------------------------- */

static outcome open_first(salvage *self, bool sound, failure *why) {
    char path[PATH_SIZE];
    path_join(path, self->directory, DATABASE);
    if (sound) return note_if_corrupt(self, store_db_open_reading(&self->views[0], path, why), why);
    outcome result = make_scratch(self, SALVAGE_FOLDER "/copy", path, why);
    if (result != ST_OK) return result;
    result = copy_database(&(copying){.from = self, .to = path, .manifest = true}, why);
    if (result != ST_OK) return result;
    result = store_db_open_copy(&self->views[0], path, why);
    return result == ST_IO ? result : note_if_corrupt(self, result, why);
}

/* ---- the second view ------------------------------------------------------------------------- */

/*
 * RocksDB's repair learns of a family from a table that belongs to it, and drops what logs have of
 * families that have none. So each family gets a table: with the deletion of a key that none has.
 */
static outcome fill_empty(const store_db *empty, failure *why) {
    char *error = NULL;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (int i = 0; i < FAMILY_COUNT; i++)
        rocksdb_writebatch_delete_cf(batch, empty->families[i], "", 0);
    outcome result = store_db_write(empty, batch, why);
    rocksdb_writebatch_destroy(batch);
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    for (int i = 0; result == ST_OK && i < FAMILY_COUNT; i++) {
        rocksdb_flush_cf(empty->handle, options, empty->families[i], &error);
        result = store_db_outcome(error, "flush", why);
    }
    rocksdb_flushoptions_destroy(options);
    return result;
}

static outcome make_empty(const char *path, failure *why) {
    store_options defaults;
    store_db empty;
    store_options_init(&defaults);
    outcome result = store_db_open(&empty, path, &defaults, NULL, false, why);
    if (result != ST_OK) return result;
    result = fill_empty(&empty, why);
    store_db_close(&empty);
    return result;
}

static int is_table(const struct dirent *entry) { return has_suffix(entry->d_name, ".sst"); }

static uint64_t highest_number(const char *path) {
    uint64_t highest = 0;
    struct dirent **files = NULL;
    int count = scandir(path, &files, NULL, NULL);
    for (int i = 0; i < count; i++) {
        uint64_t number = strtoull(files[i]->d_name, NULL, 10);
        if (number > highest) highest = number;
        free(files[i]);
    }
    free(files);
    return highest;
}

static outcome add_tables(const char *from, const char *to, failure *why) {
    struct dirent **files = NULL;
    uint64_t number = highest_number(to);
    outcome result = ST_OK;
    int count = scandir(from, &files, is_table, NULL);
    for (int i = 0; i < count; i++) {
        char name[32];
        char source[PATH_SIZE];
        char target[PATH_SIZE];
        (void)snprintf(name, sizeof name, "%06llu.sst", (unsigned long long)++number);
        path_join(source, from, files[i]->d_name);
        path_join(target, to, name);
        if (result == ST_OK) result = file_link(source, target, why);
        free(files[i]);
    }
    free(files);
    return result;
}

static outcome repair_copy(const char *path, failure *why) {
    char *error = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_repair_db(options, path, &error);
    rocksdb_options_destroy(options);
    return store_db_outcome(error, "RocksDB's repair of a copy", why);
}

outcome salvage_rebuild(salvage *self, failure *why) {
    char path[PATH_SIZE];
    char empty[PATH_SIZE];
    if (self->rebuilt) return ST_OK;
    self->rebuilt = true;
    outcome result = make_scratch(self, SALVAGE_FOLDER "/empty", empty, why);
    if (result == ST_OK) result = make_empty(empty, why);
    if (result == ST_OK) result = make_scratch(self, SALVAGE_FOLDER "/rebuilt", path, why);
    if (result == ST_OK) result = copy_database(&(copying){.from = self, .to = path}, why);
    if (result == ST_OK) result = add_tables(empty, path, why);
    if (result == ST_OK) result = repair_copy(path, why);
    if (result == ST_OK) result = store_db_open_reading(&self->views[1], path, why);
    /* Then there is no second view, and what is only there is lost. */
    return result == ST_CORRUPT ? ST_OK : result;
}

/* ---- opening -------------------------------------------------------------------------------- */

static outcome check_logs(salvage *self, failure *why) {
    char path[PATH_SIZE];
    wal_repair torn;
    wal_bounds bounds = {.flushed_known = self->manifest.flushed_known,
                         .flushed = self->manifest.flushed,
                         .synced = self->seen.writes};
    path_join(path, self->directory, DATABASE);
    return wal_check(path, NULL, &bounds, &torn, why);
}

bool salvage_is_store(const char *directory) {
    static const char *const PARTS[] = {DATABASE, "evidence", SALVAGE_READY};
    bool any = false;
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        char path[PATH_SIZE];
        path_join(path, directory, PARTS[i]);
        any = any || access(path, F_OK) == 0;
    }
    return any;
}

outcome salvage_open(salvage *self, const char *directory, store_survey *survey, failure *why) {
    char path[PATH_SIZE];
    *self = (salvage){.survey = survey};
    (void)snprintf(self->directory, sizeof self->directory, "%s", directory);
    for (int i = 0; i < FAMILY_COUNT; i++)
        self->complete[i] = true;
    path_join(path, directory, "evidence");
    evidence_read(path, &self->witnessed, &self->seen);
    path_join(path, directory, DATABASE);
    failure found = {0};
    manifest_extent seen = {self->seen.manifest_number, self->seen.manifest_size};
    outcome result = manifest_check(path, &seen, &self->manifest, &found);
    self->manifest_sound = result == ST_OK;
    if (result == ST_OK) result = check_logs(self, &found);
    bool sound = result == ST_OK;
    if (result == ST_CORRUPT) result = salvage_note(survey, &found, "%s", found.reason);
    if (result == ST_OK) result = open_first(self, sound, &found);
    if (result == ST_OK && !self->views[0].handle) result = salvage_rebuild(self, &found);
    if (result == ST_OK) return ST_OK;
    if (why) *why = found;
    salvage_close(self);
    return result;
}

void salvage_close(salvage *self) {
    for (int i = 0; i < 2; i++)
        if (self->views[i].handle) store_db_close(&self->views[i]);
    char path[PATH_SIZE];
    path_join(path, self->directory, SALVAGE_READY);
    if (access(path, F_OK) == 0) return; /* the result of a repair is there, to be put in place */
    path_join(path, self->directory, SALVAGE_FOLDER);
    if (folder_remove(path, NULL) != ST_OK) return; /* it is only in the way */
}

/* ---- reading -------------------------------------------------------------------------------- */

enum { KEY_DEPTH = 64 }; /* an unreadable block's end is found up to so many bytes of its key */

typedef struct cursor {
    rocksdb_iterator_t *at;
    uint8_t last[KEY_DEPTH]; /* beginning of the last key that was read */
    size_t len;
} cursor;

static char *take_error(const cursor *self) {
    char *error = NULL;
    if (!rocksdb_iter_valid(self->at)) rocksdb_iter_get_error(self->at, &error);
    return error;
}

static bool readable_from(cursor *self, const uint8_t *key, size_t len) {
    rocksdb_iter_seek(self->at, (const char *)key, len);
    char *error = take_error(self);
    if (!error) return true;
    rocksdb_free(error);
    return false;
}

/* The smallest last byte from `least` on with which the key can be read from; 256: none. */
static unsigned bisect(cursor *self, uint8_t *key, size_t len, unsigned least) {
    unsigned below = least;
    unsigned above = UINT8_MAX + 1;
    while (below < above) {
        unsigned middle = (below + above) / 2;
        key[len - 1] = (uint8_t)middle;
        if (readable_from(self, key, len))
            above = middle;
        else
            below = middle + 1;
    }
    return above;
}

/*
 * Behind the last key is an unreadable block: goes to the first key behind that. What a seek in
 * the block says is an error, and behind it is none: the border is bisected, byte after byte of
 * the key. False: nothing more can be read.
 */
static bool skip_unreadable(cursor *self) {
    uint8_t key[KEY_DEPTH];
    uint8_t best[KEY_DEPTH];
    size_t best_len = 0;
    bool tied = true; /* with the last key, so far */
    for (size_t len = 1; len <= KEY_DEPTH; len++) {
        unsigned least = tied && len <= self->len ? self->last[len - 1] + 1u : 0;
        unsigned first = bisect(self, key, len, least);
        if (first <= UINT8_MAX) {
            key[len - 1] = (uint8_t)first;
            best_len = len;
            put_bytes(best, bytes_of(key, len));
        }
        if (first == 0) break;
        key[len - 1] = (uint8_t)(first - 1);
        tied = tied && len <= self->len && key[len - 1] == self->last[len - 1];
        if (tied && len == self->len) tied = false; /* longer ones are behind it */
    }
    return best_len && readable_from(self, best, best_len) && rocksdb_iter_valid(self->at);
}

static outcome visit_current(cursor *self, salvage_visit visit, void *arg, failure *why) {
    bytes key;
    bytes value;
    key.data = (const uint8_t *)rocksdb_iter_key(self->at, &key.len);
    value.data = (const uint8_t *)rocksdb_iter_value(self->at, &value.len);
    self->len = key.len < KEY_DEPTH ? key.len : KEY_DEPTH;
    put_bytes(self->last, bytes_of(key.data, self->len));
    return visit(arg, key, value, why);
}

/*
 * From the end, because the second view may have a compaction's result and, still, its input: the
 * same key twice with the sequence number 0. Forwards, a RocksDB built with its assertions aborts
 * there. RocksDB's repair took only tables that can be read whole, so nothing is to be skipped.
 */
static outcome read_backwards(cursor *from, salvage_visit visit, void *arg, failure *why) {
    outcome result = ST_OK;
    rocksdb_iter_seek_to_last(from->at);
    for (; result == ST_OK && rocksdb_iter_valid(from->at); rocksdb_iter_prev(from->at))
        result = visit_current(from, visit, arg, why);
    return result;
}

static outcome read_forwards(salvage *self, store_family family, cursor *from, salvage_visit visit,
                             void *arg, failure *why) {
    outcome result = ST_OK;
    rocksdb_iter_seek_to_first(from->at);
    while (result == ST_OK) {
        char *error = take_error(from);
        if (error) {
            self->complete[family] = false;
            result = salvage_note(self->survey, why, "%s", error);
            rocksdb_free(error);
            if (result != ST_OK || !skip_unreadable(from)) break;
        }
        if (!rocksdb_iter_valid(from->at)) break;
        result = visit_current(from, visit, arg, why);
        if (result == ST_OK) rocksdb_iter_next(from->at);
    }
    return result;
}

outcome salvage_read_view(salvage *self, int view, store_family family, salvage_visit visit,
                          void *arg, failure *why) {
    const store_db *db = &self->views[view];
    if (!db->handle) {
        if (view == 0) self->complete[family] = false;
        return ST_OK;
    }
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(read, 0);
    cursor from = {.at = rocksdb_create_iterator_cf(db->handle, read, db->families[family])};
    outcome result = view == 0 ? read_forwards(self, family, &from, visit, arg, why)
                               : read_backwards(&from, visit, arg, why);
    rocksdb_iter_destroy(from.at);
    rocksdb_readoptions_destroy(read);
    return result;
}

void salvage_get(const salvage *self, int view, store_family family, bytes key, char **value,
                 size_t *len) {
    *value = NULL;
    if (!self->views[view].handle) return;
    if (store_db_get(&self->views[view], family, key, value, len, NULL) != ST_OK) *value = NULL;
}
