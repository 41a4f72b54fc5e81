/*
 * committer: group commit. One thread takes all requests that wait, makes one RocksDB batch of
 * them, writes it with one sync, and then completes each. Sequence numbers are given here, inside
 * the batch that is synced, and a record becomes visible to readers only after the sync.
 *
 * Fails by stopping: when a write or sync fails no request of that batch or any later one is
 * completed, and store_options.fatal is called.
 */
#ifndef INGEST_STORAGE_COMMITTER_H
#define INGEST_STORAGE_COMMITTER_H

#include "storage/event_store.h"

typedef struct append_request append_request;

/* One event to append. Owned by the caller, untouched by it from submit until done(). */
struct append_request {
    append_request *next; /* the committer's while submitted; before: links a list */
    size_t encoded_size;  /* the committer's */
    /* in */
    uint32_t route;
    event_record record;
    bool remember; /* false for an id made by the server: neither looked up nor stored */
    uint8_t fingerprint[STORE_FINGERPRINT_SIZE];
    /* out */
    /* ST_OK; ST_ID_CONFLICT, and sequence and route are those of the event that has the id;
     * ST_BACKLOG_FULL, ST_DISK_FULL; ST_CORRUPT, ST_IO: the id could not be read; ST_NO_MEMORY */
    outcome result;
    bool duplicate;    /* with ST_OK: known already; sequence and route are the first one's */
    bool dead;         /* with duplicate: it is a dead letter by now */
    bool purged;       /* with duplicate: it was one, and was purged */
    uint64_t sequence; /* with ST_OK, and with ST_ID_CONFLICT */
    /* Called once, on the committer's thread; must not block. May free the request. */
    void (*done)(append_request *request);
};

/*
 * Queues a list of requests, linked by `next`, in their order. Never blocks. ST_OVERLOADED,
 * ST_STOPPING, ST_UNAVAILABLE (a write failed) or ST_INVALID (no such route): none was taken and
 * done() will not be called.
 */
MUST_CHECK outcome committer_submit(event_store *store, append_request *list);

/* ---- an operator's writes: dead letters leave -------------------------------------------------
 */

typedef enum letter_move {
    LETTER_REPLAY, /* to the end of the outbox: a new sequence, the same event and id */
    LETTER_PURGE,  /* away; the id is remembered for its window, so that a retry is not a new event
                    */
} letter_move;

typedef struct letter_request letter_request;

/*
 * One dead letter to move, in one synced batch: out of `dead`, its id entry, the ledger, and with
 * LETTER_REPLAY the append. Owned by the caller, untouched by it from submit until done().
 */
struct letter_request {
    letter_request *next;  /* the committer's while submitted; before: links a list */
    append_request append; /* the committer's: a replay is an append like any other */
    void *memory;          /* the committer's: the letter, */
    uint64_t size;         /*   and what it takes on disk */
    /* in */
    letter_move move;
    uint32_t route;
    uint64_t sequence;
    /* out */
    /* ST_OK; ST_NOT_FOUND: no such letter, or no more, as when this was asked before;
     * ST_PRECONDITION: Kafka has not settled its sequence yet; ST_BACKLOG_FULL, ST_DISK_FULL: no
     * room to replay; ST_CORRUPT, ST_IO: it could not be read; ST_NO_MEMORY */
    outcome result;
    uint64_t new_sequence; /* LETTER_REPLAY with ST_OK */
    /* Called once, on the committer's thread; must not block. May free the request. */
    void (*done)(letter_request *request);
};

/* As committer_submit. In the order of the list, but before the appends of the same batch. */
MUST_CHECK outcome committer_move_letters(event_store *store, letter_request *list);

/* ---- the publisher's writes: block until synced; each rides in a batch with the appends ------ */

/* Stores the anchor as it is, `sequence` included when it is above the present one. */
MUST_CHECK outcome committer_set_anchor(event_store *store, uint32_t route,
                                        const route_anchor *anchor, failure *why);
/*
 * The hint moves to `sequence` (already settled), and the records up to there are deleted, by
 * range and lazily. Does not wait for the sync.
 */
void committer_advance(event_store *store, uint32_t route, uint64_t sequence,
                       const uuid *incarnation, int64_t kafka_offset);

typedef struct bury_reason {
    const char *reason;
    int32_t error_code;
    uint32_t attempts;
    int64_t first_attempt_ms;
    int64_t last_attempt_ms;
} bury_reason;

/*
 * Moves the event to the dead letters in one synced batch: put there, RECORD_MOVED in the outbox,
 * mark the id, count. To be called before any transaction passes its sequence. ST_DEAD_FULL
 * when the budget for dead letters is spent: the route has to wait. Burying twice is ST_OK.
 */
MUST_CHECK outcome committer_bury(event_store *store, uint32_t route, uint64_t sequence,
                                  const bury_reason *reason, failure *why);

#endif
