/*
 * inbox: where callers' threads, the resolver's and the publisher's own meet, under one lock:
 * events that were taken, the window that bounds them, the target's addresses, and what was
 * answered.
 *
 * The publisher's thread sleeps in the completion queue. Who leaves something rings the bell, but
 * only when that thread says that it sleeps: under load nobody does.
 */
#ifndef INGEST_CLIENT_INBOX_H
#define INGEST_CLIENT_INBOX_H

#include <pthread.h>

#include "client/publisher/bell.h"
#include "client/publisher/delivery.h"
#include "client/publisher/engine.h"
#include "client/publisher/target.h"

/* What was left for the publisher's thread. */
typedef struct inbox_news {
    delivery_queue events;
    endpoint *endpoints; /* owned; NULL: none */
    size_t endpoint_count;
    char no_address[256]; /* why there are none; "": no trouble */
    bool stop;            /* the thread is to end */
} inbox_news;

/* What the publisher's thread has done since it told last. */
typedef struct inbox_done {
    uint32_t answered;
    size_t answered_bytes;
    uint64_t settled; /* all up to this ticket are answered */
    engine_counts counts;
} inbox_done;

typedef struct inbox {
    uint32_t window;
    size_t window_bytes;
    bell *bell;           /* wakes the publisher's thread */
    pthread_mutex_t lock; /* over all below */
    pthread_cond_t room;  /* the window has room again, or closing */
    pthread_cond_t quiet; /* events were answered, or a waiting call has left */
    inbox_news news;
    uint32_t in_flight;
    size_t in_flight_bytes;
    uint64_t taken; /* ticket of the last that was taken */
    uint64_t settled;
    uint32_t waiting; /* calls that are inside */
    engine_counts counts;
    bool asleep;
    bool closing; /* takes no more */
} inbox;

void inbox_init(inbox *it, uint32_t window, size_t window_bytes, bell *wakes);
void inbox_destroy(inbox *it);

/* ---- callers' threads -------------------------------------------------------------------- */

/* Waits for room, at most until `until_ms`. INGEST_OK: the event has gone over, with a ticket and,
 * if it had none, a deadline in timeout_ms from now. Else INGEST_WINDOW_FULL, INGEST_CLOSED. */
ingest_status inbox_put(inbox *it, delivery *event, int64_t until_ms, uint32_t timeout_ms);
/* Waits until all that was taken before is answered; false when the time was over earlier. */
bool inbox_flush(inbox *it, int64_t until_ms);
void inbox_stats(inbox *it, ingest_publisher_stats *stats);
/* Takes no more, waits until nothing is in flight or the time is over, and tells the thread to
 * stop. */
void inbox_close(inbox *it, int64_t until_ms);
/* Waits until no call is inside; after inbox_close, with the thread ended. */
void inbox_wait_left(inbox *it);

/* ---- the resolver's thread --------------------------------------------------------------- */

/* They go over, in place of those that were left before. */
void inbox_put_endpoints(inbox *it, endpoint *all, size_t count);
void inbox_put_trouble(inbox *it, const char *why);

/* ---- the publisher's thread -------------------------------------------------------------- */

/* Empties it. */
void inbox_take(inbox *it, inbox_news *out);
void inbox_tell(inbox *it, const inbox_done *done);
/* Before it sleeps: true, the bell will ring for what comes from here on. False: there is something
 * already. */
bool inbox_sleep(inbox *it);
void inbox_awake(inbox *it);

#endif
