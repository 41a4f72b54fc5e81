/*
 * lanes: events of one key, one behind the other. Only the first of a lane is on its way; that is
 * what keeps the order of a key through refusals, retries and broken streams. Pure.
 */
#ifndef INGEST_CLIENT_LANES_H
#define INGEST_CLIENT_LANES_H

#include "client/publisher/delivery.h"

typedef struct lanes {
    delivery **buckets; /* owned; each a list of the last events of lanes, by in_bucket */
    size_t mask;
} lanes;

void lanes_init(lanes *all, size_t expected);
void lanes_free(lanes *all); /* empty by then */

/* At the end of its lane. True: it is the first, and may go. */
bool lanes_add(lanes *all, delivery *it);
/* Out of its lane. Returns the one that has become the first by this, or NULL. */
delivery *lanes_remove(lanes *all, delivery *it);

#endif
