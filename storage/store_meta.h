/*
 * store_meta: what the meta column family holds. Keys are short texts; numbers in them are
 * big-endian. All of it is small and read once, at the opening.
 *
 *   format            u32                   store         16 bytes
 *   route/N           name                  ledger/N      six u64
 *   anchor/N          the anchor            opened/NUMBER id, then u64 per route
 *   ids               see ids_window.c
 *
 * To change anything here or in a record: raise STORE_FORMAT, and have store_recover convert.
 */
#ifndef INGEST_STORAGE_STORE_META_H
#define INGEST_STORAGE_STORE_META_H

#include "storage/store_internal.h"

#define STORE_FORMAT 1

void meta_put_identity(const store_db *db, rocksdb_writebatch_t *batch, const uuid *id);
void meta_put_route(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                    const char *name);
void meta_put_ledger(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                     const route_ledger *ledger);
void meta_put_anchor(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                     const route_anchor *anchor, uint64_t cumulative);
void meta_put_incarnation(const store_db *db, rocksdb_writebatch_t *batch,
                          const incarnation_entry *entry, uint32_t route_count);
void meta_put_ids(const store_db *db, rocksdb_writebatch_t *batch, const ids_window *ids);
void meta_delete_incarnation(const store_db *db, rocksdb_writebatch_t *batch, uint64_t number);

/*
 * Reads all of meta into the store: id, routes, ledgers, anchors, incarnations. `fresh` when there
 * is nothing at all. ST_PRECONDITION: a newer format; ST_CORRUPT: what and where.
 */
MUST_CHECK outcome meta_load(event_store *store, bool *fresh, failure *why);

#endif
