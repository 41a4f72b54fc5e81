/*
 * oracle: what the store has told its users, in a file of its own outside the store's volume, and
 * in memory. A note is in the file before the call that makes it returns; the power that is cut is
 * the volume's, so what was written here stays.
 *
 * Any thread. Whatever contradicts an earlier note ends the process by violation().
 */
#ifndef INGEST_TESTS_ORACLE_H
#define INGEST_TESTS_ORACLE_H

#include "events.h"

typedef struct known_event {
    uint64_t number;   /* 0: none */
    uint64_t sequence; /* 0: was submitted; nobody has seen it stored */
} known_event;

typedef struct known_place { /* what is known of a sequence of a route */
    uint64_t number;         /* of its event; 0: nothing is known */
    bool acked;
    bool seen; /* somebody has read it */
    bool bury_tried;
    bool buried;
} known_place;

typedef struct known_route {
    known_place *places; /* by sequence */
    uint64_t last;       /* highest one that is known */
    uint64_t position;   /* published up to here */
    uuid incarnation;    /* which one did */
    bool anchored;       /* has_published was made durable */
    uint64_t anchor;     /* a hint that was made durable */
} known_route;

_Noreturn void violation(const char *format, ...) PRINTF_LIKE(1, 2);

void oracle_open(const char *path);
/* For reading: places up to `last` of the route do not change their numbers. */
const known_route *oracle_route(uint32_t route);
known_place oracle_place(uint32_t route, uint64_t sequence);
/* 0 for an unknown event. */
uint64_t oracle_sequence(uint64_t number);
/* Of those that are known, in the order in which they were submitted; 0: there are fewer. */
uint64_t oracle_event(uint64_t index);
uint64_t oracle_events(void);
uint64_t oracle_dead(uint32_t route, bool tried); /* buried; or else tried */
uint64_t oracle_acks(void);                       /* in this process */

void oracle_submitted(uint64_t number);
void oracle_acked(uint64_t number, uint64_t sequence);
/* Somebody has read it there: from now on it has to stay. */
void oracle_seen(uint32_t route, uint64_t sequence, uint64_t number);
void oracle_bury_tried(uint32_t route, uint64_t sequence);
void oracle_buried(uint32_t route, uint64_t sequence);
void oracle_published(uint32_t route, uint64_t sequence, const uuid *incarnation);
void oracle_anchored(uint32_t route, uint64_t sequence);

#endif
