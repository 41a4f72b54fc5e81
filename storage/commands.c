/*
 * commands: the publisher's writes, from both sides: asked here on its thread, which waits, and
 * staged into the group on the committer's, which cannot block. (How a letter is buried is in
 * dead_letters.c.) Staging changes `staged` only; what others see changes after the sync, when the
 * committer publishes.
 */
#include "storage/store_meta.h"

#include <stdlib.h>

/* Settled records are deleted by one range once there are this many, or bytes, of them: each range
 * costs every later read a little until the next flush. */
#define DELETE_RECORDS ((uint64_t)4096)
#define DELETE_BYTES ((uint64_t)4 << 20)

static outcome stage_route(event_store *store, rocksdb_writebatch_t *batch,
                           const command *request) {
    const route_durable *staged = &store->routes[request->route].staged;
    /* A route is whole in meta from its first day: one of them missing later is damage. */
    meta_put_route(&store->db, batch, request->route, request->name);
    meta_put_ledger(&store->db, batch, request->route, &staged->ledger);
    meta_put_anchor(&store->db, batch, request->route, &staged->anchor, staged->anchor_cumulative);
    return ST_OK;
}

static outcome stage_anchor(event_store *store, rocksdb_writebatch_t *batch,
                            const command *request) {
    route_durable *staged = &store->routes[request->route].staged;
    route_anchor old = staged->anchor;
    staged->anchor = *request->anchor;
    if (request->anchor->sequence > old.sequence) {
        staged->anchor_cumulative = request->cumulative;
    } else if (request->anchor->sequence < old.sequence) {
        /* The lazy advance was faster: the hint's three fields belong together. */
        staged->anchor.sequence = old.sequence;
        staged->anchor.incarnation = old.incarnation;
        staged->anchor.kafka_offset = old.kafka_offset;
    }
    meta_put_anchor(&store->db, batch, request->route, &staged->anchor, staged->anchor_cumulative);
    return ST_OK;
}

/* Room first: after the sync nothing may fail any more. */
static bool reserve_moved(route_state *route) {
    bool done = true;
    (void)pthread_mutex_lock(&route->lock);
    if (route->moved_count == route->moved_capacity) {
        size_t capacity = route->moved_capacity ? 2 * route->moved_capacity : 64;
        uint64_t *grown = realloc(route->moved, capacity * sizeof *grown);
        done = grown != NULL;
        if (done) {
            route->moved = grown;
            route->moved_capacity = capacity;
        }
    }
    (void)pthread_mutex_unlock(&route->lock);
    return done;
}

static outcome stage_bury(event_store *store, rocksdb_writebatch_t *batch, const command *request) {
    uint64_t size = EVENT_KEY_SIZE + request->letter.len;
    uint64_t dead_bytes = size;
    for (uint32_t i = 0; i < STORE_ROUTES_MAX; i++)
        dead_bytes += store->routes[i].staged.ledger.dead_bytes;
    if (dead_bytes > store->options.dead_budget_bytes) return ST_DEAD_FULL;
    route_state *route = &store->routes[request->route];
    if (!reserve_moved(route)) return ST_NO_MEMORY;

    route_ledger *ledger = &route->staged.ledger;
    ledger->dead++;
    ledger->buried++;
    ledger->dead_bytes += size;
    uint8_t buffer[EVENT_KEY_SIZE];
    bytes key = event_key(buffer, request->route, request->sequence);
    batch_put(&store->db, batch, FAMILY_DEAD, key, request->letter);
    batch_put(&store->db, batch, FAMILY_OUTBOX, key, request->tombstone);
    if (request->id_key.len)
        batch_put(&store->db, batch, FAMILY_IDS, request->id_key, request->id_value);
    meta_put_ledger(&store->db, batch, request->route, ledger);
    return ST_OK;
}

/* A new identity, which Kafka has never heard of: nothing is anchored there, and no earlier opening
 * counts. The hints stay, as what is up to them may be gone. */
static outcome stage_restore(event_store *store, rocksdb_writebatch_t *batch,
                             const command *request) {
    meta_put_identity(&store->db, batch, request->id);
    for (size_t i = 0; i + 1 < store->incarnation_count; i++)
        meta_delete_incarnation(&store->db, batch, store->incarnations[i].number);
    for (uint32_t i = 0; i < store_route_count(store); i++) {
        route_durable *staged = &store->routes[i].staged;
        staged->anchor = (route_anchor){
            .sequence = staged->anchor.sequence, .positions_partition = -1, .kafka_offset = -1};
        meta_put_anchor(&store->db, batch, i, &staged->anchor, staged->anchor_cumulative);
    }
    return ST_OK;
}

outcome stage_command(event_store *store, rocksdb_writebatch_t *batch, const command *request) {
    switch (request->kind) {
    case COMMAND_ROUTE:
        return stage_route(store, batch, request);
    case COMMAND_ANCHOR:
        return stage_anchor(store, batch, request);
    case COMMAND_BURY:
        return stage_bury(store, batch, request);
    case COMMAND_RESTORE:
        return stage_restore(store, batch, request);
    }
    return ST_INTERNAL;
}

void apply_command(route_state *route, const command *request) {
    if (request->kind != COMMAND_BURY || request->sequence <= route->position) return;
    /* Buries come in order, nearly always. */
    size_t at = route->moved_count++;
    for (; at > 0 && route->moved[at - 1] > request->sequence; at--)
        route->moved[at] = route->moved[at - 1];
    route->moved[at] = request->sequence;
}

/* ---- the lazy advance ------------------------------------------------------------------- */

static void stage_delete(event_store *store, rocksdb_writebatch_t *batch, uint32_t number) {
    route_state *route = &store->routes[number];
    uint8_t first[EVENT_KEY_SIZE];
    uint8_t behind[EVENT_KEY_SIZE];
    bytes from = event_key(first, number, route->deleted_to + 1);
    bytes to = event_key(behind, number, route->staged.anchor.sequence + 1);
    rocksdb_writebatch_delete_range_cf(batch, store->db.families[FAMILY_OUTBOX],
                                       (const char *)from.data, from.len, (const char *)to.data,
                                       to.len);
    route->deleted_to = route->staged.anchor.sequence;
    route->deleted_cumulative = route->staged.anchor_cumulative;
}

static bool take_wanted(route_state *route, bool all) {
    bool taken = false;
    (void)pthread_mutex_lock(&route->lock);
    bool much = route->wanted_sequence - route->staged.anchor.sequence >= DELETE_RECORDS ||
                route->wanted_cumulative - route->staged.anchor_cumulative >= DELETE_BYTES;
    if (route->advance_wanted && (all || much)) {
        route->advance_wanted = false;
        taken = route->wanted_sequence > route->staged.anchor.sequence;
        if (taken) {
            route->staged.anchor.sequence = route->wanted_sequence;
            route->staged.anchor_cumulative = route->wanted_cumulative;
            route->staged.anchor.incarnation = route->wanted_incarnation;
            route->staged.anchor.kafka_offset = route->wanted_offset;
        }
    }
    (void)pthread_mutex_unlock(&route->lock);
    return taken;
}

uint32_t stage_advances(event_store *store, rocksdb_writebatch_t *batch, bool all) {
    uint32_t touched = 0;
    for (uint32_t i = 0; i < store_route_count(store); i++) {
        route_state *route = &store->routes[i];
        if (!take_wanted(route, all)) continue;
        const route_durable *staged = &route->staged;
        meta_put_anchor(&store->db, batch, i, &staged->anchor, staged->anchor_cumulative);
        if (staged->anchor.sequence - route->deleted_to >= DELETE_RECORDS ||
            staged->anchor_cumulative - route->deleted_cumulative >= DELETE_BYTES)
            stage_delete(store, batch, i);
        touched |= 1u << i;
    }
    return touched;
}

/* ---- asked: the publisher's thread --------------------------------------------------------- */

outcome committer_set_anchor(event_store *store, uint32_t route, const route_anchor *anchor,
                             failure *why) {
    command request = {.kind = COMMAND_ANCHOR, .route = route, .anchor = anchor};
    outcome result = ST_OK;
    if (anchor->sequence > atomic_load(&store->routes[route].hint)) {
        result = store_cumulative(store, route, anchor->sequence, &request.cumulative, why);
        if (result != ST_OK) return result;
        /* The hint never passes the position. */
        store_set_position(store, route, anchor->sequence);
    }
    result = committer_execute(store, &request);
    return result == ST_OK ? ST_OK : fail(why, result, "", "%s", outcome_text(result));
}

void committer_advance(event_store *store, uint32_t number, uint64_t sequence,
                       const uuid *incarnation, int64_t kafka_offset) {
    route_state *route = &store->routes[number];
    uint64_t cumulative;
    store_set_position(store, number, sequence);
    /* Without its record the hint stays where it is; nothing depends on its moving now. */
    if (store_cumulative(store, number, sequence, &cumulative, NULL) != ST_OK) return;
    (void)pthread_mutex_lock(&route->lock);
    bool newer = sequence > route->synced.anchor.sequence &&
                 (!route->advance_wanted || sequence > route->wanted_sequence);
    if (newer) {
        route->advance_wanted = true;
        route->wanted_sequence = sequence;
        route->wanted_cumulative = cumulative;
        route->wanted_incarnation = *incarnation;
        route->wanted_offset = kafka_offset;
    }
    (void)pthread_mutex_unlock(&route->lock);
}
