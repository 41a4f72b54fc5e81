/* The committer's thread alone. What can fail for want of memory or room is done before anything of
 * the request is in the batch. */
#include "storage/group.h"

#include "storage/clock.h"
#include "storage/store_meta.h"

#include <stdlib.h>
#include <string.h>

enum { DISK_CHECK_MS = 500 };

/* ---- one event ----------------------------------------------------------------------------- */

static bool scratch_fits(group *self, size_t size) {
    if (size <= self->scratch_size) return true;
    uint8_t *grown = realloc(self->scratch, size);
    if (!grown) return false;
    self->scratch = grown;
    self->scratch_size = size;
    return true;
}

static void answer_known(group *self, append_request *request, const id_entry *known) {
    request->route = known->route;
    request->sequence = known->sequence;
    if (memcmp(known->fingerprint, request->fingerprint, STORE_FINGERPRINT_SIZE) != 0) {
        request->result = ST_ID_CONFLICT;
        return;
    }
    request->result = ST_OK;
    request->duplicate = true;
    request->dead = known->dead;
    request->purged = known->purged;
    atomic_fetch_add_explicit(&self->store->duplicates, 1, memory_order_relaxed);
}

/* Whether the store knows the identity: then the request is answered. */
static bool look_up(group *self, append_request *request) {
    const event_record *record = &request->record;
    id_entry known;
    failure why;
    bytes key = id_key_put(self->scratch, record->source, record->id);
    outcome result = ids_get(self->store, key, self->now_ms, &known, &why);
    if (result == ST_NOT_FOUND) return false;
    if (result == ST_OK) {
        answer_known(self, request, &known);
    } else {
        /* Not knowing whether it is a duplicate, we must not accept it. */
        store_log(self->store, STORE_LOG_ERROR, "%s", why.reason);
        request->result = result;
    }
    return true;
}

/*
 * Free space that is not for new events. What was appended is in a log, will be in a table before
 * the log goes, and then in another one before the first goes.
 */
static uint64_t spoken_for(const group *self) {
    const event_store *store = self->store;
    return store->options.reserve_free_bytes + store->working_bytes + 2 * self->unflushed_bytes +
           3 * self->unmeasured_bytes;
}

/* With the ballast spent a full volume could not be opened once more: nothing new until it is back.
 */
static outcome find_room(const group *self, const append_request *request) {
    const event_store *store = self->store;
    if (self->backlog_bytes + request->encoded_size > store->options.backlog_budget_bytes)
        return ST_BACKLOG_FULL;
    bool room = ballast_missing(&store->ballast) == 0 &&
                store->disk_free_bytes >= spoken_for(self) + request->encoded_size;
    return room ? ST_OK : ST_DISK_FULL;
}

static void put_event(group *self, append_request *request) {
    event_store *store = self->store;
    route_durable *staged = &store->routes[request->route].staged;
    event_record *record = &request->record;
    record->sequence = request->sequence = ++staged->last;
    record->cumulative_bytes = staged->last_cumulative += request->encoded_size;
    record->accepted_ms = self->now_ms;
    self->backlog_bytes += request->encoded_size;
    self->unmeasured_bytes += request->encoded_size;
    self->touched |= 1u << request->route;

    uint8_t key[EVENT_KEY_SIZE];
    record_encode(record, self->scratch);
    batch_put(&store->db, self->batch, FAMILY_OUTBOX,
              event_key(key, request->route, request->sequence),
              bytes_of(self->scratch, request->encoded_size));
    request->result = ST_OK;
}

static void put_id(group *self, const append_request *request, bool purged) {
    id_entry entry = {.route = request->route,
                      .sequence = request->sequence,
                      .accepted_ms = self->now_ms,
                      .purged = purged};
    memcpy(entry.fingerprint, request->fingerprint, sizeof entry.fingerprint);
    uint8_t value[ID_VALUE_SIZE];
    id_value_put(value, &entry);
    bytes key = id_key_put(self->scratch, request->record.source, request->record.id);
    batch_put(&self->store->db, self->batch, FAMILY_IDS, key, bytes_of(value, sizeof value));
    ids_window_count(&self->store->ids, key.len, self->now_ms);
}

/* An earlier request of this batch with the same identity; only accepted ones are entered. */
static bool known_in_batch(group *self, append_request *request) {
    const append_request *earlier = batch_ids_find(&self->ids, request);
    if (!earlier) return false;
    id_entry known = {.route = earlier->route, .sequence = earlier->sequence};
    memcpy(known.fingerprint, earlier->fingerprint, sizeof known.fingerprint);
    answer_known(self, request, &known);
    return true;
}

void group_append(group *self, append_request *request) {
    request->duplicate = request->dead = request->purged = false;
    /* Serves the key of the id as well, which is always shorter. */
    if (!scratch_fits(self, request->encoded_size)) {
        request->result = ST_NO_MEMORY;
        return;
    }
    if (request->remember && (known_in_batch(self, request) || look_up(self, request))) return;
    request->result = find_room(self, request);
    if (request->result != ST_OK) return;
    put_event(self, request);
    if (!request->remember) return;
    put_id(self, request, false);
    batch_ids_enter(&self->ids, request);
}

void group_move(group *self, letter_request *request) {
    append_request *append = &request->append;
    bool replay = request->move == LETTER_REPLAY;
    request->result = letter_load(self->store, request);
    if (request->result != ST_OK) return;
    if (!scratch_fits(self, append->encoded_size)) {
        request->result = ST_NO_MEMORY;
        return;
    }
    if (replay) request->result = find_room(self, append);
    if (request->result != ST_OK) return;
    stage_letter(self->store, self->batch, request);
    self->touched |= 1u << request->route;
    if (replay) put_event(self, append);
    request->new_sequence = replay ? append->sequence : 0;
    if (append->remember) put_id(self, append, !replay);
    if (append->remember && replay) batch_ids_enter(&self->ids, append);
}

/* ---- the group ---------------------------------------------------------------------------- */

static void check_disk(group *self) {
    int64_t now_ms = clock_monotonic_ms();
    if (self->disk_checked_ms && now_ms - self->disk_checked_ms < DISK_CHECK_MS) return;
    self->disk_checked_ms = now_ms;
    store_measure_disk(self->store);
    self->unflushed_bytes = store_db_unflushed_bytes(&self->store->db);
    self->unmeasured_bytes = 0;
}

static uint64_t sum_backlog(event_store *store) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < store_route_count(store); i++) {
        route_state *route = &store->routes[i];
        (void)pthread_mutex_lock(&route->lock);
        sum += route->synced.last_cumulative - route->position_cumulative;
        (void)pthread_mutex_unlock(&route->lock);
    }
    return sum;
}

bool group_init(group *self, event_store *store, uint32_t requests_max) {
    *self = (group){.store = store, .requests_max = requests_max};
    self->batch = rocksdb_writebatch_create();
    check_disk(self);
    return batch_ids_init(&self->ids, requests_max);
}

void group_fini(group *self) {
    batch_ids_fini(&self->ids);
    rocksdb_writebatch_destroy(self->batch);
    free(self->scratch);
}

void group_begin(group *self, uint64_t requests) {
    check_disk(self);
    rocksdb_writebatch_clear(self->batch);
    self->now_ms = clock_wall_ms();
    self->backlog_bytes = sum_backlog(self->store);
    self->touched = 0;
    batch_ids_begin(&self->ids,
                    (uint32_t)(requests < self->requests_max ? requests : self->requests_max));
}
