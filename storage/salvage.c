/*
 * Order: evidence, MANIFEST, logs, then the first view; each flaw is noted as damage and reading
 * goes on. Fails only where nothing can be read at all for another reason than damage.
 *
 *   DIRECTORY/salvage/copy/     tables linked, logs rewritten with the whole batches they have
 *   DIRECTORY/salvage/N.sst/    a table alone, made a database by RocksDB's repair
 *   DIRECTORY/salvage/logs/     the logs alone, rewritten and made a database in the same way
 *   DIRECTORY/salvage/empty/    a database with our families, to tell that repair of them
 *
 * RocksDB's repair is not given everything at once: it takes all tables for flushed ones, and
 * refuses a set of which one covers the writes of another, as the result of a compaction does.
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

/* Whether a file belongs into a copy. */
typedef bool (*copy_choice)(const salvage *self, const char *name);

static bool is_table(const char *name) { return has_suffix(name, ".sst"); }

static bool is_log(const salvage *self, const char *name) {
    (void)self;
    return has_suffix(name, ".log");
}

static bool is_needed(const salvage *self, const char *name) {
    return is_table(name) || is_log(self, name) || strcmp(name, "CURRENT") == 0 ||
           strcmp(name, self->manifest.file) == 0;
}

static outcome copy_file(const char *from, const char *to, const char *name, failure *why) {
    char source[PATH_SIZE];
    char target[PATH_SIZE];
    path_join(source, from, name);
    path_join(target, to, name);
    if (is_table(name)) return file_link(source, target, why);
    if (has_suffix(name, ".log")) return rewrite_log(source, target, why);
    return file_copy(source, target, why);
}

/* Of the database, into a folder that is there. */
static outcome copy_files(const salvage *self, const char *to, copy_choice wanted, failure *why) {
    char database[PATH_SIZE];
    struct dirent **files = NULL;
    outcome result = ST_OK;
    path_join(database, self->directory, DATABASE);
    int count = scandir(database, &files, NULL, NULL);
    for (int i = 0; i < count; i++) {
        const char *name = files[i]->d_name;
        if (result == ST_OK && wanted(self, name)) result = copy_file(database, to, name, why);
        free(files[i]);
    }
    free(files);
    return result;
}

/* An empty folder below SALVAGE_FOLDER. */
static outcome make_scratch(const salvage *self, const char *name, char path[PATH_SIZE],
                            failure *why) {
    char folder[PATH_SIZE];
    path_join(folder, self->directory, SALVAGE_FOLDER);
    path_join(path, folder, name);
    outcome result = folder_make(folder, why);
    if (result == ST_OK) result = folder_remove(path, why);
    return result == ST_OK ? folder_make(path, why) : result;
}

/* ---- the first view ------------------------------------------------------------------------- */

static outcome open_first(salvage *self, failure *why) {
    char path[PATH_SIZE];
    path_join(path, self->directory, DATABASE);
    if (self->files_sound)
        return note_if_corrupt(self, store_db_open_reading(&self->views[0], path, why), why);
    outcome result = make_scratch(self, "copy", path, why);
    if (result == ST_OK) result = copy_files(self, path, is_needed, why);
    if (result != ST_OK) return result;
    return note_if_corrupt(self, store_db_open_copy(&self->views[0], path, why), why);
}

/* ---- the other views ------------------------------------------------------------------------- */

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

/* Under numbers that are not taken. */
static outcome add_tables(const char *from, const char *to, failure *why) {
    struct dirent **files = NULL;
    uint64_t number = highest_number(to);
    outcome result = ST_OK;
    int count = scandir(from, &files, NULL, NULL);
    for (int i = 0; i < count; i++) {
        char name[32];
        char source[PATH_SIZE];
        char target[PATH_SIZE];
        (void)snprintf(name, sizeof name, "%06llu.sst", (unsigned long long)number + 1);
        path_join(source, from, files[i]->d_name);
        path_join(target, to, name);
        if (result == ST_OK && is_table(files[i]->d_name)) {
            result = file_link(source, target, why);
            number++;
        }
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

/* Makes the folder's tables and logs a database, and that a view. */
static outcome add_view(salvage *self, const char *path, failure *why) {
    char empty[PATH_SIZE];
    path_join(empty, self->directory, SALVAGE_FOLDER "/empty");
    store_db *grown = realloc(self->views, (size_t)(self->view_count + 1) * sizeof *grown);
    if (!grown) return fail(why, ST_NO_MEMORY, "", "no memory for a view");
    self->views = grown;
    outcome result = add_tables(empty, path, why);
    if (result == ST_OK) result = repair_copy(path, why);
    if (result == ST_OK) result = store_db_open_reading(&grown[self->view_count], path, why);
    if (result == ST_OK) self->view_count++;
    /* What is only there is lost, then. */
    return note_if_corrupt(self, result, why);
}

static outcome add_table_view(salvage *self, const char *name, failure *why) {
    char database[PATH_SIZE];
    char path[PATH_SIZE];
    path_join(database, self->directory, DATABASE);
    outcome result = make_scratch(self, name, path, why);
    if (result == ST_OK) result = copy_file(database, path, name, why);
    return result == ST_OK ? add_view(self, path, why) : result;
}

static outcome add_views(salvage *self, failure *why) {
    char path[PATH_SIZE];
    struct dirent **files = NULL;
    outcome result = make_scratch(self, "empty", path, why);
    if (result == ST_OK) result = make_empty(path, why);
    if (result == ST_OK) result = make_scratch(self, "logs", path, why);
    if (result == ST_OK) result = copy_files(self, path, is_log, why);
    if (result == ST_OK) result = add_view(self, path, why);
    path_join(path, self->directory, DATABASE);
    int count = scandir(path, &files, NULL, NULL);
    for (int i = 0; i < count; i++) {
        if (result == ST_OK && is_table(files[i]->d_name))
            result = add_table_view(self, files[i]->d_name, why);
        free(files[i]);
    }
    free(files);
    return result;
}

/* By the last write that a view has. */
static int newest_first(const void *a, const void *b) {
    uint64_t first = rocksdb_get_latest_sequence_number(((const store_db *)a)->handle);
    uint64_t second = rocksdb_get_latest_sequence_number(((const store_db *)b)->handle);
    return (first < second) - (first > second);
}

bool salvage_may_have_more(const salvage *self, store_family family) {
    return self->tables_doubted || !self->views[0].handle || !self->complete[family];
}

outcome salvage_rebuild(salvage *self, failure *why) {
    if (self->rebuilt) return ST_OK;
    self->rebuilt = true;
    outcome result = add_views(self, why);
    if (self->view_count > 2)
        qsort(self->views + 1, (size_t)self->view_count - 1, sizeof *self->views, newest_first);
    return result;
}

/* ---- opening -------------------------------------------------------------------------------- */

static outcome check_logs(salvage *self, failure *why) {
    char path[PATH_SIZE];
    wal_repair torn;
    wal_bounds bounds = {.flushed_known = self->manifest.flushed_known,
                         .flushed = self->manifest.flushed,
                         .needs = self->manifest.logs,
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
    *self = (salvage){.survey = survey, .view_count = 1};
    (void)snprintf(self->directory, sizeof self->directory, "%s", directory);
    for (int i = 0; i < FAMILY_COUNT; i++)
        self->complete[i] = true;
    self->views = calloc(1, sizeof *self->views);
    if (!self->views) return fail(why, ST_NO_MEMORY, "", "no memory for a view");
    path_join(path, directory, "evidence");
    evidence_read(path, &self->witnessed, &self->seen);
    path_join(path, directory, DATABASE);
    failure found = {0};
    manifest_extent seen = {self->seen.manifest_number, self->seen.manifest_size};
    outcome result = manifest_check(path, &seen, &self->manifest, &found);
    if (result == ST_OK) result = check_logs(self, &found);
    self->files_sound = result == ST_OK;
    self->tables_doubted = result != ST_OK && strcmp(found.field, "wal") != 0;
    if (result == ST_CORRUPT) result = salvage_note(survey, &found, "%s", found.reason);
    if (result == ST_OK) result = open_first(self, &found);
    if (result == ST_OK && !self->views[0].handle) result = salvage_rebuild(self, &found);
    if (result == ST_OK) return ST_OK;
    if (why) *why = found;
    salvage_close(self);
    return result;
}

void salvage_close(salvage *self) {
    for (int i = 0; i < self->view_count; i++)
        if (self->views[i].handle) store_db_close(&self->views[i]);
    free(self->views);
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

static outcome read_all(salvage *self, int view, store_family family, cursor *from,
                        salvage_visit visit, void *arg, failure *why) {
    outcome result = ST_OK;
    rocksdb_iter_seek_to_first(from->at);
    while (result == ST_OK) {
        char *error = take_error(from);
        if (error) {
            if (view == 0) self->complete[family] = false;
            if (view == 0) result = salvage_note(self->survey, why, "%s", error);
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
    outcome result = read_all(self, view, family, &from, visit, arg, why);
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
