/*
 * group: what one group commit writes. Events, and moves of dead letters, are staged into its
 * RocksDB batch in their order, each with its answer ready for when the batch is synced.
 *
 * The committer's thread alone. Fails by request: the result of one that cannot be staged says why,
 * and nothing of it is in the batch.
 */
#ifndef INGEST_STORAGE_GROUP_H
#define INGEST_STORAGE_GROUP_H

#include "storage/idempotency.h"

typedef struct group {
    event_store *store;
    rocksdb_writebatch_t *batch; /* owned; others may put into it too */
    uint32_t touched;            /* routes with a changed `staged`, as bits */
    int64_t now_ms;              /* wall clock of the group */
    uint64_t backlog_bytes;      /* of all routes, this group included */
    batch_ids ids;
    uint32_t requests_max;
    uint8_t *scratch; /* one encoded record, or id key; owned */
    size_t scratch_size;
    int64_t disk_checked_ms;   /* monotonic */
    uint64_t unflushed_bytes;  /* at that time */
    uint64_t unmeasured_bytes; /* appended since */
} group;

/* False: no memory; group_fini is due all the same. */
MUST_CHECK bool group_init(group *self, event_store *store, uint32_t requests_max);
void group_fini(group *self);
/* Forgets the last one. `requests`: about as many will come; at most requests_max may. */
void group_begin(group *self, uint64_t requests);
void group_append(group *self, append_request *request);
/* To be called before the appends: one with the id of a replay has to find it replayed. */
void group_move(group *self, letter_request *request);

#endif
