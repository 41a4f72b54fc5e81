/*
 * failed_db: RocksDB as the store of failed events wants it. Every function blocks; any thread,
 * except that one at a time writes. Private to storage/.
 */
#ifndef INGEST_STORAGE_FAILED_DB_H
#define INGEST_STORAGE_FAILED_DB_H

#include "storage/evidence.h"
#include "storage/manifest.h"

#include <rocksdb/c.h>

typedef enum failed_family {
    FAILED_META,       /* RocksDB's default one */
    FAILED_FIGURES,    /* number -> figures */
    FAILED_EVENTS,     /* number -> the event's bytes */
    FAILED_IDENTITIES, /* identity -> number */
    FAILED_DUE,        /* next attempt, number -> nothing */
    FAILED_FAMILIES
} failed_family;

typedef struct failed_db {
    rocksdb_t *handle;
    rocksdb_column_family_handle_t *families[FAILED_FAMILIES];
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;        /* point reads */
    rocksdb_writeoptions_t *write_sync; /* the only way to write */
    char *directory;                    /* owned; RocksDB's own */
    evidence witness;
    manifest_watch manifest; /* what of it the witness knows */
    int64_t looked_ms;
    bool opened; /* with all of it there */
} failed_db;

/* Checks the files first; `directory` is there and locked. On failure nothing is left open. */
MUST_CHECK outcome failed_db_open(failed_db *db, const char *directory, failure *why);
void failed_db_close(failed_db *db);
/* After a failed write, instead of closing: see store_db_abandon. */
void failed_db_abandon(failed_db *db);

/* Writes the batch, syncs the WAL, and notes it in the evidence. */
MUST_CHECK outcome failed_db_write(failed_db *db, rocksdb_writebatch_wi_t *batch, failure *why);

/* An iterator over one family as of one moment, which ends with it. */
typedef struct failed_scan {
    const failed_db *db;
    const rocksdb_snapshot_t *moment; /* owned */
    rocksdb_readoptions_t *read;
} failed_scan;

void failed_scan_begin(failed_scan *scan, const failed_db *db);
void failed_scan_end(failed_scan *scan);
/* Owned by the caller, who destroys it before the end of the scan. */
rocksdb_iterator_t *failed_scan_iterator(const failed_scan *scan, failed_family family);
/* ST_NOT_FOUND leaves `why` alone. With ST_OK *value is to be freed by rocksdb_free. */
MUST_CHECK outcome failed_scan_get(const failed_scan *scan, failed_family family, bytes key,
                                   char **value, size_t *len, failure *why);

#endif
