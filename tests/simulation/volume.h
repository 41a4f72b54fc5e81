/*
 * volume: what the simulated store keeps on disk, and what opens it. The store does in memory what
 * storage/event_store.h and storage/committer.h promise: a write takes the time of a sync, is
 * durable or not when the process dies meanwhile, and shows only afterwards. A volume can be copied
 * at any time, which is a snapshot, a clone, or a disk taken away from a paused process.
 */
#ifndef INGEST_SIMULATION_VOLUME_H
#define INGEST_SIMULATION_VOLUME_H

#include "storage/event_store.h"
#include "world.h"

#define EVENTS_MAX 256
#define OPENINGS_MAX 256

/* What a client wants to be published. The life's. */
typedef struct event {
    char id[24]; /* begins with p when the topic refuses it */
    char key[24];
    unsigned parts;
    bytes body; /* ingest.v1.Event */
    bool acknowledged;
    uint64_t sequence; /* with acknowledged */
} event;

typedef struct volume {
    uuid id;
    struct {
        uuid id;
        uint64_t last_at_open;
    } openings[OPENINGS_MAX]; /* the last one is the present one's, or the last one's */
    size_t opening_count;
    uint64_t last;
    const event *events[EVENTS_MAX + 1]; /* by sequence */
    bool dead[EVENTS_MAX + 1];           /* moved to the dead letters */
    route_anchor anchor;
} volume;

void volume_make(volume *it);

/* The one that the publisher of `by` will use. A volume is open at most once. */
event_store *volume_open(volume *it, process *by);
/* After its process has ended. */
void volume_close(event_store *store);
/* The disk is taken away: what is written from now on fails. */
void volume_detach(event_store *store);

/* Appends in one batch; `acknowledged` is called for each event once it is synced. An event with
 * an id that is known is acknowledged as a duplicate. */
void volume_append(event_store *store, event *const *events, size_t count,
                   void (*acknowledged)(event_store *, event *));
/* Position that the publisher told. */
uint64_t volume_position(const event_store *store);

#endif
