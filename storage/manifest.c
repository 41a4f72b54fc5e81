/*
 * A MANIFEST has the format of a log (wal_log.h); each record is an edit: tags, each with its
 * value. The tags that we need come before the long ones (files added and deleted), so reading
 * ends there. Runs in store_open, on its thread.
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
#include <stdio.h>

enum {
    TAG_COMPARATOR = 1,
    TAG_LOG_NUMBER = 2,
    TAG_NEXT_FILE = 3,
    TAG_LAST_SEQUENCE = 4,
    TAG_PREVIOUS_LOG = 9,
    TAG_MIN_LOG_TO_KEEP = 10,
    TAG_FAMILY = 200,
    TAG_FAMILY_ADD = 201,
    TAG_MAX_FAMILY = 203,
    TAG_SKIPPED = 1 << 13, /* a bit: the length comes first, and an older reader goes over it */

    TOGETHER_MAX = 8, /* edits that are synced together; a few more than were ever seen (3) */
};

typedef struct reading {
    manifest_facts *facts;
    const wal_log_scan *scan;
} reading;

/* False: an unknown tag stands before the last sequence. */
static bool read_edit(decoder *in, manifest_facts *facts) {
    while (in->ok && in->left) {
        uint64_t value;
        uint64_t tag = take_varint(in);
        switch (tag) {
        case TAG_COMPARATOR:
        case TAG_FAMILY_ADD:
            (void)take_bytes(in, take_varint(in));
            break;
        case TAG_LOG_NUMBER:
        case TAG_PREVIOUS_LOG:
        case TAG_MIN_LOG_TO_KEEP:
        case TAG_FAMILY:
        case TAG_MAX_FAMILY:
            (void)take_varint(in);
            break;
        case TAG_NEXT_FILE:
            value = take_varint(in);
            if (value > facts->next_file) facts->next_file = value;
            break;
        case TAG_LAST_SEQUENCE:
            value = take_varint(in);
            if (value > facts->flushed) facts->flushed = value;
            return in->ok;
        default:
            if (!(tag & TAG_SKIPPED)) return false;
            (void)take_bytes(in, take_varint(in));
        }
    }
    return in->ok;
}

static outcome see_edit(void *arg, bytes record, failure *why) {
    const reading *self = arg;
    manifest_facts *facts = self->facts;
    decoder in = decoder_of(record);
    manifest_facts read = {0};
    (void)why;
    bool understood = read_edit(&in, &read);
    if (read.next_file > facts->next_file) facts->next_file = read.next_file;
    if (self->scan->sound_end == facts->sound_end) return ST_OK; /* behind a bad place */
    facts->sound_end = self->scan->sound_end;
    if (read.flushed > facts->flushed) facts->flushed = read.flushed;
    if (!understood) facts->flushed_known = false;
    return ST_OK;
}

static outcome read_current(const char *database, char name[32], failure *why) {
    char path[PATH_SIZE];
    char line[64] = "";
    path_join(path, database, "CURRENT");
    FILE *file = fopen(path, "re");
    if (!file)
        return fail(why, errno == ENOENT ? ST_CORRUPT : ST_IO, "db", "%s: %s", path,
                    strerror(errno));
    size_t len = fread(line, 1, sizeof line - 1, file);
    (void)fclose(file);
    size_t digits = len > 9 ? strspn(line + 9, "0123456789") : 0;
    if (strncmp(line, "MANIFEST-", 9) != 0 || digits == 0 || digits > 20 || len != digits + 10 ||
        line[len - 1] != '\n')
        return fail(why, ST_CORRUPT, "db", "%s is damaged: it names no MANIFEST", path);
    (void)snprintf(name, 32, "%.*s", (int)len - 1, line);
    return ST_OK;
}

outcome manifest_check(const char *database, manifest_facts *facts, failure *why) {
    char path[PATH_SIZE];
    wal_log_scan scan;
    *facts = (manifest_facts){.flushed_known = true};
    outcome result = read_current(database, facts->file, why);
    if (result != ST_OK) return result;
    path_join(path, database, facts->file);
    reading self = {.facts = facts, .scan = &scan};
    result = wal_log_read(path, see_edit, &self, &scan, why);
    if (result == ST_IO && errno == ENOENT)
        return fail(why, ST_CORRUPT, "db", "%s, which CURRENT names, is missing", path);
    if (result != ST_OK) return result;
    facts->size = scan.size;
    if (scan.damage && (scan.begun_behind == 0 || scan.begun_behind > TOGETHER_MAX))
        return fail(why, ST_CORRUPT, "db", "%s is damaged after byte %llu", path,
                    (unsigned long long)scan.sound_end);
    if (scan.sound_end == 0)
        return fail(why, ST_CORRUPT, "db", "%s is damaged from its beginning", path);
    return ST_OK;
}

outcome manifest_repair(const char *database, const manifest_facts *facts, const char *saved_as,
                        failure *why) {
    char path[PATH_SIZE];
    path_join(path, database, facts->file);
    return torn_tail_cut(path, facts->sound_end, facts->size, saved_as, why);
}
