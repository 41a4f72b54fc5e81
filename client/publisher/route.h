/*
 * route: which replica an event goes to. Rendezvous hashing: each replica is weighed for the key,
 * the heaviest one wins; when one goes, only its own keys move, and they come back with it. Pure.
 */
#ifndef INGEST_CLIENT_ROUTE_H
#define INGEST_CLIENT_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/bytes.h"

/* How a replica stands. */
typedef struct route_facts {
    uint64_t hash; /* of its address */
    bool up;       /* takes events now */
    bool listed;   /* its address is among those of the target */
    bool gone;     /* not up for so long that its events move */
} route_facts;

enum { ROUTE_NOWHERE = -1 };

/* FNV-1a, mixed: the same on every machine and in every version, since order hangs on it. */
uint64_t route_hash(bytes text);

/*
 * The replica for a key; ROUTE_NOWHERE when there is none.
 *
 * `bound`: the one that may have stored the event, or ROUTE_NOWHERE. It stays there until that one
 * is gone. A replica that is no longer listed is kept as long as it is up. When all are gone, the
 * event waits at one that may come back.
 */
int route_choose(const route_facts *replicas, size_t count, uint64_t key, int bound);

#endif
