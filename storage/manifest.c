/*
 * A MANIFEST has the format of a log (wal_log.h); each record is an edit: tags, each with its
 * value. The tags that we need come before the long ones (files added and deleted), so reading
 * ends there. Runs in store_open, on its thread.
 */
#include "storage/manifest.h"

#include "storage/encoding.h"
#include "storage/folder.h"
#include "storage/wal_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TAG_COMPARATOR = 1,
    TAG_LOG_NUMBER = 2,
    TAG_NEXT_FILE = 3,
    TAG_LAST_SEQUENCE = 4,
    TAG_PREVIOUS_LOG = 9,
    TAG_MIN_LOG_TO_KEEP = 10,
    TAG_MAX_FAMILY = 203,
    TAG_DATABASE_ID = 8193,
    PREFIX_SIZE = 9, /* of "MANIFEST-" */
    NAME_SIZE = 32,
};

/* False: an unknown tag stands before the last sequence. */
static bool read_edit(decoder *in, manifest_facts *facts) {
    while (in->ok && in->left) {
        uint64_t value;
        switch (take_varint(in)) {
        case TAG_COMPARATOR:
        case TAG_DATABASE_ID:
            (void)take_bytes(in, take_varint(in));
            break;
        case TAG_NEXT_FILE:
        case TAG_LOG_NUMBER:
        case TAG_PREVIOUS_LOG:
        case TAG_MIN_LOG_TO_KEEP:
        case TAG_MAX_FAMILY:
            (void)take_varint(in);
            break;
        case TAG_LAST_SEQUENCE:
            value = take_varint(in);
            if (value > facts->flushed) facts->flushed = value;
            return in->ok;
        default:
            return false;
        }
    }
    return in->ok;
}

static outcome see_edit(void *arg, bytes record, failure *why) {
    manifest_facts *facts = arg;
    decoder in = decoder_of(record);
    (void)why;
    if (!read_edit(&in, facts)) facts->flushed_known = false;
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

/* Behind `sound_end` may be an edit that was being written: nothing depends on it yet. */
static outcome judge(const char *path, const wal_log_scan *scan, const manifest_extent *seen,
                     manifest_facts *facts, failure *why) {
    facts->extent = (manifest_extent){.number = strtoull(facts->file + PREFIX_SIZE, NULL, 10),
                                      .size = scan->sound_end};
    if (scan->damage || scan->sound_end == 0)
        return fail(why, ST_CORRUPT, "db", "%s is damaged after byte %llu", path,
                    (unsigned long long)scan->sound_end);
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
    *facts = (manifest_facts){.flushed_known = true};
    outcome result = read_current(database, facts->file, why);
    if (result != ST_OK) return result;
    path_join(path, database, facts->file);
    if (access(path, F_OK) != 0)
        return fail(why, ST_CORRUPT, "db", "%s, which CURRENT names, is missing", path);
    result = wal_log_read(path, see_edit, facts, &scan, why);
    return result == ST_OK ? judge(path, &scan, seen, facts, why) : result;
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
