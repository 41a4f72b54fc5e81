/*
 * store_db: RocksDB as this store wants it: four column families and the options that the promise
 * and a queue need. Every function blocks; any thread, except that writes are the committer's.
 */
#ifndef INGEST_STORAGE_STORE_DB_H
#define INGEST_STORAGE_STORE_DB_H

#include "storage/event_store.h"

#include <rocksdb/c.h>

typedef enum store_family {
    FAMILY_META,   /* RocksDB's default one */
    FAMILY_OUTBOX, /* route, sequence -> record */
    FAMILY_IDS,    /* source, id -> id_entry */
    FAMILY_DEAD,   /* route, sequence -> dead letter */
    FAMILY_COUNT
} store_family;

typedef struct store_db {
    rocksdb_t *handle;
    rocksdb_column_family_handle_t *families[FAMILY_COUNT];
    rocksdb_options_t *options[FAMILY_COUNT];
    rocksdb_compactionfilter_t *ids_filter; /* owned */
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;        /* point reads */
    rocksdb_writeoptions_t *write_sync; /* the only way to write */
} store_db;

/*
 * Takes over `ids_filter`, also when it fails. On failure nothing is left open. `hold_compaction`:
 * none begins before store_db_allow_compaction; on a full volume they would take the room that
 * logs and flushes need.
 */
MUST_CHECK outcome store_db_open(store_db *db, const char *directory, const store_options *options,
                                 rocksdb_compactionfilter_t *ids_filter, bool hold_compaction,
                                 failure *why);
/*
 * Opens for reading alone and changes nothing, not even a log of RocksDB's own. A damaged WAL or
 * table opens too: what of it cannot be read is missing, or an error to whoever reads it.
 */
MUST_CHECK outcome store_db_open_reading(store_db *db, const char *directory, failure *why);
/* Opens a copy that may be changed and thrown away, as leniently as RocksDB can: what of the WALs
 * is readable is replayed. */
MUST_CHECK outcome store_db_open_copy(store_db *db, const char *directory, failure *why);
void store_db_close(store_db *db);
/*
 * After a failed write, instead of closing: leaves RocksDB as it is until the process ends. A close
 * would touch the log file again; a RocksDB built with its assertions, as Debian's is, aborts
 * there.
 */
void store_db_abandon(store_db *db);

/* Takes RocksDB's error string: ST_OK for NULL, otherwise frees it and fills `why`. */
MUST_CHECK outcome store_db_outcome(char *error, const char *doing, failure *why);

/* ST_NOT_FOUND leaves `why` alone. With ST_OK *value is to be freed by rocksdb_free. */
MUST_CHECK outcome store_db_get(const store_db *db, store_family family, bytes key, char **value,
                                size_t *len, failure *why);
/* Writes the batch and syncs the WAL. */
MUST_CHECK outcome store_db_write(const store_db *db, rocksdb_writebatch_t *batch, failure *why);
/* Background errors so far; a failed flush or compaction shows only here. */
uint64_t store_db_background_errors(const store_db *db);
/* Tables of the family. */
uint64_t store_db_table_bytes(const store_db *db, store_family family);
/* What RocksDB holds in memory: it will be on the volume twice, in a table and until its log goes.
 */
uint64_t store_db_unflushed_bytes(const store_db *db);
/* Free space that a compaction may need for a while, as the tables are now. */
uint64_t store_db_working_bytes(const store_db *db);
/*
 * Lets compactions begin after an opening that held them back. There is no way back: it writes a
 * file, and a RocksDB built with its assertions aborts when the volume has no room for it.
 */
MUST_CHECK outcome store_db_allow_compaction(const store_db *db, failure *why);

static inline void batch_put(const store_db *db, rocksdb_writebatch_t *batch, store_family family,
                             bytes key, bytes value) {
    rocksdb_writebatch_put_cf(batch, db->families[family], (const char *)key.data, key.len,
                              (const char *)value.data, value.len);
}

/* ---- keys of outbox and dead --------------------------------------------------------- */

#define EVENT_KEY_SIZE 9

static inline bytes event_key(uint8_t key[EVENT_KEY_SIZE], uint32_t route, uint64_t sequence) {
    key[0] = (uint8_t)route;
    for (int i = 0; i < 8; i++)
        key[1 + i] = (uint8_t)(sequence >> (56 - 8 * i));
    return bytes_of(key, EVENT_KEY_SIZE);
}

#endif
