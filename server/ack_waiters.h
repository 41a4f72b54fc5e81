/*
 * ack_waiters: requests with ACK_PUBLISHED that are stored and wait until the settled position of
 * their route passes them. Bounded by the calls in flight. Any thread; one lock, never held over
 * I/O or over a callback.
 */
#ifndef INGEST_SERVER_ACK_WAITERS_H
#define INGEST_SERVER_ACK_WAITERS_H

#include "storage/event_store.h"

typedef struct ack_waiters ack_waiters;
typedef struct ack_waiter ack_waiter;

/* Part of the request that waits; zeroed by its owner, then not touched while it waits. */
struct ack_waiter {
    uint32_t route;
    uint64_t sequence;
    bool dead;      /* known to be a dead letter already: answered at once */
    size_t place;   /* 1 + index in the heap; 0: does not wait */
    bool cancelled; /* before it began to wait */
    ack_waiter *next;
    /* Called once: ST_OK published; ST_DEAD_LETTER with its reason; ST_STOPPING the server ends
     * first; ST_TIMEOUT cancelled. On the publisher's or the caller's thread; must not block. */
    void (*done)(ack_waiter *waiter, outcome result, const char *reason);
};

ack_waiters *ack_waiters_new(event_store *store);
void ack_waiters_free(ack_waiters *all); /* nothing may wait any more */

/* Waits, or calls done() at once when the event's fate is settled already. */
void ack_waiters_add(ack_waiters *all, ack_waiter *waiter);
/* The caller is gone: done() with ST_TIMEOUT now if it waits, or as soon as it would begin to. */
void ack_waiters_cancel(ack_waiters *all, ack_waiter *waiter);

/* From the publisher of the route. */
void ack_waiters_position(ack_waiters *all, uint32_t route, uint64_t sequence);
void ack_waiters_dead(ack_waiters *all, uint32_t route, uint64_t sequence, const char *reason);
/* Answers all that wait, and all that come later, with ST_STOPPING. */
void ack_waiters_stop(ack_waiters *all);

#endif
