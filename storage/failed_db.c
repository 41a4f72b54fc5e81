/*
 * Opening RocksDB for failed events. The promise is that of the event store, and kept in the same
 * way (store_db.c says why): all writes synced, the logs checked before RocksDB sees them, no
 * resuming after an error, a witness outside of the logs. Otherwise it is to be small beside the
 * service that it lives in: one block cache, small buffers, few open files.
 *
 * What was deleted is removed from the volume by compactions, at the latest after a day.
 */
#include "storage/failed_db.h"

#include "storage/clock.h"
#include "storage/database_check.h"
#include "storage/folder.h"
#include "storage/store_db.h"

#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)
#define BLOCK_CACHE_BYTES (8 * MIB)
#define READ_AHEAD_BYTES (MIB / 4)

enum { LOOK_MS = 1000 }; /* at the MANIFEST, with a write */

static const char *const FAMILY_NAMES[FAILED_FAMILIES] = {"default", "figures", "events",
                                                          "identities", "due"};

static const char OPTIONS[] =
    "create_if_missing=true;create_missing_column_families=true;paranoid_checks=true;"
    "wal_recovery_mode=kAbsoluteConsistency;max_bgerror_resume_count=0;"
    "avoid_flush_during_recovery=false;recycle_log_file_num=0;manual_wal_flush=false;"
    "unordered_write=false;allow_concurrent_memtable_write=false;"
    "max_total_wal_size=33554432;db_write_buffer_size=16777216;write_buffer_size=8388608;"
    "target_file_size_base=16777216;max_bytes_for_level_base=67108864;"
    "max_background_jobs=2;max_open_files=128;bytes_per_sync=1048576;"
    "compression=kLZ4Compression;periodic_compaction_seconds=86400;"
    "info_log_level=WARN_LEVEL;keep_log_file_num=2;max_log_file_size=1048576;"
    "stats_dump_period_sec=0;stats_persist_period_sec=0";

static outcome make_options(failed_db *db, failure *why) {
    rocksdb_options_t *defaults = rocksdb_options_create();
    char *error = NULL;
    db->options = rocksdb_options_create();
    rocksdb_get_options_from_string(defaults, OPTIONS, db->options, &error);
    rocksdb_options_destroy(defaults);

    db->cache = rocksdb_cache_create_lru(BLOCK_CACHE_BYTES);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, db->cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_filter_policy(table,
                                                  rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_whole_key_filtering(table, 1);
    rocksdb_options_set_block_based_table_factory(db->options, table);
    rocksdb_block_based_options_destroy(table);

    db->read = rocksdb_readoptions_create();
    db->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(db->write_sync, 1);
    return store_db_outcome(error, "options of RocksDB", why);
}

static outcome open_families(failed_db *db, const char *database, failure *why) {
    const rocksdb_options_t *options[FAILED_FAMILIES];
    char *error = NULL;
    for (int i = 0; i < FAILED_FAMILIES; i++)
        options[i] = db->options;
    db->handle = rocksdb_open_column_families(db->options, database, FAILED_FAMILIES, FAMILY_NAMES,
                                              options, db->families, &error);
    if (error && strstr(error, "Column families not opened")) {
        rocksdb_free(error);
        return fail(why, ST_PRECONDITION, "data_dir",
                    "%s is no store of failed events, or one of a newer version", database);
    }
    return store_db_outcome(error, "cannot open RocksDB", why);
}

static outcome note_evidence(failed_db *db, failure *why) {
    evidence_state now = {.writes = rocksdb_get_latest_sequence_number(db->handle),
                          .manifest_number = db->manifest.noted.number,
                          .manifest_size = db->manifest.noted.size};
    return evidence_write(&db->witness, &now, why);
}

static uint64_t background_errors(const failed_db *db) {
    uint64_t errors = 0;
    return rocksdb_property_int(db->handle, "rocksdb.background-errors", &errors) == 0 ? errors : 0;
}

/* A damaged MANIFEST may look like one that a crash has torn, and RocksDB deletes the tables that
 * are not in it: so the evidence knows how long it is. */
static outcome look_at_manifest(failed_db *db, failure *why) {
    bool advanced; /* noted with the next write */
    db->looked_ms = clock_monotonic_ms();
    return manifest_look(&db->manifest, db->directory, background_errors(db), &advanced, why);
}

static outcome check_witness(const failed_db *db, const char *directory, const evidence_state *seen,
                             failure *why) {
    uint64_t writes = rocksdb_get_latest_sequence_number(db->handle);
    if (writes >= seen->writes) return ST_OK;
    return fail(why, ST_CORRUPT, "evidence", "%s: synced writes are missing: %llu of %llu are here",
                directory, (unsigned long long)writes, (unsigned long long)seen->writes);
}

outcome failed_db_open(failed_db *db, const char *directory, failure *why) {
    char database[PATH_SIZE];
    char path[PATH_SIZE];
    bool exists = false;
    bool witnessed = false;
    evidence_state seen = {0};
    database_cuts cuts;
    *db = (failed_db){.witness.file = -1};
    path_join(database, directory, "db");
    path_join(path, directory, "evidence");
    outcome result = evidence_open(&db->witness, path, &witnessed, &seen, why);
    if (result == ST_OK) result = database_exists(directory, database, witnessed, &exists, why);
    if (result == ST_OK && exists) result = database_check(directory, database, &seen, &cuts, why);
    if (result == ST_OK && !(db->directory = strdup(database)))
        result = fail(why, ST_NO_MEMORY, "", "no memory for the name of the folder");
    if (result == ST_OK) result = make_options(db, why);
    if (result == ST_OK) result = open_families(db, database, why);
    if (result == ST_OK) result = check_witness(db, directory, &seen, why);
    db->manifest.noted = manifest_now(database); /* the opening has synced it */
    /* The names first: evidence without a database looks like a database that was lost. The
     * folder's own, too, until there is evidence: it may be as new. */
    if (result == ST_OK) result = folder_sync(directory, why);
    path_join(path, directory, "..");
    if (result == ST_OK && !witnessed) result = folder_sync(path, why);
    if (result == ST_OK) result = note_evidence(db, why);
    if (result == ST_OK) result = evidence_sync(&db->witness, why);
    db->opened = result == ST_OK;
    if (result != ST_OK) failed_db_close(db);
    return result;
}

/* No job runs and no thread writes any more, and none has failed: what is here is what the next
 * opening should find. Without it the evidence is weaker, not wrong. */
static void note_end(failed_db *db) {
    if (background_errors(db) > 0) return;
    outcome result = look_at_manifest(db, NULL); /* syncs it */
    if (result == ST_OK) result = look_at_manifest(db, NULL);
    if (result == ST_OK) result = note_evidence(db, NULL);
    if (result == ST_OK) result = evidence_sync(&db->witness, NULL);
    (void)result;
}

void failed_db_close(failed_db *db) {
    if (db->handle) {
        rocksdb_cancel_all_background_work(db->handle, 1);
        if (db->opened) note_end(db);
        for (int i = 0; i < FAILED_FAMILIES; i++)
            rocksdb_column_family_handle_destroy(db->families[i]);
        rocksdb_close(db->handle);
    }
    if (db->options) rocksdb_options_destroy(db->options);
    if (db->read) rocksdb_readoptions_destroy(db->read);
    if (db->write_sync) rocksdb_writeoptions_destroy(db->write_sync);
    if (db->cache) rocksdb_cache_destroy(db->cache);
    evidence_close(&db->witness);
    free(db->directory);
    *db = (failed_db){.witness.file = -1};
}

void failed_db_abandon(failed_db *db) {
    static failed_db *volatile abandoned; /* where a leak checker finds it */
    evidence_close(&db->witness);
    failed_db *kept = malloc(sizeof *kept);
    if (kept) *kept = *db;
    abandoned = kept;
    (void)abandoned;
    *db = (failed_db){.witness.file = -1};
}

outcome failed_db_write(failed_db *db, rocksdb_writebatch_wi_t *batch, failure *why) {
    char *error = NULL;
    rocksdb_write_writebatch_wi(db->handle, db->write_sync, batch, &error);
    outcome result = store_db_outcome(error, "write to the WAL", why);
    if (result == ST_OK && clock_monotonic_ms() - db->looked_ms >= LOOK_MS)
        result = look_at_manifest(db, why);
    return result == ST_OK ? note_evidence(db, why) : result;
}

/* ---- looking -------------------------------------------------------------------------------- */

void failed_scan_begin(failed_scan *scan, const failed_db *db) {
    *scan = (failed_scan){.db = db, .read = rocksdb_readoptions_create()};
    scan->moment = rocksdb_create_snapshot(db->handle);
    rocksdb_readoptions_set_snapshot(scan->read, scan->moment);
    rocksdb_readoptions_set_fill_cache(scan->read, 0);
    rocksdb_readoptions_set_readahead_size(scan->read, READ_AHEAD_BYTES);
}

void failed_scan_end(failed_scan *scan) {
    rocksdb_readoptions_destroy(scan->read);
    rocksdb_release_snapshot(scan->db->handle, scan->moment);
}

rocksdb_iterator_t *failed_scan_iterator(const failed_scan *scan, failed_family family) {
    return rocksdb_create_iterator_cf(scan->db->handle, scan->read, scan->db->families[family]);
}

outcome failed_scan_get(const failed_scan *scan, failed_family family, bytes key, char **value,
                        size_t *len, failure *why) {
    char *error = NULL;
    *value = rocksdb_get_cf(scan->db->handle, scan->read, scan->db->families[family],
                            (const char *)key.data, key.len, len, &error);
    if (error) return store_db_outcome(error, "read", why);
    return *value ? ST_OK : ST_NOT_FOUND;
}
