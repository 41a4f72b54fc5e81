/* A hash table of lanes, each found by its last event, which is what a new one is put behind. */
#include "client/publisher/lanes.h"

#include <stdlib.h>

void lanes_init(lanes *all, size_t expected) {
    size_t size = 16;
    while (size < expected)
        size *= 2;
    all->buckets = calloc(size, sizeof(delivery *));
    if (!all->buckets) abort();
    all->mask = size - 1;
}

void lanes_free(lanes *all) { free(all->buckets); }

/* Where the pointer to the last event of this key is, or would be. */
static delivery **find(lanes *all, const delivery *of) {
    delivery **at = &all->buckets[of->key_hash & all->mask];
    while (*at && ((*at)->key_hash != of->key_hash || strcmp((*at)->key, of->key) != 0))
        at = &(*at)->in_bucket;
    return at;
}

/* `by`, which may be NULL, takes the place of `*at` in its bucket. */
static void replace(delivery **at, delivery *by) {
    delivery *rest = (*at)->in_bucket;
    if (by) by->in_bucket = rest;
    *at = by ? by : rest;
}

bool lanes_add(lanes *all, delivery *it) {
    delivery **at = find(all, it);
    it->ahead = *at;
    it->behind = NULL;
    if (it->ahead) {
        it->ahead->behind = it;
        replace(at, it);
    } else {
        it->in_bucket = NULL;
        *at = it;
    }
    return !it->ahead;
}

delivery *lanes_remove(lanes *all, delivery *it) {
    if (!it->behind) replace(find(all, it), it->ahead);
    if (it->ahead) it->ahead->behind = it->behind;
    if (it->behind) it->behind->ahead = it->ahead;
    return it->ahead ? NULL : it->behind;
}
