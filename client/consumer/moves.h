/*
 * moves: which events of a partition have moved to a store of failed events. It stands in the
 * group's commit until that store knows: a member that was killed in between can tell then,
 * whenever it comes back, whether its event is the store's or was run to its end by another member.
 * Pure.
 *
 * It has room for MOVES_MAX. One of another store, whose member has not come back, goes for a newer
 * one; what stood below its offset is uncertain from then on.
 */
#ifndef INGEST_CLIENT_MOVES_H
#define INGEST_CLIENT_MOVES_H

#include "storage/bytes.h"
#include "storage/status.h"

enum { MOVES_MAX = 32, MOVES_BYTES_MAX = 10 + MOVES_MAX * (10 + 8) };

typedef struct moves_item {
    int64_t offset; /* of the record, or of a group's first one */
    uint64_t store; /* failed_store_id */
    bool known;     /* the store has it for its own; not encoded */
} moves_item;

typedef struct moves {
    int64_t unsure_below; /* of records before this offset nobody can tell */
    size_t count;
    moves_item items[MOVES_MAX]; /* the oldest first */
} moves;

/* False: there is no room before some of the store's are known. */
MUST_CHECK bool moves_add(moves *it, int64_t offset, uint64_t store);
bool moves_has(const moves *it, int64_t offset, uint64_t store);
/* The store knows it, on its disk after the next write. */
void moves_known(moves *it, int64_t offset, uint64_t store);
/* The write was done: what is known goes. False: nothing was. */
bool moves_drop_known(moves *it);
/* All of that store are known. */
void moves_drop_store(moves *it, uint64_t store);
void moves_unsure(moves *it, int64_t below);

/* The size; 0: there is nothing to tell. */
size_t moves_encode(const moves *it, uint8_t out[MOVES_BYTES_MAX]);
/* False, and nothing: it is no encoding. */
MUST_CHECK bool moves_decode(moves *it, bytes from);

#endif
