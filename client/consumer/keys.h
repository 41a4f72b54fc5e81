/*
 * keys: the order of events that share a key. One is at the front of its key and may run, the
 * others wait behind it. Keys are told apart by a hash of 64 bits: two of one hash only wait for
 * each other without need. Pure; one thread; allocates nothing but the table.
 */
#ifndef INGEST_CLIENT_KEYS_H
#define INGEST_CLIENT_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lies inside what is ordered. Zeroed: in no queue. */
typedef struct key_place {
    uint64_t hash;
    struct key_place *before, *behind; /* of the same key */
    struct key_place *newer;           /* front places: of the same bucket */
    struct key_place *last;            /* front places: the last of the key */
    bool queued;
} key_place;

typedef struct keys {
    key_place **buckets; /* owned */
    size_t mask;
    size_t count; /* keys in use */
} keys;

/* False: no memory. */
__attribute__((warn_unused_result)) bool keys_init(keys *it);
void keys_free(keys *it);

/* At the end of its key. True: it is at the front. */
bool keys_push(keys *it, key_place *place, uint64_t hash);
bool keys_is_front(const key_place *place);
/* Takes it out, wherever it is. The one that comes to the front by that, or NULL. */
key_place *keys_remove(keys *it, key_place *place);

#endif
