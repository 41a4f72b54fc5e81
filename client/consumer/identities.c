/*
 * A ring in the order of arrival, and a table of numbers into it by open addressing, at most half
 * full. What leaves the ring leaves the table by the usual shift back; what is forgotten in the
 * middle stays in the ring, marked, until it is the oldest.
 */
#include "client/consumer/identities.h"

#include <stdlib.h>
#include <xxhash.h>

enum { FIRST_CAPACITY = 1024 };
#define NOBODY UINT32_MAX /* as partition: forgotten */

typedef struct slot {
    identity one;
    int64_t time_ms;
    uint32_t partition;
} slot;

struct identities {
    slot *ring;      /* owned */
    uint32_t *table; /* owned; place in the ring + 1, 0: free; twice as many as the ring has */
    size_t capacity; /* of the ring; a power of two */
    uint64_t first, end;
    uint64_t live; /* not forgotten */
    uint64_t most;
    int64_t window_ms;
};

identity identity_of(bytes source, bytes id) {
    /* Lengths keep ("a", "bc") and ("ab", "c") apart. */
    const XXH64_hash_t seed = XXH3_64bits_withSeed(source.data, source.len, source.len);
    const XXH128_hash_t hash = XXH3_128bits_withSeed(id.data, id.len, seed);
    return (identity){hash.high64, hash.low64};
}

static size_t table_mask(const identities *it) { return 2 * it->capacity - 1; }
static slot *at(const identities *it, uint64_t number) {
    return &it->ring[number & (it->capacity - 1)];
}

/* The place in the table that holds it, or the free one where it belongs. */
static size_t find(const identities *it, identity one) {
    size_t place = one.low & table_mask(it);
    while (it->table[place]) {
        const identity *other = &it->ring[it->table[place] - 1].one;
        if (other->high == one.high && other->low == one.low) break;
        place = (place + 1) & table_mask(it);
    }
    return place;
}

/* Frees a place; those behind it that it was in the way of move up. */
static void unlink_place(identities *it, size_t place) {
    const size_t mask = table_mask(it);
    for (size_t next = (place + 1) & mask; it->table[next]; next = (next + 1) & mask) {
        const size_t home = it->ring[it->table[next] - 1].one.low & mask;
        if (((next - home) & mask) < ((next - place) & mask)) continue;
        it->table[place] = it->table[next];
        place = next;
    }
    it->table[place] = 0;
}

static bool resize(identities *it, size_t capacity) {
    slot *ring = malloc(capacity * sizeof *ring);
    uint32_t *table = calloc(2 * capacity, sizeof *table);
    if (!ring || !table) {
        free(ring);
        free(table);
        return false;
    }
    identities fresh = *it;
    fresh.ring = ring;
    fresh.table = table;
    fresh.capacity = capacity;
    for (uint64_t number = it->first; number < it->end; number++) {
        slot *to = at(&fresh, number);
        *to = *at(it, number);
        if (to->partition != NOBODY) table[find(&fresh, to->one)] = (uint32_t)(to - ring) + 1;
    }
    free(it->ring);
    free(it->table);
    *it = fresh;
    return true;
}

identities *identities_new(uint64_t most, int64_t window_ms) {
    identities *it = calloc(1, sizeof *it);
    if (!it) return NULL;
    it->most = window_ms > 0 ? most : 0;
    it->window_ms = window_ms;
    if (resize(it, FIRST_CAPACITY)) return it;
    free(it);
    return NULL;
}

void identities_free(identities *it) {
    if (!it) return;
    free(it->ring);
    free(it->table);
    free(it);
}

bool identities_known(const identities *it, identity one, int64_t now_ms) {
    const uint32_t place = it->table[find(it, one)];
    return place && it->ring[place - 1].time_ms > now_ms - it->window_ms;
}

static void drop(identities *it, slot *one) {
    if (one->partition == NOBODY) return;
    unlink_place(it, find(it, one->one));
    one->partition = NOBODY;
    it->live--;
}

bool identities_add(identities *it, identity one, uint32_t partition, int64_t time_ms) {
    if (it->most == 0) return true;
    size_t place = find(it, one);
    if (it->table[place]) drop(it, &it->ring[it->table[place] - 1]); /* again, after its window */
    while (it->first < it->end &&
           (it->end - it->first >= it->most || at(it, it->first)->partition == NOBODY ||
            at(it, it->first)->time_ms <= time_ms - it->window_ms))
        drop(it, at(it, it->first++));
    if (it->end - it->first == it->capacity && !resize(it, it->capacity * 2)) return false;
    slot *to = at(it, it->end++);
    *to = (slot){one, time_ms, partition};
    it->table[find(it, one)] = (uint32_t)(to - it->ring) + 1;
    it->live++;
    return true;
}

void identities_forget(identities *it, uint32_t partition) {
    for (uint64_t number = it->first; number < it->end; number++)
        if (at(it, number)->partition == partition) drop(it, at(it, number));
}

uint64_t identities_count(const identities *it) { return it->live; }

int64_t identities_oldest_ms(const identities *it) {
    for (uint64_t number = it->first; number < it->end; number++)
        if (at(it, number)->partition != NOBODY) return at(it, number)->time_ms;
    return INT64_MAX;
}
