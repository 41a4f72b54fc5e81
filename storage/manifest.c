/*
 * A MANIFEST has the format of a log (wal_log.h); each record is an edit: tags, each with its
 * value, as RocksDB's db/version_edit.cc has them. Runs in store_open, on its thread.
 *
 * RocksDB writes the edits of a flush or a compaction, and of others that are just then ready, and
 * syncs them together; only then it does what they say, and deletes what they no longer need. So
 * edits torn by a power cut are the last few, and without them the database is as it was before:
 * that its logs still go on from there is checked by wal_check.c, and RocksDB checks its tables.
 */
#include "storage/manifest.h"

#include "storage/encoding.h"
#include "storage/folder.h"
#include "storage/torn_tail.h"
#include "storage/wal_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TAG_COMPARATOR = 1,
    TAG_LOG_NUMBER = 2,
    TAG_NEXT_FILE = 3,
    TAG_LAST_SEQUENCE = 4,
    TAG_COMPACT_CURSOR = 5,
    TAG_DELETED_FILE = 6,
    TAG_PREVIOUS_LOG = 9,
    TAG_MIN_LOG_TO_KEEP = 10,
    TAG_NEW_FILE = 103,
    TAG_FAMILY = 200,
    TAG_FAMILY_ADD = 201,
    TAG_MAX_FAMILY = 203,
    TAG_IN_ATOMIC_GROUP = 300,
    TAG_SKIPPED = 1 << 13, /* a bit: the length comes first, and an older reader goes over it */

    TOGETHER_MAX = 8, /* edits that are synced together; a few more than were ever seen (3) */
    PREFIX_SIZE = 9,  /* of "MANIFEST-" */
    NAME_SIZE = 32,
};

typedef struct reading {
    manifest_facts *facts;
    const wal_log_scan *scan;
} reading;

typedef struct edit {
    uint64_t next_file, flushed, log, family;
    bool flushed_understood; /* no unknown tag stands before the last sequence */
    bool understood;         /* none at all */
} edit;

static void skip_text(decoder *in) { (void)take_bytes(in, take_varint(in)); }

/* Level, number, size, the keys and sequences at both ends, then tagged texts up to tag 1. */
static void skip_new_file(decoder *in) {
    enum { LAST = 1 };
    for (int i = 0; i < 3; i++)
        (void)take_varint(in);
    skip_text(in);
    skip_text(in);
    for (int i = 0; i < 2; i++)
        (void)take_varint(in);
    while (in->ok && take_varint(in) != LAST)
        skip_text(in);
}

/* False: the tag is unknown. */
static bool read_tag(decoder *in, uint64_t tag, edit *out) {
    switch (tag) {
    case TAG_COMPARATOR:
    case TAG_FAMILY_ADD:
        skip_text(in);
        return true;
    case TAG_PREVIOUS_LOG:
    case TAG_MIN_LOG_TO_KEEP:
    case TAG_MAX_FAMILY:
    case TAG_IN_ATOMIC_GROUP:
        (void)take_varint(in);
        return true;
    case TAG_COMPACT_CURSOR:
        (void)take_varint(in);
        skip_text(in);
        return true;
    case TAG_DELETED_FILE:
        (void)take_varint(in);
        (void)take_varint(in);
        return true;
    case TAG_NEW_FILE:
        skip_new_file(in);
        return true;
    case TAG_LOG_NUMBER:
        out->log = take_varint(in);
        return true;
    case TAG_FAMILY:
        out->family = take_varint(in);
        return true;
    case TAG_NEXT_FILE:
        out->next_file = take_varint(in);
        return true;
    case TAG_LAST_SEQUENCE:
        out->flushed = take_varint(in);
        return true;
    default:
        if (!(tag & TAG_SKIPPED)) return false;
        skip_text(in);
        return true;
    }
}

static edit read_edit(bytes record) {
    edit out = {.flushed_understood = true, .understood = true};
    decoder in = decoder_of(record);
    while (out.understood && in.ok && in.left)
        out.understood = read_tag(&in, take_varint(&in), &out);
    out.understood = out.understood && in.ok;
    out.flushed_understood = out.understood || out.flushed > 0;
    return out;
}

static void note_log(wal_needs *logs, const edit *read) {
    if (!read->understood || (read->log && read->family >= WAL_FAMILIES_MAX))
        logs->known = false;
    else if (read->log > logs->from[read->family])
        logs->from[read->family] = read->log;
}

static outcome see_edit(void *arg, bytes record, failure *why) {
    const reading *self = arg;
    manifest_facts *facts = self->facts;
    const edit read = read_edit(record);
    (void)why;
    if (read.next_file > facts->next_file) facts->next_file = read.next_file;
    if (self->scan->sound_end == facts->extent.size) return ST_OK; /* behind a bad place */
    facts->extent.size = self->scan->sound_end;
    if (read.flushed > facts->flushed) facts->flushed = read.flushed;
    if (!read.flushed_understood) facts->flushed_known = false;
    note_log(&facts->logs, &read);
    return ST_OK;
}

static outcome read_current(const char *database, char name[NAME_SIZE], failure *why) {
    char path[PATH_SIZE];
    char line[64] = "";
    path_join(path, database, "CURRENT");
    FILE *file = fopen(path, "re");
    if (!file)
        return fail(why, errno == ENOENT ? ST_CORRUPT : ST_IO, "db", "%s: %s", path,
                    strerror(errno));
    size_t len = fread(line, 1, sizeof line - 1, file);
    (void)fclose(file);
    size_t digits = len > PREFIX_SIZE ? strspn(line + PREFIX_SIZE, "0123456789") : 0;
    if (strncmp(line, "MANIFEST-", PREFIX_SIZE) != 0 || digits == 0 || digits > 20 ||
        len != PREFIX_SIZE + digits + 1 || line[len - 1] != '\n')
        return fail(why, ST_CORRUPT, "db", "%s is damaged: it names no MANIFEST", path);
    (void)snprintf(name, NAME_SIZE, "%.*s", (int)len - 1, line);
    return ST_OK;
}

static outcome judge(const char *path, const wal_log_scan *scan, const manifest_extent *seen,
                     const manifest_facts *facts, failure *why) {
    if (scan->damage && (scan->begun_behind == 0 || scan->begun_behind > TOGETHER_MAX))
        return fail(why, ST_CORRUPT, "db", "%s is damaged after byte %llu", path,
                    (unsigned long long)scan->sound_end);
    if (scan->sound_end == 0)
        return fail(why, ST_CORRUPT, "db", "%s is damaged from its beginning", path);
    if (facts->extent.number < seen->number)
        return fail(why, ST_CORRUPT, "db", "%s is an older one: there had been MANIFEST-%06llu",
                    path, (unsigned long long)seen->number);
    if (facts->extent.number == seen->number && facts->extent.size < seen->size)
        return fail(why, ST_CORRUPT, "db", "%s is sound up to byte %llu only, of %llu", path,
                    (unsigned long long)facts->extent.size, (unsigned long long)seen->size);
    return ST_OK;
}

outcome manifest_check(const char *database, const manifest_extent *seen, manifest_facts *facts,
                       failure *why) {
    char path[PATH_SIZE];
    wal_log_scan scan;
    *facts = (manifest_facts){.flushed_known = true, .logs.known = true};
    outcome result = read_current(database, facts->file, why);
    if (result != ST_OK) return result;
    path_join(path, database, facts->file);
    reading self = {.facts = facts, .scan = &scan};
    result = wal_log_read(path, see_edit, &self, &scan, why);
    if (result == ST_IO && errno == ENOENT)
        return fail(why, ST_CORRUPT, "db", "%s, which CURRENT names, is missing", path);
    if (result != ST_OK) return result;
    facts->size = scan.size;
    facts->extent = (manifest_extent){.number = strtoull(facts->file + PREFIX_SIZE, NULL, 10),
                                      .size = scan.sound_end};
    return judge(path, &scan, seen, facts, why);
}

manifest_extent manifest_now(const char *database) {
    char path[PATH_SIZE];
    char name[NAME_SIZE];
    struct stat status;
    manifest_extent now = {0};
    if (read_current(database, name, NULL) != ST_OK) return now;
    path_join(path, database, name);
    if (stat(path, &status) != 0) return now;
    now.number = strtoull(name + PREFIX_SIZE, NULL, 10);
    now.size = (uint64_t)status.st_size;
    return now;
}

outcome manifest_sync(const char *database, manifest_extent *synced, failure *why) {
    char path[PATH_SIZE];
    char name[NAME_SIZE];
    struct stat status;
    outcome result = read_current(database, name, why);
    if (result != ST_OK) return result;
    path_join(path, database, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool done = file >= 0 && fstat(file, &status) == 0 && fsync(file) == 0;
    int error = errno;
    if (file >= 0) (void)close(file);
    if (!done) return fail(why, ST_IO, "", "%s: cannot sync: %s", path, strerror(error));
    *synced = (manifest_extent){.number = strtoull(name + PREFIX_SIZE, NULL, 10),
                                .size = (uint64_t)status.st_size};
    return folder_sync(database, why);
}

outcome manifest_repair(const char *database, const manifest_facts *facts, const char *saved_as,
                        failure *why) {
    char path[PATH_SIZE];
    path_join(path, database, facts->file);
    return torn_tail_cut(path, facts->extent.size, facts->size, saved_as, why);
}

outcome manifest_look(manifest_watch *self, const char *database, uint64_t errors, bool *advanced,
                      failure *why) {
    const bool sure = errors == self->errors;
    const manifest_extent synced = self->seen;
    const manifest_extent now = manifest_now(database);
    *advanced = false;
    self->errors = errors;
    if (now.number && !manifest_extent_equal(&now, &synced)) {
        outcome result = manifest_sync(database, &self->seen, why);
        if (result != ST_OK) return result;
    }
    if (!sure || !synced.number || manifest_extent_equal(&synced, &self->noted)) return ST_OK;
    self->noted = synced;
    *advanced = true;
    return ST_OK;
}
