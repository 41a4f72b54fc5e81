/*
 * Opening RocksDB. What is set here and why:
 *
 *   the promise  every write is synced and ordered (no unordered_write, no manual_wal_flush); a log
 *                that is not sound to its end is refused (wal_check.c has repaired what may be);
 *                recovery flushes what it read, so that nothing depends on pages of an older,
 *                perhaps failed, sync; a background error is never resumed from by itself.
 *                The list of logs in the MANIFEST is off: it takes their sizes from a sync that may
 *                follow a failed one, and wal_check.c knows what is missing.
 *
 *   a queue      the outbox lives in its memtable while the publisher keeps up: a large write
 *                buffer, whose settled part is dropped by range deletes when it is flushed.
 *
 *   memory       one block cache for everything, index blocks included; bounded table handles.
 */
#include "storage/store_db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

enum {
    WAL_ABSOLUTE_CONSISTENCY = 1,
    WAL_SKIP_ANY_CORRUPTED = 3,
    LOG_WARNINGS = 2,
    OPEN_FILES_MAX = 256,
    BACKGROUND_JOBS = 2,
    LEVEL_MEMTABLES = 4, /* level 0 is compacted at so many, and level 1 is as large */
};
#define BLOCK_CACHE_BYTES (32 * MIB)
#define SMALL_BUFFER_BYTES (4 * MIB)
#define IDS_BUFFER_BYTES (16 * MIB)

static const char *const FAMILY_NAMES[FAMILY_COUNT] = {"default", "outbox", "ids", "dead"};

outcome store_db_outcome(char *error, const char *doing, failure *why) {
    if (!error) return ST_OK;
    /* A file of the database that is not there is damage, too. */
    bool corrupt = strncmp(error, "Corruption", 10) == 0 || strstr(error, "No such file") ||
                   strstr(error, "does not exist") || strstr(error, "Column family not found");
    outcome code = corrupt ? ST_CORRUPT : ST_IO;
    code = fail(why, code, "", "%s: %s", doing, error);
    rocksdb_free(error);
    return code;
}

static void set_common(rocksdb_options_t *options, rocksdb_cache_t *cache, bool filter) {
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    rocksdb_block_based_options_set_format_version(table, 5);
    if (filter) {
        rocksdb_block_based_options_set_filter_policy(table,
                                                      rocksdb_filterpolicy_create_bloom_full(10));
        rocksdb_block_based_options_set_whole_key_filtering(table, 1);
    }
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_write_buffer_size(options, SMALL_BUFFER_BYTES);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_level0_file_num_compaction_trigger(options, LEVEL_MEMTABLES);
}

static void set_database(rocksdb_options_t *options, uint64_t memtable_bytes) {
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);
    rocksdb_options_set_paranoid_checks(options, 1);
    rocksdb_options_set_wal_recovery_mode(options, WAL_ABSOLUTE_CONSISTENCY);
    rocksdb_options_set_recycle_log_file_num(options, 0);
    rocksdb_options_set_manual_wal_flush(options, 0);
    rocksdb_options_set_unordered_write(options, 0);
    /* What an opening reads, and holds in memory until it is flushed: not the backlog. */
    rocksdb_options_set_max_total_wal_size(options, 4 * (memtable_bytes + IDS_BUFFER_BYTES));
    rocksdb_options_set_db_write_buffer_size(options, 2 * memtable_bytes + 2 * IDS_BUFFER_BYTES);
    /* One thread writes: nothing to run side by side. */
    rocksdb_options_set_allow_concurrent_memtable_write(options, 0);
    rocksdb_options_set_max_background_jobs(options, BACKGROUND_JOBS);
    rocksdb_options_set_max_open_files(options, OPEN_FILES_MAX);
    rocksdb_options_set_bytes_per_sync(options, MIB); /* spreads the write-back of new tables */
    rocksdb_options_set_info_log_level(options, LOG_WARNINGS);
    rocksdb_options_set_keep_log_file_num(options, 3);
    rocksdb_options_set_max_log_file_size(options, 4 * MIB);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_stats_persist_period_sec(options, 0);
}

/* What c.h has no setter for. */
static outcome set_from_string(rocksdb_options_t **options, const char *text, failure *why) {
    rocksdb_options_t *changed = rocksdb_options_create();
    char *error = NULL;
    rocksdb_get_options_from_string(*options, text, changed, &error);
    rocksdb_options_destroy(*options);
    *options = changed;
    return store_db_outcome(error, "options of RocksDB", why);
}

static outcome set_outbox(rocksdb_options_t **options, const store_options *given, failure *why) {
    size_t memtable = (size_t)given->memtable_bytes;
    rocksdb_options_set_write_buffer_size(*options, memtable);
    rocksdb_options_set_max_write_buffer_number(*options, 3);
    rocksdb_options_set_compression(*options, rocksdb_lz4_compression);
    rocksdb_options_set_target_file_size_base(*options, 2 * memtable);
    rocksdb_options_set_max_bytes_for_level_base(*options, LEVEL_MEMTABLES * memtable);
    /* A table of level 1 and below is of one route: none overlaps another there, so they move down
     * as they are, and a compaction is as large as levels 0 and 1 are. */
    return set_from_string(options,
                           "sst_partitioner_factory="
                           "{id=SstPartitionerFixedPrefixFactory;length=1}",
                           why);
}

static outcome set_ids(rocksdb_options_t **options, const store_options *given,
                       rocksdb_compactionfilter_t *filter, failure *why) {
    uint64_t buffer = given->ids_budget_bytes / 16;
    rocksdb_options_set_write_buffer_size(*options,
                                          buffer < IDS_BUFFER_BYTES ? buffer : IDS_BUFFER_BYTES);
    rocksdb_options_set_memtable_whole_key_filtering(*options, 1);
    rocksdb_options_set_memtable_prefix_bloom_size_ratio(*options, 0.1);
    /* Tables that nobody writes into any more are compacted too, so that ids expire in them. */
    char text[64];
    uint64_t period_s = given->ids_window_ms / 4000;
    (void)snprintf(text, sizeof text, "periodic_compaction_seconds=%llu",
                   (unsigned long long)(period_s < 600 ? 600 : period_s));
    outcome result = set_from_string(options, text, why);
    rocksdb_options_set_compaction_filter(*options, filter);
    return result;
}

static outcome make_options(store_db *db, const store_options *given, failure *why) {
    db->cache = rocksdb_cache_create_lru(BLOCK_CACHE_BYTES);
    for (int i = 0; i < FAMILY_COUNT; i++) {
        db->options[i] = rocksdb_options_create();
        set_common(db->options[i], db->cache, i != FAMILY_OUTBOX);
    }
    set_database(db->options[FAMILY_META], given->memtable_bytes);
    outcome result = set_from_string(&db->options[FAMILY_META],
                                     "max_bgerror_resume_count=0;"
                                     "avoid_flush_during_recovery=false",
                                     why);
    if (result == ST_OK) result = set_outbox(&db->options[FAMILY_OUTBOX], given, why);
    if (result == ST_OK) result = set_ids(&db->options[FAMILY_IDS], given, db->ids_filter, why);
    rocksdb_options_set_compression(db->options[FAMILY_DEAD], rocksdb_lz4_compression);
    db->read = rocksdb_readoptions_create();
    db->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(db->write_sync, 1);
    return result;
}

static outcome open_families(store_db *db, const char *directory, failure *why) {
    char *error = NULL;
    db->handle = rocksdb_open_column_families(
        db->options[FAMILY_META], directory, FAMILY_COUNT, FAMILY_NAMES,
        (const rocksdb_options_t *const *)db->options, db->families, &error);
    return store_db_outcome(error, "cannot open RocksDB", why);
}

outcome store_db_open(store_db *db, const char *directory, const store_options *options,
                      rocksdb_compactionfilter_t *ids_filter, bool hold_compaction, failure *why) {
    *db = (store_db){.ids_filter = ids_filter};
    outcome result = make_options(db, options, why);
    for (int i = 0; i < FAMILY_COUNT; i++)
        rocksdb_options_set_disable_auto_compactions(db->options[i], hold_compaction);
    if (result == ST_OK) result = open_families(db, directory, why);
    if (result != ST_OK) store_db_close(db);
    return result;
}

outcome store_db_open_reading(store_db *db, const char *directory, failure *why) {
    store_options defaults;
    store_options_init(&defaults);
    *db = (store_db){0};
    outcome result = make_options(db, &defaults, why);
    rocksdb_options_t *database = db->options[FAMILY_META];
    rocksdb_options_set_create_if_missing(database, 0);
    rocksdb_options_set_wal_recovery_mode(database, WAL_SKIP_ANY_CORRUPTED);
    if (result == ST_OK) {
        char *error = NULL;
        db->handle = rocksdb_open_for_read_only_column_families(
            db->options[FAMILY_META], directory, FAMILY_COUNT, FAMILY_NAMES,
            (const rocksdb_options_t *const *)db->options, db->families, 0, &error);
        result = store_db_outcome(error, "cannot read RocksDB", why);
    }
    if (result != ST_OK) store_db_close(db);
    return result;
}

outcome store_db_open_copy(store_db *db, const char *directory, failure *why) {
    store_options defaults;
    store_options_init(&defaults);
    *db = (store_db){0};
    outcome result = make_options(db, &defaults, why);
    rocksdb_options_t *database = db->options[FAMILY_META];
    rocksdb_options_set_create_if_missing(database, 0);
    rocksdb_options_set_wal_recovery_mode(database, WAL_SKIP_ANY_CORRUPTED);
    for (int i = 0; i < FAMILY_COUNT; i++)
        rocksdb_options_set_disable_auto_compactions(db->options[i], 1);
    if (result == ST_OK) result = open_families(db, directory, why);
    if (result != ST_OK) store_db_close(db);
    return result;
}

void store_db_close(store_db *db) {
    if (db->handle) {
        rocksdb_cancel_all_background_work(db->handle, 1);
        for (int i = 0; i < FAMILY_COUNT; i++)
            rocksdb_column_family_handle_destroy(db->families[i]);
        rocksdb_close(db->handle);
    }
    for (int i = 0; i < FAMILY_COUNT; i++)
        if (db->options[i]) rocksdb_options_destroy(db->options[i]);
    if (db->read) rocksdb_readoptions_destroy(db->read);
    if (db->write_sync) rocksdb_writeoptions_destroy(db->write_sync);
    if (db->cache) rocksdb_cache_destroy(db->cache);
    if (db->ids_filter) rocksdb_compactionfilter_destroy(db->ids_filter);
    *db = (store_db){0};
}

void store_db_abandon(store_db *db) {
    static store_db *volatile abandoned; /* where a leak checker finds it */
    store_db *kept = malloc(sizeof *kept);
    if (kept) *kept = *db;
    abandoned = kept;
    (void)abandoned;
    *db = (store_db){0};
}

outcome store_db_get(const store_db *db, store_family family, bytes key, char **value, size_t *len,
                     failure *why) {
    char *error = NULL;
    *value = rocksdb_get_cf(db->handle, db->read, db->families[family], (const char *)key.data,
                            key.len, len, &error);
    if (error) return store_db_outcome(error, "read", why);
    return *value ? ST_OK : ST_NOT_FOUND;
}

outcome store_db_write(const store_db *db, rocksdb_writebatch_t *batch, failure *why) {
    char *error = NULL;
    rocksdb_write(db->handle, db->write_sync, batch, &error);
    return store_db_outcome(error, "write to the WAL", why);
}

uint64_t store_db_background_errors(const store_db *db) {
    uint64_t count = 0;
    return rocksdb_property_int(db->handle, "rocksdb.background-errors", &count) == 0 ? count : 0;
}

static uint64_t family_property(const store_db *db, store_family family, const char *name) {
    uint64_t value = 0;
    (void)rocksdb_property_int_cf(db->handle, db->families[family], name, &value);
    return value;
}

uint64_t store_db_table_bytes(const store_db *db, store_family family) {
    return family_property(db, family, "rocksdb.live-sst-files-size");
}

uint64_t store_db_unflushed_bytes(const store_db *db) {
    uint64_t sum = 0;
    for (int i = 0; i < FAMILY_COUNT; i++)
        sum += family_property(db, (store_family)i, "rocksdb.cur-size-all-mem-tables");
    return sum;
}

uint64_t store_db_working_bytes(const store_db *db) {
    uint64_t sum = 0;
    const rocksdb_livefiles_t *files = rocksdb_livefiles(db->handle);
    for (int i = 0; i < rocksdb_livefiles_count(files); i++)
        if (rocksdb_livefiles_level(files, i) <= 1) sum += rocksdb_livefiles_size(files, i);
    rocksdb_livefiles_destroy(files);
    return sum;
}

outcome store_db_allow_compaction(const store_db *db, failure *why) {
    static const char *const KEY = "disable_auto_compactions";
    static const char *const VALUE = "false";
    outcome result = ST_OK;
    for (int i = 0; result == ST_OK && i < FAMILY_COUNT; i++) {
        char *error = NULL;
        rocksdb_set_options_cf(db->handle, db->families[i], 1, &KEY, &VALUE, &error);
        result = store_db_outcome(error, "allow compactions", why);
    }
    return result;
}
