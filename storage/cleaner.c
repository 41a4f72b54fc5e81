/*
 * Once a second: drop, tidy, restore. Blocks on RocksDB and on the volume, which is why it is a
 * thread. Nothing depends on its being done: a store without it is correct, and too large.
 */
#include "storage/cleaner.h"

#include "storage/clock.h"

#include <stdlib.h>

#define MIB ((uint64_t)1 << 20)

/* Whole tables are looked for after so much more is settled. */
#define DROP_BYTES (16 * MIB)
/* After a drain: no more than this is left to publish, at least that was settled since the last
 * time, and not too often. */
#define TIDY_BACKLOG_BYTES MIB
#define TIDY_BYTES (16 * MIB)
/* Besides what compactions need, before those that the opening held back are allowed. */
#define SPARE_BYTES (32 * MIB)

enum {
    TICK_MS = 1000,
    TIDY_EVERY_MS = 20000,
    IDS_PAUSES = 3, /* a compaction of ids is followed by so many times its duration without one */
    IDS_IN_VAIN_MS = 600000,
};

struct cleaner {
    event_store *store;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping; /* under the lock */
    /* the thread's: */
    uint64_t dropped_bytes[STORE_ROUTES_MAX]; /* settled_part.bytes at the last time */
    uint64_t tidied_bytes;                    /* likewise, over all routes */
    int64_t tidied_ms;                        /* monotonic */
    int64_t ids_wait_ms;                      /* monotonic: no compaction of ids before */
};

/* What of a route is settled for certain: durably, so that no recovery needs it. */
typedef struct settled_part {
    uint64_t sequence;      /* up to here */
    uint64_t bytes;         /* of its records, ever */
    uint64_t pending_bytes; /* behind it */
} settled_part;

static settled_part settled_of(route_state *route) {
    (void)pthread_mutex_lock(&route->lock);
    const route_durable *at = &route->synced;
    settled_part part = {.sequence = at->anchor.sequence,
                         .bytes = at->anchor_cumulative,
                         .pending_bytes = at->last_cumulative - at->anchor_cumulative};
    (void)pthread_mutex_unlock(&route->lock);
    return part;
}

static void warn(const event_store *store, char *error, const char *doing) {
    failure why;
    if (store_db_outcome(error, doing, &why) != ST_OK && !store->failed)
        store_log(store, STORE_LOG_WARNING, "%s", why.reason);
}

/* Level 0 is left out by RocksDB, and older values may show again: nobody reads up to the hint. */
static void drop_tables(cleaner *self, uint32_t number) {
    const store_db *db = &self->store->db;
    settled_part part = settled_of(&self->store->routes[number]);
    if (part.bytes - self->dropped_bytes[number] < DROP_BYTES) return;
    self->dropped_bytes[number] = part.bytes;
    uint8_t first[EVENT_KEY_SIZE];
    uint8_t last[EVENT_KEY_SIZE];
    bytes from = event_key(first, number, 0);
    bytes to = event_key(last, number, part.sequence);
    char *error = NULL;
    rocksdb_delete_file_in_range_cf(db->handle, db->families[FAMILY_OUTBOX],
                                    (const char *)from.data, from.len, (const char *)to.data,
                                    to.len, &error);
    warn(self->store, error, "drop settled tables");
}

/* An old log lives as long as any family has something in memory that it holds. */
static void flush_all(const event_store *store) {
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(options, 1);
    for (int i = 0; i < FAMILY_COUNT && !store->failed; i++) {
        char *error = NULL;
        rocksdb_flush_cf(store->db.handle, options, store->db.families[i], &error);
        warn(store, error, "flush");
    }
    rocksdb_flushoptions_destroy(options);
}

/* From `from` to `to`; two empty ones stand for all. Automatic compactions go on meanwhile. */
static void compact(const event_store *store, store_family family, bytes from, bytes to) {
    rocksdb_compactoptions_t *options = rocksdb_compactoptions_create();
    rocksdb_compactoptions_set_exclusive_manual_compaction(options, 0);
    rocksdb_compact_range_cf_opt(store->db.handle, store->db.families[family], options,
                                 (const char *)from.data, from.len, (const char *)to.data, to.len);
    rocksdb_compactoptions_destroy(options);
}

/* What drop_tables cannot: tables of level 0, and those that hold a little that lives. */
static void compact_settled(event_store *store, uint32_t number) {
    uint8_t first[EVENT_KEY_SIZE];
    uint8_t last[EVENT_KEY_SIZE];
    compact(store, FAMILY_OUTBOX, event_key(first, number, 0),
            event_key(last, number, settled_of(&store->routes[number]).sequence));
}

/* Ids whose window is over go when they are half as much as those that count: see ids_window.c. A
 * compaction may find that most belong to pending events; so it has to wait some time for the next
 * one. */
static void expire_ids(cleaner *self) {
    event_store *store = self->store;
    uint64_t remembered = store->ids.remembered_bytes;
    uint64_t stored = store_db_table_bytes(&store->db, FAMILY_IDS);
    int64_t began_ms = clock_monotonic_ms();
    if (stored < remembered + remembered / 2 + store->options.ids_budget_bytes / 32 ||
        store->compaction_held || began_ms < self->ids_wait_ms)
        return;
    compact(store, FAMILY_IDS, bytes_of(NULL, 0), bytes_of(NULL, 0));
    int64_t now_ms = clock_monotonic_ms();
    self->ids_wait_ms = now_ms + IDS_PAUSES * (now_ms - began_ms);
    bool in_vain = store_db_table_bytes(&store->db, FAMILY_IDS) > stored - stored / 8;
    if (in_vain) self->ids_wait_ms += IDS_IN_VAIN_MS;
}

static void tidy(cleaner *self) {
    event_store *store = self->store;
    uint64_t settled = 0;
    uint64_t backlog = 0;
    for (uint32_t i = 0; i < store_route_count(store); i++) {
        settled_part part = settled_of(&store->routes[i]);
        settled += part.bytes;
        backlog += part.pending_bytes;
    }
    int64_t now_ms = clock_monotonic_ms();
    if (backlog > TIDY_BACKLOG_BYTES || settled - self->tidied_bytes < TIDY_BYTES ||
        now_ms - self->tidied_ms < TIDY_EVERY_MS)
        return;
    flush_all(store);
    for (uint32_t i = 0; i < store_route_count(store); i++)
        compact_settled(store, i);
    self->tidied_bytes = settled;
    self->tidied_ms = clock_monotonic_ms();
}

static void allow_compaction(event_store *store) {
    store->working_bytes = store_db_working_bytes(&store->db);
    if (!store->compaction_held || store->disk_free_bytes < store->working_bytes + SPARE_BYTES)
        return;
    failure why;
    if (store_db_allow_compaction(&store->db, &why) == ST_OK)
        store->compaction_held = false;
    else if (!store->failed)
        store_log(store, STORE_LOG_WARNING, "%s", why.reason);
}

/* New events wait for it: see has_room in committer.c. */
static void restore_ballast(event_store *store) {
    uint64_t others = store->options.reserve_free_bytes + store->working_bytes;
    uint64_t free_bytes = store->disk_free_bytes;
    uint64_t spare = free_bytes > others ? free_bytes - others : 0;
    if (ballast_missing(&store->ballast) && !ballast_restore(&store->ballast, spare))
        store_log(store, STORE_LOG_WARNING,
                  "the volume cannot preallocate: there is no ballast, and a full volume may keep "
                  "the store from opening");
}

static bool wait_for_tick(cleaner *self) {
    int64_t at_us = clock_monotonic_us() + TICK_MS * 1000;
    struct timespec until = {.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000};
    bool late = false;
    (void)pthread_mutex_lock(&self->lock);
    while (!self->stopping && !late)
        late = pthread_cond_timedwait(&self->changed, &self->lock, &until) != 0;
    bool go_on = !self->stopping;
    (void)pthread_mutex_unlock(&self->lock);
    return go_on;
}

static void *run(void *arg) {
    cleaner *self = arg;
    event_store *store = self->store;
    (void)pthread_setname_np(pthread_self(), "cleaner");
    do {
        allow_compaction(store);
        restore_ballast(store);
        for (uint32_t i = 0; i < store_route_count(store); i++)
            drop_tables(self, i);
        tidy(self);
        expire_ids(self);
    } while (wait_for_tick(self) && !store->failed);
    return NULL;
}

static void free_cleaner(cleaner *self) {
    (void)pthread_mutex_destroy(&self->lock);
    (void)pthread_cond_destroy(&self->changed);
    free(self);
}

outcome cleaner_start(event_store *store, failure *why) {
    cleaner *self = calloc(1, sizeof *self);
    if (!self) return fail(why, ST_NO_MEMORY, "", "no memory for the cleaner");
    self->store = store;
    restore_ballast(store); /* before the first event */
    self->tidied_ms = clock_monotonic_ms() - TIDY_EVERY_MS;
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)pthread_cond_init(&self->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    if (pthread_create(&self->thread, NULL, run, self) != 0) {
        free_cleaner(self);
        return fail(why, ST_NO_MEMORY, "", "cannot start the cleaner");
    }
    store->cleaner = self;
    return ST_OK;
}

void cleaner_stop(event_store *store) {
    cleaner *self = store->cleaner;
    if (!self) return;
    (void)pthread_mutex_lock(&self->lock);
    self->stopping = true;
    (void)pthread_cond_signal(&self->changed);
    (void)pthread_mutex_unlock(&self->lock);
    rocksdb_disable_manual_compaction(store->db.handle);
    (void)pthread_join(self->thread, NULL);
    free_cleaner(self);
    store->cleaner = NULL;
}
