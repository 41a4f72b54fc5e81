/*
 * The committer: one thread that turns all that waits into one synced write, over and over.
 *
 *   submit --queue--> take -> stage -> write and sync -> publish -> evidence -> done()
 *
 * Invariants, each relied on by recovery or by the publisher:
 *   1. only this thread writes to RocksDB, always with sync: at most one WAL record is unsynced;
 *   2. appends are staged in the order of their submits, and completed in that order; so are the
 *      moves of dead letters, before the appends of their batch;
 *   3. sequences are given while staging, dense per route, and seen by readers only after the sync;
 *   4. done() is called only after the sync of the batch and the note in the evidence file;
 *   5. after the first failed write none of this happens any more, and the fatal hook has been
 *      called once. What waits is never answered: only recovery knows what the disk has.
 */
#include "storage/clock.h"
#include "storage/folder.h"
#include "storage/group.h"
#include "storage/store_meta.h"

#include <stdlib.h>

enum {
    BATCH_REQUESTS_MAX = 16384,
    BATCH_LETTERS_MAX = 256,
    BATCH_BYTES_MAX = 8 << 20, /* bounds what one sync has to write, and so its latency */
    TICK_MS = 1000,            /* of the upkeep when nothing else happens */
};

struct committer {
    event_store *store;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t work;     /* the committer waits */
    pthread_cond_t finished; /* commands wait */
    /* under the lock */
    append_request *head;
    append_request **tail;
    letter_request *letters;
    letter_request **letters_tail;
    command *commands;
    command **commands_tail;
    bool sleeping;
    bool stopping;
    bool failed;

    /* From submit to done(); bound the queue. */
    _Atomic uint64_t queued_requests;
    _Atomic uint64_t queued_bytes;

    /* the committer's thread */
    append_request *waiting; /* taken, not yet in a batch */
    letter_request *waiting_letters;
    letter_request *batch_letters; /* of the present batch, in order */
    command *batch_commands;       /* of the present batch */
    append_request **requests;     /* of the present batch, in order; owned */
    uint32_t request_count;
    group group;       /* what they are staged into */
    int64_t upkeep_ms; /* monotonic */
    uint64_t background_errors;
};

/* ---- handing over: any thread ------------------------------------------------------------ */

static void wake(committer *self) {
    if (self->sleeping) (void)pthread_cond_signal(&self->work);
}

/* Reserves room in the queue for what is about to be submitted. */
static bool reserve(committer *self, uint64_t requests, uint64_t size) {
    const store_options *limit = &self->store->options;
    uint64_t before = atomic_fetch_add(&self->queued_requests, requests);
    uint64_t before_bytes = atomic_fetch_add(&self->queued_bytes, size);
    if (before + requests <= limit->queue_max_requests &&
        before_bytes + size <= limit->queue_max_bytes)
        return true;
    atomic_fetch_sub(&self->queued_requests, requests);
    atomic_fetch_sub(&self->queued_bytes, size);
    return false;
}

static void release(committer *self, uint64_t requests, uint64_t size) {
    atomic_fetch_sub(&self->queued_requests, requests);
    atomic_fetch_sub(&self->queued_bytes, size);
}

static outcome enqueue(committer *self, append_request *list, append_request **tail) {
    outcome result = ST_OK;
    (void)pthread_mutex_lock(&self->lock);
    if (self->failed) {
        result = ST_UNAVAILABLE;
    } else if (self->stopping) {
        result = ST_STOPPING;
    } else {
        *self->tail = list;
        self->tail = tail;
        wake(self);
    }
    (void)pthread_mutex_unlock(&self->lock);
    return result;
}

outcome committer_submit(event_store *store, append_request *list) {
    uint32_t routes = store_route_count(store);
    uint64_t count = 0;
    uint64_t size = 0;
    append_request **tail = &list;
    for (; *tail; tail = &(*tail)->next) {
        append_request *request = *tail;
        if (request->route >= routes) return ST_INVALID;
        request->record.kind = RECORD_EVENT;
        request->encoded_size = record_encoded_size(&request->record);
        size += request->encoded_size;
        count++;
    }
    if (count == 0) return ST_OK;
    if (!reserve(store->committer, count, size)) return ST_OVERLOADED;
    outcome result = enqueue(store->committer, list, tail);
    if (result != ST_OK) release(store->committer, count, size);
    return result;
}

static outcome enqueue_letters(committer *self, letter_request *list, letter_request **tail) {
    outcome result = ST_OK;
    (void)pthread_mutex_lock(&self->lock);
    if (self->failed || self->stopping) {
        result = self->failed ? ST_UNAVAILABLE : ST_STOPPING;
    } else {
        *self->letters_tail = list;
        self->letters_tail = tail;
        wake(self);
    }
    (void)pthread_mutex_unlock(&self->lock);
    return result;
}

outcome committer_move_letters(event_store *store, letter_request *list) {
    uint64_t count = 0;
    letter_request **tail = &list;
    for (; *tail; tail = &(*tail)->next, count++)
        if (!store_has_route(store, (*tail)->route)) return ST_INVALID;
    if (count == 0) return ST_OK;
    if (!reserve(store->committer, count, 0)) return ST_OVERLOADED;
    outcome result = enqueue_letters(store->committer, list, tail);
    if (result != ST_OK) release(store->committer, count, 0);
    return result;
}

outcome committer_execute(event_store *store, command *request) {
    committer *self = store->committer;
    request->next = NULL;
    request->finished = false;
    (void)pthread_mutex_lock(&self->lock);
    if (self->failed || self->stopping) {
        request->result = self->failed ? ST_UNAVAILABLE : ST_STOPPING;
    } else {
        *self->commands_tail = request;
        self->commands_tail = &request->next;
        wake(self);
        while (!request->finished)
            (void)pthread_cond_wait(&self->finished, &self->lock);
    }
    (void)pthread_mutex_unlock(&self->lock);
    return request->result;
}

void committer_figures(const event_store *store, uint64_t *requests, uint64_t *bytes_queued) {
    *requests = atomic_load(&store->committer->queued_requests);
    *bytes_queued = atomic_load(&store->committer->queued_bytes);
}

/* ---- one batch ---------------------------------------------------------------------------- */

/* Whether an earlier request of this batch moves the letter: it still stands in RocksDB. */
static bool moved_in_batch(const committer *self, const letter_request *request) {
    for (const letter_request *at = self->batch_letters; at != request; at = at->next)
        if (at->sequence == request->sequence && at->route == request->route && at->result == ST_OK)
            return true;
    return false;
}

static void stage_commands(committer *self) {
    for (command *at = self->batch_commands; at; at = at->next) {
        at->result = stage_command(self->store, self->group.batch, at);
        if (at->result == ST_OK) self->group.touched |= 1u << at->route;
    }
}

static void stage_letters(committer *self) {
    letter_request **tail = &self->batch_letters;
    uint64_t taken_bytes = 0;
    for (int i = 0; self->waiting_letters && i < BATCH_LETTERS_MAX && taken_bytes < BATCH_BYTES_MAX;
         i++) {
        letter_request *request = self->waiting_letters;
        self->waiting_letters = request->next;
        request->next = NULL;
        *tail = request;
        tail = &request->next;
        request->memory = NULL;
        request->append.encoded_size = 0;
        if (moved_in_batch(self, request))
            request->result = ST_NOT_FOUND;
        else
            group_move(&self->group, request);
        taken_bytes += request->append.encoded_size;
    }
}

static void stage_appends(committer *self) {
    uint64_t taken_bytes = 0;
    while (self->waiting && self->request_count < BATCH_REQUESTS_MAX &&
           taken_bytes < BATCH_BYTES_MAX) {
        append_request *request = self->waiting;
        self->waiting = request->next;
        self->requests[self->request_count++] = request;
        taken_bytes += request->encoded_size;
        group_append(&self->group, request);
    }
}

static void histogram_add(atomic_histogram *histogram, uint64_t us) {
    size_t last = sizeof histogram->buckets / sizeof *histogram->buckets - 1;
    size_t bucket = 0;
    while (bucket < last && us >= (uint64_t)1 << bucket)
        bucket++;
    atomic_fetch_add_explicit(&histogram->buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_us, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->count, 1, memory_order_relaxed);
}

/* From here on readers, and store_stats, see what the batch did. */
static void publish_route(committer *self, uint32_t number) {
    route_state *route = &self->store->routes[number];
    (void)pthread_mutex_lock(&route->lock);
    for (const command *at = self->batch_commands; at; at = at->next)
        if (at->route == number && at->result == ST_OK) apply_command(route, at);
    bool more = route->staged.last > route->synced.last;
    route->synced = route->staged;
    atomic_store_explicit(&route->hint, route->synced.anchor.sequence, memory_order_relaxed);
    atomic_store_explicit(&route->visible, route->synced.last, memory_order_release);
    if (more && route->waiters) (void)pthread_cond_broadcast(&route->changed);
    (void)pthread_mutex_unlock(&route->lock);
}

outcome store_note_evidence(event_store *store, failure *why) {
    evidence_state now = {.writes = rocksdb_get_latest_sequence_number(store->db.handle),
                          .manifest_number = store->manifest.noted.number,
                          .manifest_size = store->manifest.noted.size};
    for (uint32_t i = 0; i < STORE_ROUTES_MAX; i++) {
        now.last[i] = store->routes[i].staged.last;
        now.buried[i] = (uint32_t)store->routes[i].staged.ledger.buried;
    }
    return evidence_write(&store->witness, &now, why);
}

static outcome note_manifest(event_store *store, failure *why) {
    char database[PATH_SIZE];
    bool advanced;
    path_join(database, store->directory, "db");
    outcome result = manifest_look(&store->manifest, database,
                                   store_db_background_errors(&store->db), &advanced, why);
    return result == ST_OK && advanced ? store_note_evidence(store, why) : result;
}

static outcome write_batch(committer *self, failure *why) {
    event_store *store = self->store;
    if (rocksdb_writebatch_count(self->group.batch) == 0) return ST_OK;
    int64_t began_us = clock_monotonic_us();
    outcome result = store_db_write(&store->db, self->group.batch, why);
    if (result != ST_OK) return result;
    histogram_add(&store->sync_time, (uint64_t)(clock_monotonic_us() - began_us));
    atomic_fetch_add_explicit(&store->commits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->committed_requests, self->request_count,
                              memory_order_relaxed);
    for (uint32_t left = self->group.touched; left; left &= left - 1)
        publish_route(self, (uint32_t)__builtin_ctz(left));
    return store_note_evidence(store, why);
}

static void finish_commands(committer *self) {
    if (!self->batch_commands) return;
    (void)pthread_mutex_lock(&self->lock);
    for (command *at = self->batch_commands, *next; at; at = next) {
        next = at->next; /* its owner may go on as soon as the lock is free */
        at->finished = true;
    }
    self->batch_commands = NULL;
    (void)pthread_cond_broadcast(&self->finished);
    (void)pthread_mutex_unlock(&self->lock);
}

static void finish_appends(committer *self) {
    uint64_t size = 0;
    for (uint32_t i = 0; i < self->request_count; i++)
        size += self->requests[i]->encoded_size;
    release(self, self->request_count, size);
    for (uint32_t i = 0; i < self->request_count; i++)
        self->requests[i]->done(self->requests[i]);
    self->request_count = 0;
}

static void finish_letters(committer *self) {
    while (self->batch_letters) {
        letter_request *request = self->batch_letters;
        self->batch_letters = request->next;
        if (request->memory) rocksdb_free(request->memory);
        release(self, 1, 0);
        request->done(request);
    }
}

static void stage_ids_window(committer *self) {
    ids_window *ids = &self->store->ids;
    ids_window_update(ids, self->group.now_ms);
    if (ids->put_bytes == ids->saved_bytes) return;
    meta_put_ids(&self->store->db, self->group.batch, ids);
    ids->saved_bytes = ids->put_bytes;
}

static void stage_settled(committer *self) {
    event_store *store = self->store;
    for (uint32_t i = 0; i < store_route_count(store); i++) {
        route_state *route = &store->routes[i];
        uint64_t position = atomic_load_explicit(&route->position, memory_order_relaxed);
        if (settled_note(&route->settled, position, self->group.now_ms, store->ids.window_ms))
            meta_put_settled(&store->db, self->group.batch, i, &route->settled);
    }
}

/* `due`: once a second, what may lag behind is staged too. */
static outcome commit_batch(committer *self, bool due, failure *why) {
    self->request_count = 0;
    group_begin(&self->group, atomic_load(&self->queued_requests));
    if (due) stage_ids_window(self);
    if (due) stage_settled(self);
    stage_commands(self);
    self->group.touched |= stage_advances(self->store, self->group.batch, due);
    stage_letters(self);
    stage_appends(self);
    outcome result = write_batch(self, why);
    if (result != ST_OK) return result;
    finish_commands(self);
    finish_letters(self);
    finish_appends(self);
    return ST_OK;
}

/* ---- the thread ---------------------------------------------------------------------------- */

static void deadline_after(struct timespec *until, int64_t ms) {
    int64_t at_us = clock_monotonic_us() + ms * 1000;
    *until = (struct timespec){.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000};
}

/* Waits for work or the next tick. False: stopping, and all is done. */
static bool take(committer *self) {
    struct timespec until;
    deadline_after(&until, TICK_MS);
    (void)pthread_mutex_lock(&self->lock);
    bool late = self->waiting || self->waiting_letters;
    while (!late && !self->head && !self->letters && !self->commands && !self->stopping) {
        self->sleeping = true;
        late = pthread_cond_timedwait(&self->work, &self->lock, &until) != 0;
        self->sleeping = false;
    }
    if (!self->waiting) {
        self->waiting = self->head;
        self->head = NULL;
        self->tail = &self->head;
    }
    if (!self->waiting_letters) {
        self->waiting_letters = self->letters;
        self->letters = NULL;
        self->letters_tail = &self->letters;
    }
    self->batch_commands = self->commands;
    self->commands = NULL;
    self->commands_tail = &self->commands;
    bool go_on = !self->stopping || self->waiting || self->waiting_letters || self->batch_commands;
    (void)pthread_mutex_unlock(&self->lock);
    return go_on;
}

/*
 * A flush or compaction that failed has lost nothing, since its inputs stay; whether the store goes
 * on is RocksDB's to say, by taking a write or not. A compaction that found the disk full is tried
 * again. After a failed flush, or damage, no write is taken.
 */
static outcome check_background(committer *self, failure *why) {
    const store_db *db = &self->store->db;
    uint64_t errors = store_db_background_errors(db);
    if (errors == self->background_errors) return ST_OK;
    self->background_errors = errors;
    rocksdb_writebatch_clear(self->group.batch);
    meta_put_identity(db, self->group.batch, &self->store->id);
    outcome result = store_db_write(db, self->group.batch, why);
    if (result == ST_OK)
        store_log(self->store, STORE_LOG_WARNING,
                  "a compaction failed, %llu so far, and is tried again: see db/LOG",
                  (unsigned long long)errors);
    return result;
}

/* Once a second, and off the path of the acknowledgements when there is any pause. */
static outcome upkeep(committer *self, failure *why) {
    self->upkeep_ms = clock_monotonic_ms();
    outcome result = check_background(self, why);
    if (result == ST_OK) result = note_manifest(self->store, why);
    return result == ST_OK ? evidence_sync(&self->store->witness, why) : result;
}

/* Invariant 5. Commands are told, because their callers block and may be needed for the exit. */
static void stop_for_good(committer *self, const failure *why) {
    (void)pthread_mutex_lock(&self->lock);
    self->failed = true;
    self->store->failed = true;
    command **tail = &self->batch_commands;
    while (*tail)
        tail = &(*tail)->next;
    *tail = self->commands;
    self->commands = NULL;
    (void)pthread_mutex_unlock(&self->lock);
    for (command *at = self->batch_commands; at; at = at->next)
        at->result = ST_UNAVAILABLE;
    finish_commands(self);
    store_log(self->store, STORE_LOG_ERROR, "%s: nothing more is acknowledged", why->reason);
    if (self->store->options.fatal)
        self->store->options.fatal(self->store->options.arg, why->reason);
}

static void *run(void *arg) {
    committer *self = arg;
    failure why;
    outcome result = ST_OK;
    (void)pthread_setname_np(pthread_self(), "committer");
    while (result == ST_OK && take(self)) {
        bool due = clock_monotonic_ms() - self->upkeep_ms >= TICK_MS;
        result = commit_batch(self, due, &why);
        if (result == ST_OK && due) result = upkeep(self, &why);
    }
    if (result == ST_OK) result = commit_batch(self, true, &why);
    if (result == ST_OK) result = evidence_sync(&self->store->witness, &why);
    if (result != ST_OK) stop_for_good(self, &why);
    return NULL;
}

/* ---- start and stop ----------------------------------------------------------------------- */

static void free_committer(committer *self) {
    group_fini(&self->group);
    (void)pthread_mutex_destroy(&self->lock);
    (void)pthread_cond_destroy(&self->work);
    (void)pthread_cond_destroy(&self->finished);
    free(self->requests);
    free(self);
}

static void init_locks(committer *self) {
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)pthread_cond_init(&self->work, &monotonic);
    (void)pthread_cond_init(&self->finished, NULL);
    (void)pthread_condattr_destroy(&monotonic);
}

outcome committer_start(event_store *store, failure *why) {
    committer *self = calloc(1, sizeof *self);
    if (!self) return fail(why, ST_NO_MEMORY, "", "no memory for the committer");
    self->store = store;
    self->tail = &self->head;
    self->letters_tail = &self->letters;
    self->commands_tail = &self->commands;
    self->upkeep_ms = clock_monotonic_ms();
    init_locks(self);
    self->requests = calloc(BATCH_REQUESTS_MAX, sizeof(append_request *));
    bool ready = group_init(&self->group, store, BATCH_REQUESTS_MAX) && self->requests;
    store->committer = self;
    if (ready && pthread_create(&self->thread, NULL, run, self) == 0) return ST_OK;
    store->committer = NULL;
    free_committer(self);
    return fail(why, ST_NO_MEMORY, "", "cannot start the committer");
}

void committer_stop(event_store *store) {
    committer *self = store->committer;
    (void)pthread_mutex_lock(&self->lock);
    self->stopping = true;
    wake(self);
    (void)pthread_mutex_unlock(&self->lock);
    (void)pthread_join(self->thread, NULL);
    free_committer(self);
    store->committer = NULL;
}
