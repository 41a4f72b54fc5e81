/*
 * offline: what can be done to a store that no server has open. Look at all of it, repair it,
 * restore it under a new id. Each call locks the folder (ST_UNAVAILABLE when it is in use), blocks
 * for as long as the store is large, and belongs to one thread.
 */
#ifndef INGEST_STORAGE_OFFLINE_H
#define INGEST_STORAGE_OFFLINE_H

#include "storage/event_store.h"

/* Something that is not as it was written. */
typedef struct store_damage {
    char text[384]; /* which file, and what is wrong with it */
} store_damage;

/* Acknowledged events that are nowhere to be read any more. */
typedef struct store_loss {
    uint32_t route;
    uint64_t first; /* sequences, from and to */
    uint64_t last;
    bool dead; /* they were dead letters; otherwise pending, or published but not noted as such */
} store_loss;

typedef struct route_survey {
    char name[64];
    uint64_t hint;         /* what is up to here was published, and is not looked at */
    uint64_t last;         /* the last sequence that was given out, as far as anything says */
    uint64_t events;       /* readable above the hint */
    uint64_t dead;         /* readable dead letters */
    uint64_t dead_missing; /* dead letters that are gone, at most; nothing tells their sequences */
    uint64_t lost;         /* all that would be counted as lost now: sum of losses, dead_missing */
    uint64_t lost_before;  /* by earlier repairs */
} route_survey;

typedef struct store_survey {
    bool sound; /* no damage and no loss: the server will start */
    uuid store;
    /* What identifies the store to Kafka is unreadable: a repair gives it a new id, and whatever is
     * above the hints may be published twice. */
    bool identity_lost;
    char damage_id[9]; /* names this damage and this loss, for --accept-loss; "" when sound */
    store_damage *damages;
    size_t damage_count;
    store_loss *losses; /* ascending by route and sequence */
    size_t loss_count;
    route_survey routes[STORE_ROUTES_MAX];
    uint32_t route_count;
    uint64_t ids;         /* readable; of a damaged store some are counted more than once */
    bool ids_incomplete;  /* some are gone: a retried request of theirs is taken for a new one */
    uint64_t events_lost; /* sum over the routes */
    char kept_in[128];    /* store_repair: folder below the store's with the damaged files */
} store_survey;

void store_survey_free(store_survey *survey);

/*
 * Reads everything, and changes nothing: but a damaged store needs a folder `salvage` inside while
 * it is looked at. ST_OK whatever is found; else it could not be looked at: ST_NOT_FOUND no store
 * is there, ST_PRECONDITION written by a newer version.
 */
MUST_CHECK outcome store_verify(const char *directory, store_survey *survey, failure *why);

typedef struct repair_options {
    const char *accept; /* a survey's damage_id, or "any"; NULL: nothing */
    /* For the routes whose names are unreadable, by number; NULL: not given. */
    const char *names[STORE_ROUTES_MAX];
} repair_options;

/*
 * Makes a store that starts again of all that is readable: the same id, the same openings, each
 * lost event replaced by a tombstone and counted in `lost`. The damaged files are kept aside, in
 * DIRECTORY/damaged-TIME. Needs free space for a copy. Only what `accept` names is accepted,
 * otherwise ST_PRECONDITION, and the survey says what it is. A sound store is left alone.
 *
 * Cut short, it is run again; the server refuses to start meanwhile only when it has to.
 */
MUST_CHECK outcome store_repair(const char *directory, const repair_options *options,
                                store_survey *survey, failure *why);

/* A route after store_restore: what is above `published` up to `last` will be published, and is in
 * Kafka twice if it had been published by this store or a copy of it before. */
typedef struct route_restored {
    char name[64];
    uint64_t published;
    uint64_t last;
    uint64_t events; /* of them, tombstones left out */
} route_restored;

typedef struct store_restored {
    uuid before;
    uuid now;
    route_restored routes[STORE_ROUTES_MAX];
    uint32_t route_count;
} store_restored;

/*
 * Gives the store a new id, so that it has nothing to do with its past in Kafka, nor with other
 * copies of it: the way out when the volume was rolled back or cloned, when the positions topic or
 * the cluster is another one for good, or when Kafka lost what it had committed. The store has to
 * be sound. One synced write: done or not.
 */
MUST_CHECK outcome store_restore(const char *directory, store_restored *restored, failure *why);

#endif
