/*
 * bell: wakes the thread that waits on a completion queue. The C core has nothing for this in its
 * public interface; what is closest is a watch on the state of a channel that is never connected,
 * which is told at once when asked for a change from a state that it is not in.
 */
#ifndef INGEST_CLIENT_BELL_H
#define INGEST_CLIENT_BELL_H

#include <grpc/grpc.h>

#include "client/publisher/stream.h"

typedef struct bell {
    stream_tag tag; /* comes back once for each time that it rang, and does nothing */
    grpc_channel *channel;
    grpc_completion_queue *queue;
} bell;

void bell_init(bell *it, grpc_completion_queue *queue);
void bell_destroy(bell *it);
/* Any thread; not once the queue is shut down. */
void bell_ring(bell *it);

#endif
