/*
 * Judges the logs; wal_log.c reads them, and says what tells damage from a torn tail. Runs in
 * store_open, on its thread, before RocksDB. Fails with ST_CORRUPT and leaves the logs alone.
 *
 * Batches are numbered by their writes, without a gap, from log to log: a batch that begins too
 * late proves that some are missing, be it a log, a table, or a MANIFEST that has gone back.
 */
#include "storage/wal_check.h"

#include "storage/folder.h"
#include "storage/wal_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

typedef struct chain {
    uint64_t next_write;
    bool known;             /* next_write is */
    uint64_t missing_first; /* the first gap; 0: none */
    uint64_t missing_last;
} chain;

static outcome follow(void *arg, bytes record, failure *why) {
    chain *batches = arg;
    uint64_t first;
    uint32_t count;
    if (!wal_batch_writes(record, &first, &count))
        return fail(why, ST_CORRUPT, "wal", "a record of a log is no batch");
    if (batches->known && first > batches->next_write && !batches->missing_first) {
        batches->missing_first = batches->next_write;
        batches->missing_last = first - 1;
    }
    if (!batches->known || first + count > batches->next_write) batches->next_write = first + count;
    batches->known = true;
    return ST_OK;
}

/* Keeps what will be cut: should it prove to be more than a torn tail, nothing is gone. */
static outcome save_tail(int file, uint64_t from, uint64_t to, const char *saved_as, failure *why) {
    uint8_t buffer[8192];
    int copy = open(saved_as, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool done = copy >= 0;
    while (done && from < to) {
        size_t want = to - from < sizeof buffer ? (size_t)(to - from) : sizeof buffer;
        done = pread(file, buffer, want, (off_t)from) == (ssize_t)want &&
               write(copy, buffer, want) == (ssize_t)want;
        from += want;
    }
    done = done && fsync(copy) == 0;
    int error = errno;
    if (copy >= 0) (void)close(copy);
    if (done) return ST_OK;
    return fail(why, ST_IO, "", "%s: cannot save the torn WAL tail: %s", saved_as, strerror(error));
}

static outcome cut_tail(const char *path, const wal_log_scan *scan, const char *saved_as,
                        failure *why) {
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return fail(why, ST_IO, "", "%s: %s", path, strerror(errno));
    outcome result = save_tail(file, scan->sound_end, scan->size, saved_as, why);
    if (result == ST_OK && (ftruncate(file, (off_t)scan->sound_end) != 0 || fsync(file) != 0))
        result = fail(why, ST_IO, "", "%s: cannot cut the torn tail: %s", path, strerror(errno));
    (void)close(file);
    return result;
}

/* ST_OK: sound, or ending in a torn tail. */
static outcome judge(const char *path, const wal_log_scan *scan, const chain *batches, bool newest,
                     const wal_bounds *bounds, failure *why) {
    unsigned long long sound_end = scan->sound_end;
    if (scan->damage)
        return fail(why, ST_CORRUPT, "wal", "%s is damaged after byte %llu: %s, at byte %llu", path,
                    sound_end, scan->damage, (unsigned long long)scan->damage_at);
    if (sound_end != scan->size && !newest)
        return fail(why, ST_CORRUPT, "wal",
                    "%s is damaged after byte %llu, and is not the newest log: it had been synced "
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

outcome wal_check(const char *directory, const char *saved_as, const wal_bounds *bounds,
                  wal_repair *repair, failure *why) {
    *repair = (wal_repair){0};
    wal_list logs;
    chain batches = {.known = bounds->flushed_known, .next_write = bounds->flushed + 1};
    outcome result = wal_list_read(directory, &logs, why);
    for (size_t i = 0; result == ST_OK && i < logs.count; i++) {
        char path[PATH_SIZE];
        wal_log_scan scan;
        path_join(path, directory, logs.names[i]);
        result = wal_log_read(path, follow, &batches, &scan, why);
        if (result == ST_OK)
            result = judge(path, &scan, &batches, i + 1 == logs.count, bounds, why);
        if (result != ST_OK || scan.sound_end == scan.size || !saved_as) continue;
        result = cut_tail(path, &scan, saved_as, why);
        if (result == ST_OK) result = folder_sync(directory, why);
        *repair = (wal_repair){
            .repaired = true, .kept = scan.sound_end, .cut_bytes = scan.size - scan.sound_end};
        (void)snprintf(repair->file, sizeof repair->file, "%s", logs.names[i]);
    }
    wal_list_free(&logs);
    return result;
}
