#include "client/consumer/keys.h"

#include <stdlib.h>

enum { FIRST_BUCKETS = 1024 };

bool keys_init(keys *it) {
    *it = (keys){.mask = FIRST_BUCKETS - 1};
    it->buckets = calloc(FIRST_BUCKETS, sizeof(*it->buckets));
    return it->buckets != NULL;
}

void keys_free(keys *it) {
    free(it->buckets);
    *it = (keys){0};
}

static key_place **find(const keys *it, uint64_t hash) {
    key_place **at = &it->buckets[hash & it->mask];
    while (*at && (*at)->hash != hash)
        at = &(*at)->newer;
    return at;
}

/* As many buckets as keys. When memory is out the chains just get longer. */
static void grow(keys *it) {
    const size_t mask = 2 * it->mask + 1;
    key_place **buckets = calloc(mask + 1, sizeof(*buckets));
    if (!buckets) return;
    for (size_t i = 0; i <= it->mask; i++)
        for (key_place *next, *place = it->buckets[i]; place; place = next) {
            next = place->newer;
            place->newer = buckets[place->hash & mask];
            buckets[place->hash & mask] = place;
        }
    free(it->buckets);
    it->buckets = buckets;
    it->mask = mask;
}

bool keys_push(keys *it, key_place *place, uint64_t hash) {
    *place = (key_place){.hash = hash, .queued = true};
    if (it->count > it->mask) grow(it);
    key_place **at = find(it, hash);
    if (*at) {
        key_place *front = *at;
        place->before = front->last;
        front->last->behind = place;
        front->last = place;
        return false;
    }
    *at = place;
    place->last = place;
    it->count++;
    return true;
}

bool keys_is_front(const key_place *place) { return place->queued && !place->before; }

/* The front leaves; the second takes its place in the bucket. */
static key_place *remove_front(keys *it, key_place *place) {
    key_place **at = find(it, place->hash), *second = place->behind;
    if (!second) {
        *at = place->newer;
        it->count--;
        return NULL;
    }
    second->before = NULL;
    second->last = place->last;
    second->newer = place->newer;
    *at = second;
    return second;
}

key_place *keys_remove(keys *it, key_place *place) {
    key_place *second = NULL;
    if (!place->queued) return NULL;
    if (place->before) {
        place->before->behind = place->behind;
        if (place->behind)
            place->behind->before = place->before;
        else
            (*find(it, place->hash))->last = place->before;
    } else {
        second = remove_front(it, place);
    }
    *place = (key_place){0};
    return second;
}
