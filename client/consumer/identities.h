/*
 * identities: which events were seen, by (source, id), for a while: a set of hashes of 128 bits.
 * The oldest are forgotten first, by age and by number. Events of one identity have one key, so
 * they share a partition, and what a partition's records said goes with it. Pure; one thread.
 */
#ifndef INGEST_CLIENT_IDENTITIES_H
#define INGEST_CLIENT_IDENTITIES_H

#include "storage/bytes.h"

typedef struct identity {
    uint64_t high, low;
} identity;

identity identity_of(bytes source, bytes id);

typedef struct identities identities;

/* `most` 0: remembers nothing. Grows as needed, 40 bytes for each. NULL: no memory. */
identities *identities_new(uint64_t most, int64_t window_ms);
void identities_free(identities *it);

/* Whether it is known, from a record not older than the window. */
bool identities_known(const identities *it, identity one, int64_t now_ms);
/* Once for each. `time_ms` is its record's. False: no memory. */
__attribute__((warn_unused_result)) bool identities_add(identities *it, identity one,
                                                        uint32_t partition, int64_t time_ms);
/* All of a partition, which is not ours any more. */
void identities_forget(identities *it, uint32_t partition);

uint64_t identities_count(const identities *it);
/* How far back it reaches: the time of the oldest; INT64_MAX: there is none. */
int64_t identities_oldest_ms(const identities *it);

#endif
