/*
 * idempotency: the identities (source, id) that the store remembers, and those of one batch.
 *
 * An entry counts while its event is pending or dead, and after that until its window is over.
 * There is no second index by time: whoever reads an entry judges it, and a compaction filter
 * judges in the same way and drops what no longer counts.
 */
#ifndef INGEST_STORAGE_IDEMPOTENCY_H
#define INGEST_STORAGE_IDEMPOTENCY_H

#include "storage/store_internal.h"

#define ID_VALUE_SIZE (STORE_FINGERPRINT_SIZE + 1 + 1 + 8 + 8)

/* The key is exact: varint length of the source, source, id. */
size_t id_key_size(bytes source, bytes id);
bytes id_key_put(uint8_t *out, bytes source, bytes id);
void id_value_put(uint8_t out[ID_VALUE_SIZE], const id_entry *entry);
MUST_CHECK bool id_value_get(bytes value, id_entry *entry);

/* Whether the entry still counts. Reads atomics only: any thread. */
bool id_entry_counts(const event_store *store, const id_entry *entry, int64_t now_ms);
/* ST_NOT_FOUND: unknown, or counts no longer. */
MUST_CHECK outcome ids_get(const event_store *store, bytes key, int64_t now_ms, id_entry *entry,
                           failure *why);
rocksdb_compactionfilter_t *ids_filter_create(event_store *store);

/* ---- the identities of the batch that is being built ------------------------------------- */

typedef struct batch_ids {
    struct batch_slot *slots; /* owned; a power of two */
    uint32_t capacity;
    uint32_t mask;  /* of the part in use for this batch */
    uint32_t stamp; /* slots with another one are empty */
    uint64_t seed;  /* secret, so that callers cannot choose ids that collide */
} batch_ids;

MUST_CHECK bool batch_ids_init(batch_ids *self, uint32_t requests_max);
void batch_ids_fini(batch_ids *self);
/* Forgets all; room for `requests`. */
void batch_ids_begin(batch_ids *self, uint32_t requests);
/* The request that was entered with the same identity, or NULL. */
append_request *batch_ids_find(const batch_ids *self, const append_request *request);
/* To be called only when there is none yet. */
void batch_ids_enter(batch_ids *self, append_request *request);

#endif
