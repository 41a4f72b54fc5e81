/*
 * event_store: the outbox on RocksDB. Opens and recovers, reads, and tells how it stands. All
 * writes go through the committer (committer.h), which belongs to the store.
 *
 * Threads: every function may be called from any thread unless it says otherwise; a reader
 * belongs to one thread at a time. Nothing of RocksDB leaves this folder.
 */
#ifndef INGEST_STORAGE_EVENT_STORE_H
#define INGEST_STORAGE_EVENT_STORE_H

#include "storage/bytes.h"
#include "storage/record.h"
#include "storage/status.h"
#include "storage/uuid.h"

#define STORE_ROUTES_MAX 32
#define STORE_FINGERPRINT_SIZE 16

typedef struct event_store event_store;

typedef enum store_log_level { STORE_LOG_INFO, STORE_LOG_WARNING, STORE_LOG_ERROR } store_log_level;

typedef struct store_options {
    const char *directory;     /* created with mode 0700 when missing; locked while open */
    uint64_t ids_window_ms;    /* how long a published id is remembered */
    uint64_t ids_budget_bytes; /* on disk, for ids of published events; the window shrinks to it */
    uint64_t backlog_budget_bytes; /* pending records over all routes; above it appends are refused
                                      with ST_BACKLOG_FULL */
    uint64_t dead_budget_bytes;    /* dead letters; above it a bury is refused (ST_DEAD_FULL) */
    uint64_t
        reserve_free_bytes; /* free space of the volume that is left to others (ST_DISK_FULL) */
    uint64_t ballast_bytes; /* held on the volume to be released when an opening needs room;
                               0: none */
    uint64_t queue_max_requests; /* commit queue; above it submit answers ST_OVERLOADED */
    uint64_t queue_max_bytes;
    uint64_t memtable_bytes; /* write buffer of the outbox */
    /* A line for the log. Any thread; must not block. May be NULL. */
    void (*log)(void *arg, store_log_level level, const char *message);
    /* A WAL write or sync failed: nothing more is acknowledged, and the process must end so that
     * recovery decides what the disk has. Called once, on the committer's thread. */
    void (*fatal)(void *arg, const char *reason);
    void *arg;
} store_options;

void store_options_init(store_options *options); /* the defaults */

/*
 * Opens or creates the store: locks the folder, repairs a torn WAL tail, refuses any other damage
 * (ST_CORRUPT: what, where, and the routes' sequences concerned as far as known), checks the
 * recovered sequences against the evidence file, mints and syncs a new incarnation. Blocks;
 * time does not depend on the backlog. On failure nothing is left open.
 */
MUST_CHECK outcome store_open(const store_options *options, event_store **store, failure *why);
/*
 * Finishes what is queued, stops the committer, closes. Readers must be closed before. After a
 * failed write (fatal) only the process's end frees all: the folder cannot be opened again in it.
 */
void store_close(event_store *store);

uuid store_id(const event_store *store);          /* minted once, when the folder was made */
uuid store_incarnation(const event_store *store); /* minted at this opening */

/*
 * The number of the route called `name`, made durable on first use; a name keeps its number for
 * the store's life. ST_INVALID when there would be more than STORE_ROUTES_MAX. Blocks.
 */
MUST_CHECK outcome store_route(event_store *store, const char *name, uint32_t *route, failure *why);
/* Name of a route that was ever used here, or NULL. Valid while the store is open. */
const char *store_route_name(const event_store *store, uint32_t route);
uint32_t store_route_count(const event_store *store);

/* ---- how a route stands ---------------------------------------------------------------- */

typedef struct route_stats {
    uint64_t last_sequence; /* last synced */
    uint64_t position;      /* settled: Kafka has committed, or passed over, all up to here */
    uint64_t accepted;      /* events accepted: last_sequence less replays */
    uint64_t published;
    uint64_t pending;
    uint64_t dead;
    uint64_t purged;
    uint64_t lost;
    uint64_t backlog_bytes;
    uint64_t dead_bytes;
    int64_t oldest_accepted_ms; /* wall clock; 0 when nothing is pending */
} route_stats;

/* A consistent picture: accepted = published + pending + dead + purged + lost. One read at most. */
void store_stats(event_store *store, uint32_t route, route_stats *stats);

/* ---- reading --------------------------------------------------------------------------- */

typedef struct store_reader store_reader;

/* A reader that starts at `from` (a first live sequence or later). Close before the store. */
store_reader *store_reader_open(event_store *store, uint32_t route, uint64_t from);
/*
 * The next record, tombstones included. Only what is synced is seen. The record's bytes
 * are borrowed until the next call. ST_NOT_FOUND: no more for now. ST_CORRUPT: a gap in the
 * sequence or a bad record; the reader stays where it is.
 */
MUST_CHECK outcome store_reader_next(store_reader *reader, event_record *record, failure *why);
/* Goes back, or forward, to `from`. */
void store_reader_seek(store_reader *reader, uint64_t from);
/*
 * Lets go of the tables and memory that a reader pins, which would not be given back while it
 * pauses. The next read goes on where it was; the last record's bytes are no longer borrowed.
 */
void store_reader_rest(store_reader *reader);
void store_reader_close(store_reader *reader);

/*
 * Waits until the route's last synced sequence is above `after`, until store_wake, or until the
 * time is over; returns the last synced sequence.
 */
uint64_t store_wait(event_store *store, uint32_t route, uint64_t after, int64_t timeout_ms);
/* Makes a store_wait on the route that is under way, or the next one, return at once. */
void store_wake(event_store *store, uint32_t route);

typedef struct id_entry {
    uint32_t route;
    uint64_t sequence;
    int64_t accepted_ms; /* when it was replayed, or purged, if it was */
    bool dead;
    bool purged; /* was a dead letter, and an operator deleted it */
    uint8_t fingerprint[STORE_FINGERPRINT_SIZE];
} id_entry;

/* ST_NOT_FOUND when the identity is unknown or its window is over. Blocks for a read. */
MUST_CHECK outcome store_lookup(event_store *store, bytes source, bytes id, id_entry *entry,
                                failure *why);

typedef struct dead_letter {
    char reason[256];
    int32_t error_code; /* librdkafka's */
    uint32_t attempts;
    int64_t first_attempt_ms;
    int64_t last_attempt_ms;
    uint64_t size;       /* on disk */
    event_record record; /* borrows from memory of the letter */
    void *memory;
} dead_letter;

/* ST_NOT_FOUND: there is none, or no more. Blocks for a read. */
MUST_CHECK outcome store_dead_get(event_store *store, uint32_t route, uint64_t sequence,
                                  dead_letter *letter, failure *why);
void dead_letter_free(dead_letter *letter);

/*
 * Shows the route's dead letters to `visit`, in the order of their sequences and from `from` on,
 * until it returns false or there is none left; a letter is borrowed while visit runs. Blocks for
 * as many reads, so a caller bounds number and size.
 */
MUST_CHECK outcome store_dead_scan(event_store *store, uint32_t route, uint64_t from,
                                   bool (*visit)(void *arg, const dead_letter *letter), void *arg,
                                   failure *why);

/* ---- what the publisher must know for certain -------------------------------------------- */

/* Durable facts about a route's standing in Kafka; all zero before the first transaction. */
typedef struct route_anchor {
    bool has_published;
    char cluster_id[128];
    char positions_topic[250];
    int32_t positions_partition; /* drawn once per route; -1 until then */
    /* The hint: a settled position that was true at some time; where to start reading. */
    uint64_t sequence;
    uuid incarnation;     /* that wrote this position */
    int64_t kafka_offset; /* of its position record; -1 when none is known */
} route_anchor;

void store_anchor(event_store *store, uint32_t route, route_anchor *anchor);

/*
 * Whether incarnation `who` of this store can have published up to `sequence`. ST_OK; ST_NOT_FOUND
 * when no such incarnation is known here; ST_INVALID when it never gave that sequence out.
 */
MUST_CHECK outcome store_check_position(event_store *store, uint32_t route, const uuid *who,
                                        uint64_t sequence);

/*
 * Tells the store, in memory only, that everything up to `sequence` is settled in Kafka. The
 * publisher calls it after each commit; committer_advance makes it durable now and then.
 */
void store_set_position(event_store *store, uint32_t route, uint64_t sequence);

/* ---- figures for metrics --------------------------------------------------------------- */

typedef struct store_histogram {
    uint64_t count;
    uint64_t sum_us;
    uint64_t buckets[24]; /* bucket i counts durations below 2^i microseconds, not cumulative */
} store_histogram;

typedef struct store_figures {
    uint64_t commits;            /* synced batches */
    uint64_t committed_requests; /* over them */
    store_histogram sync;        /* duration of the synced write */
    uint64_t queued_requests;
    uint64_t queued_bytes;
    uint64_t duplicates; /* appends answered from the ids */
    uint64_t disk_free_bytes;
    int64_t ids_window_ms; /* in force */
    uint64_t ids_bytes;    /* their tables */
} store_figures;

void store_figures_get(event_store *store, store_figures *figures);

#endif
