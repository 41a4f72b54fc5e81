/*
 * store_internal: the store's state, shared by the files of this folder and nobody else.
 *
 * Who may touch what: `staged` and the rest of the committer's working set belong to its thread;
 * `synced` and everything else of a route is under the route's lock; the atomics may be read by
 * anyone. After each synced batch the committer copies `staged` to `synced`. Never hold two locks.
 */
#ifndef INGEST_STORAGE_STORE_INTERNAL_H
#define INGEST_STORAGE_STORE_INTERNAL_H

#include "storage/ballast.h"
#include "storage/committer.h"
#include "storage/evidence.h"
#include "storage/ids_window.h"
#include "storage/manifest.h"
#include "storage/settled.h"
#include "storage/store_db.h"

#include <pthread.h>
#include <stdatomic.h>

#define ROUTE_NAME_SIZE 64

/* Below the store's folder: where a repair works, and the file that says that its result is
 * complete and has to be put in place before anything else. */
#define SALVAGE_FOLDER "salvage"
#define SALVAGE_READY SALVAGE_FOLDER "/ready"

/* What left the outbox otherwise than by being published. Durable in meta, put there by the batch
 * that moves the event. */
typedef struct route_ledger {
    uint64_t dead; /* dead letters now */
    uint64_t dead_bytes;
    uint64_t buried; /* moved to the dead letters ever; dead + replayed + what was purged there */
    uint64_t purged;
    uint64_t lost;
    uint64_t replayed;
} route_ledger;

/* What a synced batch changes of a route. */
typedef struct route_durable {
    uint64_t last;            /* sequence given out last */
    uint64_t last_cumulative; /* cumulative_bytes of that record */
    route_ledger ledger;
    route_anchor anchor;
    uint64_t anchor_cumulative; /* cumulative_bytes at anchor.sequence */
} route_durable;

typedef struct route_state {
    char name[ROUTE_NAME_SIZE]; /* constant once the route is counted */
    _Atomic uint64_t visible;   /* = synced.last: readers see up to here */
    _Atomic uint64_t position;  /* settled */
    _Atomic uint64_t hint;      /* = synced.anchor.sequence: nothing up to here is read */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* visible rose, or woken */
    route_durable synced;
    uint64_t position_cumulative;
    uint64_t *moved; /* sequences of tombstones above the position, ascending; owned */
    size_t moved_count;
    size_t moved_capacity;
    uint32_t waiters;
    bool woken;
    bool advance_wanted;        /* committer_advance asked for: */
    uint64_t wanted_sequence;   /*   the settled position to make durable */
    uint64_t wanted_cumulative; /*   cumulative_bytes there */
    uuid wanted_incarnation;
    int64_t wanted_offset;

    _Atomic uint64_t dead_from; /* no dead letter is below: a scan starts here, behind what left */

    pthread_mutex_t bury_lock; /* one bury at a time; held by the caller, never by the committer */

    /* the committer's alone */
    route_durable staged;
    uint64_t deleted_to;         /* range deletes have covered up to here since the opening */
    uint64_t deleted_cumulative; /* cumulative_bytes there */
    settled_marks settled;
} route_state;

/* An opening of the store: which sequences earlier ones had given out by then. */
typedef struct incarnation_entry {
    uint64_t number;
    uuid id;
    uint64_t last_at_open[STORE_ROUTES_MAX];
} incarnation_entry;

typedef struct atomic_histogram {
    _Atomic uint64_t count;
    _Atomic uint64_t sum_us;
    _Atomic uint64_t buckets[24];
} atomic_histogram;

typedef struct committer committer;
typedef struct cleaner cleaner;

struct event_store {
    store_options options;
    char *directory; /* owned; options.directory points to it */
    int lock_file;   /* flock held while open */
    store_db db;
    evidence witness;        /* the committer's, once it runs; so are */
    manifest_watch manifest; /* what of it the witness knows */
    ballast ballast;         /* the cleaner's, once it runs */
    bool compaction_held;    /* likewise: since the opening, for want of room */
    uuid id;
    incarnation_entry *incarnations; /* ascending; the last one is ours; constant while open */
    size_t incarnation_count;

    pthread_mutex_t routes_lock; /* makes store_route one at a time; not for reading */
    _Atomic uint32_t route_count;
    route_state routes[STORE_ROUTES_MAX];

    ids_window ids;
    _Atomic uint64_t disk_free_bytes;
    _Atomic uint64_t working_bytes; /* of it, what compactions may need */
    _Atomic uint64_t commits;
    _Atomic uint64_t committed_requests;
    _Atomic uint64_t duplicates;
    atomic_histogram sync_time;
    _Atomic bool failed; /* a write failed: nothing is written any more */
    committer *committer;
    cleaner *cleaner;
};

PRINTF_LIKE(3, 4)
void store_log(const event_store *store, store_log_level level, const char *format, ...);

/* ---- recovery.c ------------------------------------------------------------------------ */

/* Checks and reads what the folder has; fills the store up to a running committer. */
MUST_CHECK outcome store_recover(event_store *store, failure *why);

/* ---- committer.c ------------------------------------------------------------------------- */

/* After a sync: what `staged` has is noted in the evidence. */
MUST_CHECK outcome store_note_evidence(event_store *store, failure *why);
MUST_CHECK outcome committer_start(event_store *store, failure *why);
/* Finishes what is queued, joins the thread, frees. */
void committer_stop(event_store *store);
void committer_figures(const event_store *store, uint64_t *requests, uint64_t *bytes);

typedef enum command_kind {
    COMMAND_ROUTE,
    COMMAND_ANCHOR,
    COMMAND_BURY,
    COMMAND_RESTORE
} command_kind;

/* A write of another thread that waits for it. All bytes are prepared by that thread. */
typedef struct command command;
struct command {
    command *next;
    command_kind kind;
    uint32_t route;
    uint64_t sequence;   /* BURY */
    uint64_t cumulative; /* ANCHOR: cumulative_bytes at anchor->sequence */
    const route_anchor *anchor;
    const char *name;       /* ROUTE */
    bytes letter;           /* BURY: value for dead */
    bytes tombstone;        /* BURY: value for outbox */
    bytes id_key, id_value; /* BURY: id entry marked dead; empty when the id is not remembered */
    const uuid *id;         /* RESTORE: of the store, from now on */
    outcome result;
    bool finished;
};

/* Hands the command over and waits until it is synced or refused: ST_OK, what staging refused, or
 * ST_STOPPING or ST_UNAVAILABLE. */
MUST_CHECK outcome committer_execute(event_store *store, command *request);

/* ---- commands.c: what a batch is made of; the committer's thread --------------------------- */

outcome stage_command(event_store *store, rocksdb_writebatch_t *batch, const command *request);
/* After the sync, under the route's lock. */
void apply_command(route_state *route, const command *request);
/* Stages wanted advances that are worth it, or all; returns the routes concerned as bits. */
uint32_t stage_advances(event_store *store, rocksdb_writebatch_t *batch, bool all);

/* ---- dead_letters.c: a letter leaves; the committer's thread ------------------------------- */

/* Reads and checks: fills append with the event as it is to be appended, and memory, which that
 * borrows from and the caller frees. */
outcome letter_load(event_store *store, letter_request *request);
/* Stages that it leaves; the id entry and, for a replay, the append have to follow. */
void stage_letter(event_store *store, rocksdb_writebatch_t *batch, const letter_request *request);

/* ---- dead_letters.c ------------------------------------------------------------------------ */

/* The letter borrows from `value`. ST_CORRUPT. */
MUST_CHECK outcome dead_letter_decode(uint64_t sequence, bytes value, dead_letter *letter,
                                      failure *why);

/* ---- event_store.c ------------------------------------------------------------------------- */

/* A store with nothing open, and its end: frees all, the lock last. NULL: no memory. */
event_store *store_new(const store_options *options);
void store_free(event_store *store);
bool store_has_route(const event_store *store, uint32_t route);
void store_measure_disk(event_store *store); /* brings disk_free_bytes up to date */
/* cumulative_bytes of the record, or of the hint. ST_NOT_FOUND when neither. */
MUST_CHECK outcome store_cumulative(event_store *store, uint32_t route, uint64_t sequence,
                                    uint64_t *cumulative, failure *why);

#endif
