/*
 * replica: the way to one server. It connects, watches the server's health, keeps one
 * PublishStream open and sends what is queued over it, in order, at most `window` unanswered.
 *
 * When the stream breaks, what was sent and not answered goes back to the owner, the queue stays,
 * and a new connection is made after a pause that grows. The publisher's thread only; nothing
 * blocks.
 */
#ifndef INGEST_CLIENT_REPLICA_H
#define INGEST_CLIENT_REPLICA_H

#include <grpc/grpc_security.h>

#include "client/publisher/delivery.h"
#include "client/publisher/replica_state.h"
#include "client/publisher/retry.h"
#include "client/publisher/target.h"
#include "ingest/v1/ingest_service.pb-c.h"

typedef struct replica replica;

typedef struct replica_owner {
    void *of;
    /* The server's word on an event; it has left the replica. */
    void (*on_answer)(void *of, replica *it, delivery *event,
                      const Ingest__V1__PublishResult *result);
    /* Not answered, as the stream broke: the server may have stored it. It has left the replica. */
    void (*on_unanswered)(void *of, replica *it, delivery *event, const refusal *why);
    /* The server refuses all that we send (`sent`: this one may be stored). It has left. */
    void (*on_refused)(void *of, replica *it, delivery *event, const refusal *why, bool sent);
    /* It takes events now, or no longer, or is gone. `news`: for other reasons than were told last.
     */
    void (*on_change)(void *of, replica *it, bool news);
} replica_owner;

/* Shared by all replicas of a publisher; outlives them. */
typedef struct replica_settings {
    replica_owner owner;
    grpc_completion_queue *queue;
    grpc_channel_credentials *credentials;
    const char *authorization; /* or NULL */
    uint32_t window;
    uint32_t failover_ms; /* 0: never */
    bool until_published; /* an answer takes as long as Kafka is away: its absence tells nothing */
    backoff backoff;
    unsigned live; /* calls that the core has not given back */
} replica_settings;

/* Connects by itself, from replica_run on. */
replica *replica_new(const endpoint *at, replica_settings *settings, int64_t now_ms);
/* Drops the connection. What is queued or sent must have been taken. */
void replica_free(replica *it);

const char *replica_address(const replica *it);
uint64_t replica_hash(const replica *it);
bool replica_up(const replica *it); /* takes events now */
/* Why it takes none, for people; "" when it does. */
const char *replica_trouble(const replica *it);
bool replica_idle(const replica *it); /* has no events */
/* Not up for failover_ms. */
bool replica_gone(const replica *it, int64_t now_ms);

/* At its queue's end. */
void replica_queue(replica *it, delivery *event);
/* Takes it back, whether queued or sent; what was sent may still be stored. */
void replica_take(replica *it, delivery *event);
/* The first that is queued; NULL: none. */
delivery *replica_queued(const replica *it);
/* A sent event's time is over: if it was on the way long enough to tell that this stream does not
 * answer any more, a new one is made. */
void replica_overdue(replica *it, const delivery *event, int64_t now_ms);

/* What is due by now. */
void replica_run(replica *it, int64_t now_ms);
/* When it wants to run again, or to be asked whether it is gone. INT64_MAX: never. */
int64_t replica_due_ms(const replica *it);

#endif
