/*
 * Blocks of 32 KiB, in them fragments of a 7-byte header (masked CRC32C, length, type) and a
 * payload; a record is one FULL, or FIRST MIDDLE* LAST over blocks. Any thread; fails as each
 * function says.
 *
 * What tells damage from a torn tail: every record is synced before the next one begins. So at
 * most the last one is unsynced, and the kernel may have written back any of its pages. After a
 * bad place
 *   - the beginning of another record (FULL, FIRST) proves that what is bad had been synced;
 *   - fragments (MIDDLE, LAST), zeros and garbage may all belong to the unsynced one.
 */
#include "storage/wal_log.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"

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
    TYPE_FULL = 1,
    TYPE_FIRST = 2,
    TYPE_MIDDLE = 3,
    TYPE_LAST = 4,
    BATCH_HEADER_SIZE = 12, /* sequence number, count */
};

typedef struct reader {
    wal_log_scan *scan;
    wal_log_visit visit;
    void *arg;
    failure *why;
    outcome result;
    bool bad;        /* something behind the last whole record is unreadable */
    bool inside;     /* between FIRST and LAST */
    uint8_t *record; /* owned; what came of the present one */
    size_t len;
    size_t capacity;
} reader;

static uint32_t masked_checksum(const uint8_t *type_and_payload, size_t len) {
    uint32_t crc = crc32c_extend(0, type_and_payload, len);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static bool take_fragment(reader *self, bytes payload) {
    if (payload.len == 0) return true;
    if (self->len + payload.len > self->capacity) {
        size_t capacity = 2 * (self->len + payload.len);
        uint8_t *grown = realloc(self->record, capacity);
        if (!grown) {
            self->result = fail(self->why, ST_NO_MEMORY, "", "no memory to read a log");
            return false;
        }
        self->record = grown;
        self->capacity = capacity;
    }
    put_bytes(self->record + self->len, payload);
    self->len += payload.len;
    return true;
}

static void finish_record(reader *self, uint64_t end) {
    uint64_t first;
    uint32_t count;
    bytes record = bytes_of(self->record, self->len);
    self->inside = false;
    if (!self->bad) self->scan->sound_end = end;
    if (!self->scan->first_write && wal_batch_writes(record, &first, &count))
        self->scan->first_write = first;
    if (self->visit) self->result = self->visit(self->arg, record, self->why);
}

/* Keeps the first proof. */
static void see_damage(reader *self, const char *what, uint64_t at) {
    if (self->scan->damage) return;
    self->scan->damage = what;
    self->scan->damage_at = at;
}

/* One fragment with a good checksum, from `start` to `end` in the file. */
static void see_fragment(reader *self, uint8_t type, bytes payload, uint64_t start, uint64_t end) {
    bool begins = type == TYPE_FULL || type == TYPE_FIRST;
    if (type < TYPE_FULL || type > TYPE_LAST) {
        see_damage(self, "a record of a type that this program does not write", start);
        self->bad = true;
        self->inside = false;
        return;
    }
    if (begins && (self->bad || self->inside)) {
        see_damage(self, "a later batch begins after an unreadable one", start);
        self->bad = true;
        self->scan->begun_behind++;
    }
    if (begins) {
        self->inside = true;
        self->len = 0;
    }
    if (!self->inside)
        self->bad = true;
    else if (take_fragment(self, payload) && (type == TYPE_FULL || type == TYPE_LAST))
        finish_record(self, end);
}

/* Whether a fragment with a good checksum is at `at`; its payload's length. */
static bool fragment_at(const uint8_t *block, size_t len, size_t at, size_t *payload) {
    if (len - at < HEADER_SIZE) return false;
    const uint8_t *header = block + at;
    *payload = (size_t)header[4] | (size_t)header[5] << 8;
    if (header[6] == 0 || *payload > len - at - HEADER_SIZE) return false;
    return masked_checksum(header + 6, 1 + *payload) == get_le32(header);
}

static bool only_zeros(const uint8_t *from, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (from[i]) return false;
    return true;
}

/*
 * Where sound fragments go on after a bad header, whose length says nothing: the first place from
 * which they follow each other to the end of the block. `len` when there is none. That they have
 * to reach the end keeps bytes inside an event that look like a fragment from being taken for one.
 */
static size_t resume_at(const uint8_t *block, size_t len, size_t from) {
    for (; from + HEADER_SIZE <= len; from++) {
        size_t payload;
        size_t at = from;
        while (len - at >= HEADER_SIZE && block[at + 6] <= TYPE_LAST &&
               fragment_at(block, len, at, &payload))
            at += HEADER_SIZE + payload;
        if (at > from && only_zeros(block + at, len - at)) return from;
    }
    return len;
}

static void scan_block(reader *self, const uint8_t *block, size_t len, uint64_t block_start) {
    size_t at = 0;
    while (len - at >= HEADER_SIZE && self->result == ST_OK) {
        size_t payload;
        if (fragment_at(block, len, at, &payload)) {
            uint64_t start = block_start + at;
            bytes data = bytes_of(block + at + HEADER_SIZE, payload);
            uint8_t type = block[at + 6];
            at += HEADER_SIZE + payload;
            see_fragment(self, type, data, start, block_start + at);
        } else {
            self->bad = true;
            self->inside = false;
            at = resume_at(block, len, at + 1);
        }
    }
}

static outcome scan_file(reader *self, int file, const char *path) {
    uint8_t *block = malloc(BLOCK_SIZE);
    if (!block) return fail(self->why, ST_NO_MEMORY, "", "no memory to read %s", path);
    uint64_t size = self->scan->size;
    for (uint64_t start = 0; start < size && self->result == ST_OK; start += BLOCK_SIZE) {
        size_t want = size - start < BLOCK_SIZE ? (size_t)(size - start) : BLOCK_SIZE;
        ssize_t got = pread(file, block, want, (off_t)start);
        if (got == (ssize_t)want)
            scan_block(self, block, want, start);
        else
            self->result =
                fail(self->why, ST_IO, "", "%s: cannot read %zu bytes at %llu: %s", path, want,
                     (unsigned long long)start, got < 0 ? strerror(errno) : "short read");
    }
    free(block);
    return self->result;
}

outcome wal_log_read(const char *path, wal_log_visit visit, void *arg, wal_log_scan *scan,
                     failure *why) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        int error = errno;
        if (file >= 0) (void)close(file);
        return fail(why, ST_IO, "", "%s: %s", path, strerror(error));
    }
    *scan = (wal_log_scan){.size = (uint64_t)status.st_size};
    reader self = {.scan = scan, .visit = visit, .arg = arg, .why = why};
    outcome result = scan_file(&self, file, path);
    free(self.record);
    (void)close(file);
    return result;
}

bool wal_batch_writes(bytes record, uint64_t *first, uint32_t *count) {
    if (record.len < BATCH_HEADER_SIZE) return false;
    *first = get_le64(record.data);
    *count = get_le32(record.data + 8);
    return true;
}

/* The kinds of writes in RocksDB's format of batches, db/write_batch.cc. */
enum {
    WRITE_DELETION = 0,
    WRITE_VALUE = 1,
    WRITE_LOG_DATA = 3,
    WRITE_FAMILY_DELETION = 4,
    WRITE_FAMILY_VALUE = 5,
    WRITE_SINGLE_DELETION = 7,
    WRITE_FAMILY_SINGLE_DELETION = 8,
    WRITE_NOOP = 13,
    WRITE_FAMILY_RANGE_DELETION = 14,
    WRITE_RANGE_DELETION = 15,
};

/* How many texts a write of that kind has; -1: it is none that this program makes. */
static int texts_of(uint8_t kind) {
    switch (kind) {
    case WRITE_NOOP:
        return 0;
    case WRITE_DELETION:
    case WRITE_SINGLE_DELETION:
    case WRITE_FAMILY_DELETION:
    case WRITE_FAMILY_SINGLE_DELETION:
    case WRITE_LOG_DATA:
        return 1;
    case WRITE_VALUE:
    case WRITE_RANGE_DELETION:
    case WRITE_FAMILY_VALUE:
    case WRITE_FAMILY_RANGE_DELETION:
        return 2;
    default:
        return -1;
    }
}

static bool names_family(uint8_t kind) {
    return kind == WRITE_FAMILY_DELETION || kind == WRITE_FAMILY_VALUE ||
           kind == WRITE_FAMILY_SINGLE_DELETION || kind == WRITE_FAMILY_RANGE_DELETION;
}

uint32_t wal_batch_families(bytes record) {
    uint32_t families = 0;
    if (record.len < BATCH_HEADER_SIZE) return 0;
    decoder in =
        decoder_of(bytes_of(record.data + BATCH_HEADER_SIZE, record.len - BATCH_HEADER_SIZE));
    while (in.ok && in.left) {
        const uint8_t kind = take_u8(&in);
        const int texts = texts_of(kind);
        if (texts < 0) break;
        const uint64_t family = names_family(kind) ? take_varint(&in) : 0;
        for (int i = 0; i < texts; i++)
            (void)take_bytes(&in, take_varint(&in));
        const bool writes = kind != WRITE_LOG_DATA && kind != WRITE_NOOP;
        if (in.ok && writes && family < 32) families |= 1U << family;
    }
    return families;
}

/* ---- the logs of a folder ----------------------------------------------------------------- */

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

outcome wal_list_read(const char *directory, wal_list *list, failure *why) {
    struct dirent **found = NULL;
    *list = (wal_list){0};
    int count = scandir(directory, &found, is_log, by_number);
    if (count < 0) {
        if (errno == ENOENT) return ST_OK;
        return fail(why, ST_IO, "", "%s: %s", directory, strerror(errno));
    }
    if (count) list->names = calloc((size_t)count, sizeof *list->names);
    for (int i = 0; i < count; i++) {
        if (list->names)
            (void)snprintf(list->names[list->count++], sizeof *list->names, "%.31s",
                           found[i]->d_name);
        free(found[i]);
    }
    free(found);
    if (count && !list->names) return fail(why, ST_NO_MEMORY, "", "no memory to list the logs");
    return ST_OK;
}

void wal_list_free(wal_list *list) {
    free(list->names);
    *list = (wal_list){0};
}

/* ---- writing -------------------------------------------------------------------------------- */

outcome wal_writer_open(wal_writer *self, const char *path, failure *why) {
    *self = (wal_writer){.file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    return self->file >= 0 ? ST_OK : fail(why, ST_IO, "", "%s: %s", path, strerror(errno));
}

static bool put_all(int file, const void *from, size_t len) {
    return write(file, from, len) == (ssize_t)len;
}

static bool put_fragment(wal_writer *self, uint8_t type, bytes payload) {
    uint8_t fragment[BLOCK_SIZE];
    fragment[4] = (uint8_t)payload.len;
    fragment[5] = (uint8_t)(payload.len >> 8);
    fragment[6] = type;
    put_bytes(fragment + HEADER_SIZE, payload);
    put_le32(fragment, masked_checksum(fragment + 6, 1 + payload.len));
    self->block_offset += HEADER_SIZE + payload.len;
    return put_all(self->file, fragment, HEADER_SIZE + payload.len);
}

outcome wal_writer_add(wal_writer *self, bytes record, failure *why) {
    static const uint8_t zeros[HEADER_SIZE];
    bool begun = false;
    bool done = true;
    do {
        size_t room = BLOCK_SIZE - self->block_offset;
        if (room < HEADER_SIZE) { /* a header does not fit */
            done = put_all(self->file, zeros, room);
            self->block_offset = 0;
            room = BLOCK_SIZE;
        }
        bool ends = record.len <= room - HEADER_SIZE;
        size_t len = ends ? record.len : room - HEADER_SIZE;
        uint8_t type = begun ? (ends ? TYPE_LAST : TYPE_MIDDLE) : ends ? TYPE_FULL : TYPE_FIRST;
        done = done && put_fragment(self, type, bytes_of(record.data, len));
        record = bytes_of(record.data + len, record.len - len);
        begun = true;
        if (ends) break;
    } while (done);
    return done ? ST_OK : fail(why, ST_IO, "", "cannot write a log: %s", strerror(errno));
}

outcome wal_writer_close(wal_writer *self, failure *why) {
    bool done = fsync(self->file) == 0;
    int error = errno;
    (void)close(self->file);
    self->file = -1;
    return done ? ST_OK : fail(why, ST_IO, "", "cannot sync a log: %s", strerror(error));
}
