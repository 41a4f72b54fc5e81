/*
 * evidence: a witness outside the WAL of what has been synced. A small file in which the committer
 * notes, after each synced batch and before its acknowledgements, how far the store has come. When
 * recovery ends below it, acknowledged events are missing, and the store refuses to open.
 */
#ifndef INGEST_STORAGE_EVIDENCE_H
#define INGEST_STORAGE_EVIDENCE_H

#include "storage/event_store.h"

typedef struct evidence_state {
    uint64_t writes;                   /* RocksDB's sequence number: counts every write */
    uint64_t last[STORE_ROUTES_MAX];   /* last synced sequence per route */
    uint32_t buried[STORE_ROUTES_MAX]; /* moved to the dead letters ever, modulo 2^32 */
    /* RocksDB's MANIFEST: its number, and a size to which it was synced. */
    uint64_t manifest_number;
    uint64_t manifest_size;
} evidence_state;

typedef struct evidence {
    int file; /* -1: closed */
    uint64_t generation;
    bool unsynced;
} evidence;

/*
 * Opens or creates the file. `found` tells whether it held a readable state (then `state`); a
 * missing or unreadable one is not a failure, since it only means that there is no witness.
 */
MUST_CHECK outcome evidence_open(evidence *self, const char *path, bool *found,
                                 evidence_state *state, failure *why);
/* Reads it without touching it. */
void evidence_read(const char *path, bool *found, evidence_state *state);
/* Notes the state; one pwrite, no sync. */
MUST_CHECK outcome evidence_write(evidence *self, const evidence_state *state, failure *why);
/* fdatasync when something is unsynced. */
MUST_CHECK outcome evidence_sync(evidence *self, failure *why);
void evidence_close(evidence *self);

#endif
