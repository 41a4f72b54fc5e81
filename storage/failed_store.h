/*
 * failed_store: the events that a consumer could not finish, on its disk (RocksDB, every write
 * synced before the call returns). One folder belongs to one process at a time.
 *
 * Threads: one at a time for all calls that change something; those that look may run beside them
 * on other threads, and each sees one consistent moment.
 * A failed write is for good (ST_IO from then on): only opening again knows what the disk has.
 * Damage that is found is ST_CORRUPT, with the number of the record where it has one.
 *
 *   DIRECTORY/LOCK  db/ (RocksDB)  evidence  torn-tail, torn-manifest (what a crash left unfinished
 *   and was cut off last)
 */
#ifndef INGEST_STORAGE_FAILED_STORE_H
#define INGEST_STORAGE_FAILED_STORE_H

#include "storage/bytes.h"
#include "storage/status.h"

typedef struct failed_store failed_store;

typedef enum failed_state {
    FAILED_WAITING = 1, /* next_attempt_ms says until when */
    FAILED_GIVEN_UP = 2,
    FAILED_HELD = 3 /* a copy for looking at: the event itself is still in Kafka */
} failed_state;

/* What a text of a record has at most: what is longer is cut, but for source and id. */
enum { FAILED_TEXT_MAX = 4096 };

/* Bytes are borrowed: from the caller when written, until the call's end when read. */
typedef struct failed_record {
    uint64_t number; /* given by the store, from 1, never again */
    failed_state state;
    bytes source, id, type, key;
    bytes operation, effect; /* where it stopped */
    uint32_t effects_done;   /* in order, of the whole event */
    uint32_t effects;
    uint32_t catalogue_crc; /* by which effects_done counts */
    uint32_t attempts;
    bytes code, reason;
    int64_t first_failed_ms, last_failed_ms;
    int64_t next_attempt_ms; /* of FAILED_WAITING; of FAILED_HELD it is the caller's note */
    bytes topic;
    int32_t partition;
    int64_t offset;
    bytes event; /* ingest.v1.Event, protobuf; or, with `opaque`, the value as it came */
    bool opaque;
} failed_record;

typedef struct failed_limits {
    uint64_t max_events;
    uint64_t max_bytes;          /* of encoded records */
    uint64_t reserve_free_bytes; /* of the volume: kept free, or RocksDB meets a full disk */
} failed_limits;

enum {
    FAILED_RESERVE_FREE = 64 << 20
}; /* for reserve_free_bytes, when nothing speaks against it */

typedef struct failed_figures {
    uint64_t events, bytes;
    uint64_t waiting, given_up, held;
    int64_t oldest_ms; /* first_failed_ms of the lowest number; 0: none */
} failed_figures;

/* Makes the folder (0700) when it is missing. ST_UNAVAILABLE: another process has it; ST_CORRUPT:
 * anything that was synced is missing or damaged; ST_PRECONDITION: written by a newer version, or
 * another kind of store. */
MUST_CHECK outcome failed_store_open(const char *directory, const failed_limits *limits,
                                     failed_store **out, failure *why);
/* What was staged and not written is dropped. NULL is fine. */
void failed_store_close(failed_store *store);

/* ---- changes: staged, then written as one synced batch ------------------------------------- */

/* Stages a new record and sets its number; one with the same source and id that is there already
 * is replaced and keeps its number. One without an id is known by topic, partition and offset.
 * ST_FULL: above the limits; ST_DISK_FULL: above the volume's; ST_TOO_LARGE: source or id.
 * Nothing is staged then. */
MUST_CHECK outcome failed_store_put(failed_store *store, failed_record *record, failure *why);
/* Stages new figures of a record: state, operation, effect, effects_done, effects, catalogue_crc,
 * attempts, code, reason, last_failed_ms, next_attempt_ms. Not held against the limits.
 * ST_NOT_FOUND: it is not there (any more). */
MUST_CHECK outcome failed_store_update(failed_store *store, const failed_record *record,
                                       failure *why);
/* Stages a deletion. ST_NOT_FOUND as above. */
MUST_CHECK outcome failed_store_remove(failed_store *store, uint64_t number, failure *why);
/* Writes and syncs what is staged; nothing staged: no I/O. */
MUST_CHECK outcome failed_store_write(failed_store *store, failure *why);

/* ---- looking -------------------------------------------------------------------------------- */

/* Calls `each` for records with a number above `after`, in order, until it returns false. Memory
 * does not grow with their count. Without events when `with_events` is false: those bytes are not
 * even read. Reading all of them tells missing ones (ST_CORRUPT). */
MUST_CHECK outcome failed_store_each(const failed_store *store, uint64_t after, bool with_events,
                                     bool (*each)(void *arg, const failed_record *record),
                                     void *arg, failure *why);
/* ST_NOT_FOUND: it is not there (any more). */
MUST_CHECK outcome failed_store_get(const failed_store *store, uint64_t number,
                                    void (*got)(void *arg, const failed_record *record), void *arg,
                                    failure *why);
/* The FAILED_WAITING record whose next_attempt_ms is the earliest, as of the last write; 0: none.
 */
MUST_CHECK outcome failed_store_next(const failed_store *store, uint64_t *number,
                                     int64_t *next_attempt_ms, failure *why);
/* As of the last write. */
void failed_store_figures(const failed_store *store, failed_figures *out);
/* The store's own number: random, made with it. A copy of its folder has the same. */
uint64_t failed_store_id(const failed_store *store);

#endif
