/*
 * stream: one call on the gRPC C core, messages both ways. The publisher's thread only: its
 * completion queue brings every event. Nothing blocks.
 *
 * Life: stream_open .. on_end or stream_drop; after either the pointer is invalid for the owner.
 * It frees itself when the core has given back all its tags; *live counts those that are not.
 */
#ifndef INGEST_CLIENT_STREAM_H
#define INGEST_CLIENT_STREAM_H

#include <grpc/grpc.h>
#include <stdbool.h>

#include "client/publisher/refusal.h"

typedef struct stream stream;

/* What the completion queue hands out. */
typedef struct stream_tag {
    void (*done)(struct stream_tag *tag, bool ok);
} stream_tag;

typedef struct stream_events {
    void (*on_ready)(void *owner); /* a message may be sent: at the start, and after each */
    void (*on_message)(void *owner, bytes message);
    void (*on_end)(void *owner, const refusal *why); /* the last one */
} stream_events;

/* `authorization`: metadata of that name, or NULL. */
stream *stream_open(grpc_channel *channel, grpc_completion_queue *queue, const char *path,
                    const char *authorization, const stream_events *events, void *owner,
                    unsigned *live);
/* After on_ready, once. `more`: another follows at once, so the core may gather them; `last`: none
 * will. Takes no reference that outlives the call. */
void stream_send(stream *it, grpc_slice message, bool more, bool last);
/* Cancels. No callback comes any more. */
void stream_drop(stream *it);

#endif
