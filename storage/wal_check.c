/*
 * Reads RocksDB's log format: blocks of 32 KiB, in them records of a 7-byte header (masked CRC32C,
 * length, type) and a payload; a logical record is one FULL, or FIRST MIDDLE* LAST over blocks.
 * Runs in store_open, on its thread, before RocksDB.
 *
 * Why a bad place can be judged: every batch is one logical record, written by one thread and
 * synced before the next one begins. So at most the last logical record is unsynced, and the
 * kernel may have written back any of its pages. After a bad place
 *   - the beginning of another logical record (FULL, FIRST) proves that what is bad had been
 *     synced: damage, refused;
 *   - fragments (MIDDLE, LAST), zeros and garbage may all belong to the unsynced one: torn tail.
 * Should a synced last record be what is bad, then the evidence file (evidence.h) knows, and the
 * bytes that were cut are still in the saved tail.
 */
#include "storage/wal_check.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"
#include "storage/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BLOCK_SIZE = 32768,
    HEADER_SIZE = 7,
    PATH_SIZE = 4096,
    TYPE_FULL = 1,
    TYPE_FIRST = 2,
    TYPE_MIDDLE = 3,
    TYPE_LAST = 4,
    TYPE_SET_COMPRESSION = 9, /* a whole record that opens a log */
};

typedef struct wal_scan {
    uint64_t sound_end; /* end of the last whole logical record */
    bool inside;        /* between FIRST and LAST */
    bool bad;           /* something after sound_end is not sound */
    uint64_t damage_at; /* when damaged: the record that proves it, or is itself impossible */
    const char *damage; /* NULL: none */
} wal_scan;

static bool checksum_holds(const uint8_t *header, size_t len) {
    uint32_t crc = crc32c_extend(0, header + 6, 1 + len);
    uint32_t masked = (crc >> 15 | crc << 17) + 0xa282ead8u;
    return masked == get_le32(header);
}

/* One record with a good checksum, from `start` to `end` in the file. */
static void see_record(wal_scan *scan, uint8_t type, uint64_t start, uint64_t end) {
    bool begins = type == TYPE_FULL || type == TYPE_FIRST || type == TYPE_SET_COMPRESSION;
    bool goes_on = type == TYPE_MIDDLE || type == TYPE_LAST;
    if (!begins && !goes_on) {
        scan->damage = "a record of a type that this program does not write";
    } else if (begins && (scan->bad || scan->inside)) {
        scan->damage = "a later batch begins after an unreadable one";
    }
    if (scan->damage) {
        scan->damage_at = start;
        return;
    }
    if (goes_on && !scan->inside) scan->bad = true;
    if (scan->bad) return;
    scan->inside = type == TYPE_FIRST || type == TYPE_MIDDLE;
    if (!scan->inside) scan->sound_end = end;
}

static void scan_block(wal_scan *scan, const uint8_t *block, size_t len, uint64_t block_start) {
    size_t at = 0;
    while (len - at >= HEADER_SIZE && !scan->damage) {
        const uint8_t *header = block + at;
        size_t payload = (size_t)header[4] | (size_t)header[5] << 8;
        /* Zeros, or a length that cannot be: no way to know where the next header is in this
         * block; the next block starts with one. */
        if ((header[6] == 0 && payload == 0) || payload > len - at - HEADER_SIZE) {
            scan->bad = true;
            return;
        }
        uint64_t start = block_start + at;
        at += HEADER_SIZE + payload;
        if (checksum_holds(header, payload)) {
            see_record(scan, header[6], start, block_start + at);
        } else {
            scan->bad = true;
        }
    }
}

static outcome scan_file(int file, uint64_t size, wal_scan *scan, failure *why) {
    uint8_t *block = malloc(BLOCK_SIZE);
    if (!block) return fail(why, ST_NO_MEMORY, "", "no memory to read the WAL");
    outcome result = ST_OK;
    for (uint64_t start = 0; start < size && !scan->damage; start += BLOCK_SIZE) {
        size_t want = size - start < BLOCK_SIZE ? (size_t)(size - start) : BLOCK_SIZE;
        ssize_t got = pread(file, block, want, (off_t)start);
        if (got != (ssize_t)want) {
            result = fail(why, ST_IO, "", "WAL: cannot read %zu bytes at %llu: %s", want,
                          (unsigned long long)start, got < 0 ? strerror(errno) : "short read");
            break;
        }
        scan_block(scan, block, want, start);
    }
    free(block);
    return result;
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

static outcome check_file(const char *directory, const char *name, bool newest,
                          const char *saved_as, wal_repair *repair, failure *why) {
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        int error = errno;
        if (file >= 0) (void)close(file);
        return fail(why, ST_IO, "", "%s: %s", path, strerror(error));
    }
    uint64_t size = (uint64_t)status.st_size;
    wal_scan scan = {0};
    outcome result = scan_file(file, size, &scan, why);
    if (result != ST_OK) goto out;
    if (scan.damage) {
        result = fail(why, ST_CORRUPT, "wal", "%s is damaged after byte %llu: %s, at byte %llu",
                      path, (unsigned long long)scan.sound_end, scan.damage,
                      (unsigned long long)scan.damage_at);
        goto out;
    }
    if (scan.sound_end == size) goto out;
    if (!newest) {
        result = fail(why, ST_CORRUPT, "wal",
                      "%s is damaged after byte %llu, and is not the newest log: it had been "
                      "synced whole",
                      path, (unsigned long long)scan.sound_end);
        goto out;
    }
    result = save_tail(file, scan.sound_end, size, saved_as, why);
    if (result == ST_OK && (ftruncate(file, (off_t)scan.sound_end) != 0 || fsync(file) != 0))
        result = fail(why, ST_IO, "", "%s: cannot cut the torn tail: %s", path, strerror(errno));
    if (result == ST_OK) result = folder_sync(directory, why);
    if (result != ST_OK) goto out;
    repair->repaired = true;
    repair->kept = scan.sound_end;
    repair->cut_bytes = size - scan.sound_end;
    (void)snprintf(repair->file, sizeof repair->file, "%s", name);
out:
    (void)close(file);
    return result;
}

/* "000123.log": RocksDB's own logs are LOG and LOG.old.*. */
static int is_log(const struct dirent *entry) {
    size_t digits = strspn(entry->d_name, "0123456789");
    return digits > 0 && digits < 21 && strcmp(entry->d_name + digits, ".log") == 0;
}

static int by_number(const struct dirent **a, const struct dirent **b) {
    unsigned long long first = strtoull((*a)->d_name, NULL, 10);
    unsigned long long second = strtoull((*b)->d_name, NULL, 10);
    return (first > second) - (first < second);
}

outcome wal_check(const char *directory, const char *saved_as, wal_repair *repair, failure *why) {
    *repair = (wal_repair){0};
    struct dirent **logs = NULL;
    int count = scandir(directory, &logs, is_log, by_number);
    if (count < 0) {
        if (errno == ENOENT) return ST_OK;
        return fail(why, ST_IO, "", "%s: %s", directory, strerror(errno));
    }
    outcome result = ST_OK;
    for (int i = 0; i < count; i++) {
        if (result == ST_OK)
            result = check_file(directory, logs[i]->d_name, i == count - 1, saved_as, repair, why);
        free(logs[i]);
    }
    free(logs);
    return result;
}

uint64_t wal_bytes(const char *directory) {
    uint64_t sum = 0;
    struct dirent **logs = NULL;
    int count = scandir(directory, &logs, is_log, by_number);
    for (int i = 0; i < count; i++) {
        char path[PATH_SIZE];
        struct stat status;
        (void)snprintf(path, sizeof path, "%s/%s", directory, logs[i]->d_name);
        if (stat(path, &status) == 0) sum += (uint64_t)status.st_size;
        free(logs[i]);
    }
    if (count >= 0) free(logs);
    return sum;
}
