/*
 * Judges the logs; wal_log.c reads them, and says what tells damage from a torn tail. Runs in
 * store_open, on its thread, before RocksDB. Fails with ST_CORRUPT and leaves the logs alone.
 *
 * Batches are numbered by their writes, without a gap, from log to log: a batch that begins too
 * late proves that some are missing, be it a log, a table, or a MANIFEST that has gone back.
 *
 * The families are flushed one by one, so a log may be needed long after most of what it holds is
 * in tables. RocksDB deletes logs from the oldest on, and none from the first that is needed:
 * behind that one every log has to be there.
 */
#include "storage/wal_check.h"

#include "storage/folder.h"
#include "storage/torn_tail.h"
#include "storage/wal_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct chain {
    uint64_t next_write;
    bool judged; /* where to begin is known; else a gap may be between logs that are no longer
                    needed, and came back when a power cut undid that they were removed */
    uint64_t missing_first; /* the first gap; 0: none */
    uint64_t missing_last;
    uint64_t end;      /* behind the last batch that was read */
    uint32_t families; /* that the present log has writes of: a bit for each */
    bool needed;       /* an earlier log is needed */
} chain;

static void note_gap(chain *batches, uint64_t from, uint64_t first) {
    if (first <= from || batches->missing_first) return;
    batches->missing_first = from;
    batches->missing_last = first - 1;
}

static outcome follow(void *arg, bytes record, failure *why) {
    chain *batches = arg;
    uint64_t first;
    uint32_t count;
    if (!wal_batch_writes(record, &first, &count))
        return fail(why, ST_CORRUPT, "wal", "a record of a log is no batch");
    if (batches->judged) note_gap(batches, batches->next_write, first);
    if (batches->needed) note_gap(batches, batches->end, first);
    batches->end = first + count;
    batches->families |= wal_batch_families(record);
    if (first + count > batches->next_write) batches->next_write = first + count;
    return ST_OK;
}

/* ST_OK: sound, or ending in a torn tail. */
static outcome judge(const char *path, const wal_log_scan *scan, const chain *batches, bool last,
                     const wal_bounds *bounds, failure *why) {
    unsigned long long sound_end = scan->sound_end;
    if (scan->damage)
        return fail(why, ST_CORRUPT, "wal", "%s is damaged after byte %llu: %s, at byte %llu", path,
                    sound_end, scan->damage, (unsigned long long)scan->damage_at);
    if (sound_end != scan->size && !last)
        return fail(why, ST_CORRUPT, "wal",
                    "%s is damaged after byte %llu, and a later log goes on: it had been synced "
                    "whole",
                    path, sound_end);
    if (batches->missing_first)
        return fail(why, ST_CORRUPT, "db",
                    "writes %llu to %llu are missing before %s: a log or a table is gone, or the "
                    "MANIFEST is an older one",
                    (unsigned long long)batches->missing_first,
                    (unsigned long long)batches->missing_last, path);
    if (sound_end != scan->size && bounds->synced >= batches->next_write)
        return fail(why, ST_CORRUPT, "wal",
                    "%s is damaged after byte %llu: %llu writes behind it had been synced", path,
                    sound_end, (unsigned long long)(bounds->synced + 1 - batches->next_write));
    return ST_OK;
}

static bool is_needed(const chain *batches, const char *name, const wal_needs *needs) {
    const uint64_t number = strtoull(name, NULL, 10);
    for (int i = 0; needs->known && i < WAL_FAMILIES_MAX; i++)
        if (batches->families & 1U << i && number >= needs->from[i]) return true;
    return false;
}

static uint64_t size_of(const char *directory, const char *name) {
    char path[PATH_SIZE];
    struct stat status;
    path_join(path, directory, name);
    return stat(path, &status) == 0 ? (uint64_t)status.st_size : 0;
}

/* The one that was written to last. Empty ones may follow: when a write or a sync has failed,
 * RocksDB may begin another log before the process ends. */
static size_t last_written(const char *directory, const wal_list *logs) {
    size_t last = logs->count;
    while (last > 0 && size_of(directory, logs->names[last - 1]) == 0)
        last--;
    return last ? last - 1 : 0;
}

outcome wal_check(const char *directory, const char *saved_as, const wal_bounds *bounds,
                  wal_repair *repair, failure *why) {
    *repair = (wal_repair){0};
    wal_list logs;
    chain batches = {.judged = bounds->flushed_known, .next_write = bounds->flushed + 1};
    outcome result = wal_list_read(directory, &logs, why);
    const size_t last = result == ST_OK ? last_written(directory, &logs) : 0;
    for (size_t i = 0; result == ST_OK && i < logs.count; i++) {
        char path[PATH_SIZE];
        wal_log_scan scan;
        path_join(path, directory, logs.names[i]);
        batches.families = 0;
        result = wal_log_read(path, follow, &batches, &scan, why);
        if (result == ST_OK) result = judge(path, &scan, &batches, i >= last, bounds, why);
        if (is_needed(&batches, logs.names[i], &bounds->needs)) batches.needed = true;
        if (result != ST_OK || scan.sound_end == scan.size || !saved_as) continue;
        result = torn_tail_cut(path, scan.sound_end, scan.size, saved_as, why);
        *repair = (wal_repair){
            .repaired = true, .kept = scan.sound_end, .cut_bytes = scan.size - scan.sound_end};
        (void)snprintf(repair->file, sizeof repair->file, "%s", logs.names[i]);
    }
    wal_list_free(&logs);
    if (result == ST_OK && bounds->manifest_torn && bounds->synced >= batches.next_write)
        result = fail(why, ST_CORRUPT, "wal",
                      "%s: writes %llu to %llu had been synced, and are not here", directory,
                      (unsigned long long)batches.next_write, (unsigned long long)bounds->synced);
    return result;
}

uint64_t wal_bytes(const char *directory) {
    uint64_t sum = 0;
    wal_list logs = {0};
    if (wal_list_read(directory, &logs, NULL) != ST_OK) return 0;
    for (size_t i = 0; i < logs.count; i++)
        sum += size_of(directory, logs.names[i]);
    wal_list_free(&logs);
    return sum;
}
