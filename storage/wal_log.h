/*
 * wal_log: reads the format of RocksDB's logs: its write-ahead logs, and the MANIFEST. Private to
 * storage/.
 */
#ifndef INGEST_STORAGE_WAL_LOG_H
#define INGEST_STORAGE_WAL_LOG_H

#include "storage/bytes.h"
#include "storage/status.h"

typedef struct wal_log_scan {
    uint64_t size;
    uint64_t sound_end;    /* end of the last whole record before anything unreadable */
    uint64_t damage_at;    /* with damage: the place that proves it */
    const char *damage;    /* records that had been synced are unreadable; NULL: none, and what is
                              behind sound_end is a torn tail */
    uint32_t begun_behind; /* records that begin behind something unreadable */
    uint64_t first_write;  /* RocksDB's sequence number of the first batch; 0: no batch */
} wal_log_scan;

/* One whole record, with good checksums. Borrowed during the call. Not ST_OK ends the reading. */
typedef outcome (*wal_log_visit)(void *arg, bytes record, failure *why);

/*
 * Reads the log at `path`, and hands each whole record to `visit` (may be NULL). Damage does not
 * end the reading: whole records behind it are handed over too. Blocks. Fails with ST_IO,
 * ST_NO_MEMORY or what `visit` returned; damage is no failure.
 */
MUST_CHECK outcome wal_log_read(const char *path, wal_log_visit visit, void *arg,
                                wal_log_scan *scan, failure *why);

/* A record of a write-ahead log is a batch: the sequence number of its first write, and how many
 * it has (maybe none). False: too short to be one. */
bool wal_batch_writes(bytes record, uint64_t *first, uint32_t *count);
/* The column families (by RocksDB's number, 0 to 31) that a batch writes to, a bit for each; as far
 * as it is understood. */
uint32_t wal_batch_families(bytes record);

/* Names of the write-ahead logs in `directory`, ascending by number; missing folder: none. */
typedef struct wal_list {
    char (*names)[32]; /* owned */
    size_t count;
} wal_list;

MUST_CHECK outcome wal_list_read(const char *directory, wal_list *list, failure *why);
void wal_list_free(wal_list *list);

/* Writes records in the log's format; see wal_writer_add. */
typedef struct wal_writer {
    int file; /* -1: none */
    size_t block_offset;
} wal_writer;

MUST_CHECK outcome wal_writer_open(wal_writer *self, const char *path, failure *why);
MUST_CHECK outcome wal_writer_add(wal_writer *self, bytes record, failure *why);
/* Syncs and closes. */
MUST_CHECK outcome wal_writer_close(wal_writer *self, failure *why);

#endif
