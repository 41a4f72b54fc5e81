/*
 * Two tables by hash: of groups, by their identity, and of lanes, by store and key. A lane lists
 * its groups by their sequence, which is almost always their order of arrival. What leaves a lane
 * at its front is told; all callbacks may look at the group, and must not call back in here.
 */
#include "client/consumer/groups.h"

#include <stdlib.h>
#include <xxhash.h>

enum { BUCKETS = 4096 };

typedef struct lane lane;

typedef struct group {
    uint64_t high, low; /* of (store, sequence, source, id) */
    struct group *next; /* in the bucket */
    lane *lane;
    struct group *later; /* in the lane */
    uint64_t sequence;
    int64_t last_ms; /* when its last part came */
    uint32_t size, have;
    bool given_up;
    void *parts[];
} group;

struct lane {
    uint64_t hash; /* of (store, key) */
    struct lane *next;
    group *first;
};

struct groups {
    group *groups[BUCKETS];
    lane *lanes[BUCKETS];
    size_t count;
};

groups *groups_new(void) { return calloc(1, sizeof(groups)); }

/* ---- tables ------------------------------------------------------------------------------------
 */

/* Each hash is the seed of the next one, with the length, which keeps neighbours apart. */
static XXH128_hash_t identity_hash(const group_part *part) {
    XXH64_hash_t seed = XXH3_64bits_withSeed(part->store.data, part->store.len, part->sequence);
    seed = XXH3_64bits_withSeed(part->source.data, part->source.len, seed ^ part->source.len);
    return XXH3_128bits_withSeed(part->id.data, part->id.len, seed);
}

static uint64_t lane_hash(const group_part *part) {
    const XXH64_hash_t seed = XXH3_64bits(part->store.data, part->store.len);
    return XXH3_64bits_withSeed(part->key.data, part->key.len, seed);
}

static group **find_group(groups *it, XXH128_hash_t hash) {
    group **at = &it->groups[hash.low64 % BUCKETS];
    while (*at && ((*at)->high != hash.high64 || (*at)->low != hash.low64))
        at = &(*at)->next;
    return at;
}

static lane **find_lane(groups *it, uint64_t hash) {
    lane **at = &it->lanes[hash % BUCKETS];
    while (*at && (*at)->hash != hash)
        at = &(*at)->next;
    return at;
}

static group *make_group(groups *it, const group_part *part, XXH128_hash_t hash) {
    const uint64_t key = lane_hash(part);
    group *made = calloc(1, sizeof *made + part->size * sizeof *made->parts);
    lane **at = find_lane(it, key);
    if (made && !*at && (*at = calloc(1, sizeof **at))) (*at)->hash = key;
    if (!made || !*at) {
        free(made);
        return NULL;
    }
    made->high = hash.high64;
    made->low = hash.low64;
    made->next = it->groups[hash.low64 % BUCKETS];
    it->groups[hash.low64 % BUCKETS] = made;
    made->sequence = part->sequence;
    made->size = part->size;
    made->lane = *at;
    group **place = &made->lane->first;
    while (*place && (*place)->sequence < made->sequence)
        place = &(*place)->later;
    made->later = *place;
    *place = made;
    it->count++;
    return made;
}

static void free_group(groups *it, group *one) {
    group **at = &it->groups[one->low % BUCKETS], **place = &one->lane->first;
    while (*at != one)
        at = &(*at)->next;
    *at = one->next;
    while (*place != one)
        place = &(*place)->later;
    *place = one->later;
    if (!one->lane->first) {
        lane **lane_at = find_lane(it, one->lane->hash);
        lane *empty = *lane_at;
        *lane_at = empty->next;
        free(empty);
    }
    free(one);
    it->count--;
}

void groups_free(groups *it) {
    if (!it) return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (it->groups[i])
            free_group(it, it->groups[i]);
    free(it);
}

/* ---- parts -------------------------------------------------------------------------------------
 */

static void tell(const group *one, group_ready *to, void *arg) {
    const group_view view = {one->parts, one->size, one->have};
    to(arg, &view);
}

/* Those at the front of a lane that wait for nothing any more. */
static void take_ready(groups *it, lane *from, group_ready *torn, group_ready *ready, void *arg) {
    bool more = true;
    while (more) {
        group *first = from->first;
        const bool whole = first->have == first->size;
        if (!whole && !first->given_up) return;
        tell(first, whole ? ready : torn, arg);
        more = first->later != NULL; /* else the lane goes with it */
        free_group(it, first);
    }
}

outcome groups_add(groups *it, const group_part *part, int64_t now_ms, group_ready *ready,
                   void *arg, failure *why) {
    if (part->size < 1 || part->size > GROUP_PARTS_MAX || part->index >= part->size)
        return fail(why, ST_INVALID, "ce_groupindex", "part %u of %u: is not within 1 to %d",
                    part->index, part->size, GROUP_PARTS_MAX);
    const XXH128_hash_t hash = identity_hash(part);
    group *one = *find_group(it, hash);
    if (one && one->size != part->size)
        return fail(why, ST_INVALID, "ce_groupsize", "%u, but other parts of the group say %u",
                    part->size, one->size);
    if (one && one->parts[part->index])
        return fail(why, ST_INVALID, "ce_groupindex", "part %u is there twice", part->index);
    if (!one && !(one = make_group(it, part, hash)))
        return fail(why, ST_NO_MEMORY, "", "no memory for a group");
    one->parts[part->index] = part->part;
    one->have++;
    one->last_ms = now_ms;
    take_ready(it, one->lane, NULL, ready, arg);
    return ST_OK;
}

void groups_give_up(groups *it, int64_t before_ms, group_ready *torn, group_ready *ready,
                    void *arg) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (group *one = it->groups[i]; one; one = one->next)
            one->given_up = one->have < one->size && one->last_ms < before_ms;
    for (size_t i = 0; i < BUCKETS; i++)
        for (lane *next, *one = it->lanes[i]; one; one = next) {
            next = one->next;
            take_ready(it, one, torn, ready, arg);
        }
}

void groups_drop(groups *it, bool (*concerns)(void *arg, const void *part), group_ready *gone,
                 void *arg) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (group *next, *one = it->groups[i]; one; one = next) {
            bool drop = false;
            next = one->next;
            for (uint32_t k = 0; k < one->size && !drop; k++)
                drop = one->parts[k] && concerns(arg, one->parts[k]);
            if (!drop) continue;
            tell(one, gone, arg);
            free_group(it, one);
        }
}

size_t groups_count(const groups *it) { return it->count; }
