/*
 * delivery: an event that was taken and is not answered yet.
 *
 *   D_LINED_UP  behind another of its key         D_SENT     on a stream, unanswered
 *   D_HOMELESS  no replica is known yet           D_PAUSED   refused, to be sent again at resume_ms
 *   D_QUEUED    at its replica, to be sent
 *
 * A publishing thread makes it; from the inbox on it is the publisher's thread's alone.
 */
#ifndef INGEST_CLIENT_DELIVERY_H
#define INGEST_CLIENT_DELIVERY_H

#include <grpc/slice.h>
#include <sys/queue.h>

#include "client/publisher/refusal.h"
#include "ingest/publisher.h"

typedef enum delivery_state { D_LINED_UP, D_HOMELESS, D_QUEUED, D_SENT, D_PAUSED } delivery_state;

typedef struct delivery delivery;
struct replica;

struct delivery {
    delivery_state state;
    TAILQ_ENTRY(delivery) in_queue;    /* inbox; homeless, paused; the replica's queue */
    TAILQ_ENTRY(delivery) in_taken;    /* all, in the order taken */
    TAILQ_ENTRY(delivery) in_deadline; /* all, the earliest first */
    delivery *ahead, *behind;          /* of the same key */
    delivery *in_bucket;               /* the last of each key is found by it: see lanes.h */
    uint64_t ticket;                   /* in the order taken */
    uint64_t key_hash;
    int64_t deadline_ms;   /* monotonic, as the others */
    int64_t resume_ms;     /* D_PAUSED */
    int64_t sent_ms;       /* D_SENT */
    uint64_t slot;         /* D_SENT: its place among all that went over this stream */
    grpc_slice request;    /* owned; an encoded PublishRequest */
    struct replica *at;    /* D_QUEUED, D_SENT, D_PAUSED */
    struct replica *bound; /* the one that may have stored it */
    bool doubt;            /* it was sent and not answered: some replica may have stored it */
    bool moved;
    uint32_t attempts;
    char *last_trouble; /* owned; what became of the last attempt; NULL: nothing to tell */
    ingest_callback callback;
    void *arg;
    char *key, *id; /* in the same block */
};

TAILQ_HEAD(delivery_queue, delivery);
typedef struct delivery_queue delivery_queue;

/* `request` goes over. */
delivery *delivery_new(const char *key, const char *id, grpc_slice request,
                       ingest_callback callback, void *arg);
void delivery_free(delivery *it);
size_t delivery_size(const delivery *it);
void delivery_trouble(delivery *it, const char *text);

/* Puts it where its time belongs, searching from the end, where that nearly always is. */
void deadlines_insert(delivery_queue *queue, delivery *it);
void paused_insert(delivery_queue *queue, delivery *it);

#endif
