/*
 * store_meta: what the meta column family holds. Keys are short texts; numbers in them are
 * big-endian. All of it is small and read once, at the opening.
 *
 *   format            u32                   store         16 bytes
 *   route/N           name                  ledger/N      six u64
 *   anchor/N          the anchor            opened/NUMBER id, then u64 per route
 *   lost/N            pairs of u64: the sequences from, to that a repair found lost
 *   ids               see ids_window.c      settled/N     see settled.c
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
void meta_put_settled(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                      const settled_marks *marks);
void meta_delete_incarnation(const store_db *db, rocksdb_writebatch_t *batch, uint64_t number);

typedef struct lost_range {
    uint64_t first;
    uint64_t last;
} lost_range;

/* Replaces what was there: all ranges of the route, ascending. ST_NO_MEMORY. */
MUST_CHECK outcome meta_put_lost(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                                 const lost_range *ranges, size_t count, failure *why);

/*
 * Reads all of meta into the store: id, routes, ledgers, anchors, incarnations. `fresh` when there
 * is nothing at all. ST_PRECONDITION: a newer format; ST_CORRUPT: what and where.
 */
MUST_CHECK outcome meta_load(event_store *store, bool *fresh, failure *why);
/* Reads one entry into the store; ST_CORRUPT: cannot be understood; ST_NO_MEMORY. For whoever has
 * to make do with what is readable; the entries have to come in the order of their keys. */
MUST_CHECK outcome meta_load_entry(event_store *store, bytes key, bytes value, uint32_t *format);
/* Adds to the route's tombstones above the position; at the end they have to be in order. */
MUST_CHECK bool meta_add_moved(route_state *route, uint64_t sequence);

#endif
