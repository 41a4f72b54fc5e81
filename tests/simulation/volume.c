/* The functions of the store that the publisher calls, over a volume. They come before storage's at
 * link time. Deterministic, and fast: RocksDB takes longer to open than a whole life does here. */
#include "volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/committer.h"

#define SYNC_MIN (150)
#define SYNC_MAX (3 * MS)
#define UPKEEP SECOND /* a lazy advance is durable by then */

struct event_store {
    volume *disk;
    process *owner;
    bool detached;
    uint64_t position;
    bool woken;
    struct batch *batches; /* appended, not synced yet; oldest first */
    uint64_t wanted;       /* lazy advance; 0: none */
    uuid wanted_incarnation;
    int64_t wanted_offset;
};

struct store_reader {
    event_store *store;
    uint64_t next;
};

/* ---- a volume ----------------------------------------------------------------------------------
 */

void volume_make(volume *it) {
    memset(it, 0, sizeof *it);
    it->id = uuid_random();
    it->anchor.positions_partition = -1;
    it->anchor.kafka_offset = -1;
}

/* Incarnations before the one that the anchor names are forgotten (storage/recovery.c). */
static void forget_openings(volume *it) {
    size_t named = 0;
    while (named < it->opening_count &&
           !uuid_equal(&it->openings[named].id, &it->anchor.incarnation))
        named++;
    if (!it->anchor.has_published || named == it->opening_count) named = 0;
    if (it->opening_count == OPENINGS_MAX && named == 0) abort();
    it->opening_count -= named;
    memmove(it->openings, it->openings + named, it->opening_count * sizeof *it->openings);
}

event_store *volume_open(volume *it, process *by) {
    event_store *store = world_hold(sizeof *store);
    forget_openings(it);
    it->openings[it->opening_count].id = uuid_random();
    it->openings[it->opening_count++].last_at_open = it->last;
    *store = (event_store){.disk = it, .owner = by, .position = it->anchor.sequence};
    return store;
}

void volume_detach(event_store *store) {
    volume *frozen = world_hold(sizeof *frozen);
    *frozen = *store->disk;
    store->disk = frozen;
    store->detached = true;
}

uint64_t volume_position(const event_store *store) { return store->position; }

static bool can_write(const event_store *store) {
    return store->disk && !store->owner->killed && !store->detached;
}

/* ---- writing ------------------------------------------------------------------------------------
 */

/* The time of a sync. False when the write is not to be told of: the process died. Whether it is
 * durable then is anybody's guess. */
static bool await_sync(event_store *store, bool *durable) {
    int64_t until = world_now() + between(SYNC_MIN, SYNC_MAX);
    while (!store->owner->killed && world_now() < until)
        process_wait_until(until);
    *durable = store->disk && !store->detached && (!store->owner->killed || chance(500));
    return *durable && !store->owner->killed;
}

static void advance(event_store *store) {
    route_anchor *anchor = &store->disk->anchor;
    if (store->wanted <= anchor->sequence) return;
    anchor->sequence = store->wanted;
    anchor->incarnation = store->wanted_incarnation;
    anchor->kafka_offset = store->wanted_offset;
}

static void upkeep(void *argument) {
    event_store *store = argument;
    if (can_write(store)) advance(store);
}

void committer_advance(event_store *store, uint32_t route, uint64_t sequence,
                       const uuid *incarnation, int64_t kafka_offset) {
    (void)route;
    if (!can_write(store) || sequence <= store->wanted) return;
    store->wanted = sequence;
    store->wanted_incarnation = *incarnation;
    store->wanted_offset = kafka_offset;
    later(between(SYNC_MIN, UPKEEP), store->owner, upkeep, store);
}

outcome committer_set_anchor(event_store *store, uint32_t route, const route_anchor *anchor,
                             failure *why) {
    bool durable;
    (void)route;
    if (!can_write(store)) return fail(why, ST_UNAVAILABLE, "", "simulated: no disk");
    route_anchor wanted = *anchor;
    bool told = await_sync(store, &durable);
    route_anchor *stored = &store->disk->anchor;
    if (durable) {
        if (wanted.sequence < stored->sequence) { /* the lazy advance was faster */
            wanted.sequence = stored->sequence;
            wanted.incarnation = stored->incarnation;
            wanted.kafka_offset = stored->kafka_offset;
        }
        *stored = wanted;
        trace("  anchored: has_published %d", stored->has_published);
    }
    return told ? ST_OK : fail(why, ST_UNAVAILABLE, "", "simulated: died");
}

outcome committer_bury(event_store *store, uint32_t route, uint64_t sequence,
                       const bury_reason *reason, failure *why) {
    bool durable;
    (void)route, (void)reason;
    if (!can_write(store)) return fail(why, ST_UNAVAILABLE, "", "simulated: no disk");
    if (store->disk->dead[sequence]) return ST_OK;
    if (sequence <= store->position)
        return fail(why, ST_PRECONDITION, "sequence", "record %llu is settled already",
                    (unsigned long long)sequence);
    if (chance(20)) return fail(why, ST_DEAD_FULL, "", "simulated: budget spent");
    bool told = await_sync(store, &durable);
    if (durable) store->disk->dead[sequence] = true;
    trace("  %s (%llu) is set aside%s", store->disk->events[sequence]->id,
          (unsigned long long)sequence, durable ? "" : ": not durable");
    return told ? ST_OK : fail(why, ST_UNAVAILABLE, "", "simulated: died");
}

/* ---- appending ----------------------------------------------------------------------------------
 */

typedef struct batch {
    struct batch *next;
    event_store *store;
    void (*acknowledged)(event_store *, event *);
    size_t count;
    event *events[16];
} batch;

/* 0: unknown. */
static uint64_t sequence_of(const volume *disk, const event *it) {
    uint64_t sequence = disk->last;
    while (sequence > 0 && disk->events[sequence] != it)
        sequence--;
    return sequence;
}

static void write_batch(volume *disk, const batch *it) {
    for (size_t i = 0; i < it->count; i++) {
        if (sequence_of(disk, it->events[i])) continue;
        disk->events[++disk->last] = it->events[i];
        trace("%s is stored, sequence %llu", it->events[i]->id, (unsigned long long)disk->last);
    }
}

/* The sync of the oldest batch is over: it shows now, and is acknowledged. */
static void end_batch(void *argument) {
    event_store *store = argument;
    batch *it = store->batches;
    if (!it || !can_write(store)) return;
    store->batches = it->next;
    write_batch(store->disk, it);
    for (size_t i = 0; i < it->count; i++) {
        it->events[i]->sequence = sequence_of(store->disk, it->events[i]);
        it->acknowledged(store, it->events[i]);
    }
    process_wake(store->owner);
}

void volume_append(event_store *store, event *const *events, size_t count,
                   void (*acknowledged)(event_store *, event *)) {
    if (!can_write(store) || store->owner->paused_until > world_now()) return;
    batch *it = world_hold(sizeof *it);
    *it = (batch){.store = store, .acknowledged = acknowledged, .count = count};
    memcpy(it->events, events, count * sizeof *events);
    batch **end = &store->batches;
    while (*end)
        end = &(*end)->next;
    *end = it;
    later(between(SYNC_MIN, SYNC_MAX), store->owner, end_batch, store);
}

/* What was being synced when the process died is there, or is not; one behind the other. */
void volume_close(event_store *store) {
    while (store->batches && !store->detached && chance(500)) {
        write_batch(store->disk, store->batches);
        store->batches = store->batches->next;
    }
    store->batches = NULL;
    store->disk = NULL;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

uuid store_id(const event_store *store) { return store->disk->id; }

uuid store_incarnation(const event_store *store) {
    return store->disk->openings[store->disk->opening_count - 1].id;
}

void store_anchor(event_store *store, uint32_t route, route_anchor *anchor) {
    (void)route;
    *anchor = store->disk->anchor;
}

void store_stats(event_store *store, uint32_t route, route_stats *stats) {
    (void)route;
    *stats = (route_stats){.last_sequence = store->disk->last, .position = store->position};
}

void store_set_position(event_store *store, uint32_t route, uint64_t sequence) {
    (void)route;
    if (sequence > store->disk->last)
        world_violate("position %llu is beyond what was given out", (unsigned long long)sequence);
    if (sequence > store->position) store->position = sequence;
}

outcome store_check_position(event_store *store, uint32_t route, const uuid *who,
                             uint64_t sequence) {
    const volume *disk = store->disk;
    (void)route;
    for (size_t i = 0; i < disk->opening_count; i++) {
        if (!uuid_equal(&disk->openings[i].id, who)) continue;
        bool last = i + 1 == disk->opening_count;
        return sequence <= (last ? disk->last : disk->openings[i + 1].last_at_open) ? ST_OK
                                                                                    : ST_INVALID;
    }
    return ST_NOT_FOUND;
}

store_reader *store_reader_open(event_store *store, uint32_t route, uint64_t from) {
    store_reader *reader = calloc(1, sizeof *reader);
    (void)route;
    *reader = (store_reader){store, from};
    return reader;
}

void store_reader_seek(store_reader *reader, uint64_t from) { reader->next = from; }
void store_reader_rest(store_reader *reader) { (void)reader; } /* pins nothing */
void store_reader_close(store_reader *reader) { free(reader); }

outcome store_reader_next(store_reader *reader, event_record *record, failure *why) {
    const volume *disk = reader->store->disk;
    uint64_t sequence = reader->next;
    if (sequence > disk->last) return ST_NOT_FOUND;
    if (sequence <= disk->anchor.sequence)
        return fail(why, ST_PRECONDITION, "", "record %llu is settled, and may be deleted",
                    (unsigned long long)sequence);
    const event *it = disk->events[sequence];
    *record = (event_record){.kind = disk->dead[sequence] ? RECORD_MOVED : RECORD_EVENT,
                             .sequence = sequence,
                             .id = bytes_of_string(it->id),
                             .source = bytes_of_string("life"),
                             .key = bytes_of_string(it->key),
                             .type = bytes_of_string("group"),
                             .transaction = true,
                             .operations = it->parts,
                             .event = it->body};
    reader->next++;
    return ST_OK;
}

uint64_t store_wait(event_store *store, uint32_t route, uint64_t after, int64_t timeout_ms) {
    int64_t until = world_now() + timeout_ms * MS;
    (void)route;
    while (store->disk->last <= after && !store->woken && world_now() < until &&
           !store->owner->killed)
        process_wait_until(until);
    store->woken = false;
    return store->disk->last;
}

void store_wake(event_store *store, uint32_t route) {
    (void)route;
    store->woken = true;
    process_wake(store->owner);
}
