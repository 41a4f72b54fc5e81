/*
 * ingest_service: the methods of ingest.v1.IngestService over the runtime (rpc.h).
 *
 *   ingest_service.c  Publish, PublishBatch, GetEventStatus
 *   publish_stream.c  PublishStream
 *   publish_item.c    one event on its way, shared by all three
 *   event_intake.c    from a received event to an append
 */
#ifndef INGEST_SERVER_INGEST_SERVICE_H
#define INGEST_SERVER_INGEST_SERVICE_H

#include <stdatomic.h>

#include "server/ack_waiters.h"
#include "server/codec.h"
#include "server/event_intake.h"
#include "server/metrics.h"
#include "server/rpc.h"
#include "server/validate.h"

typedef struct ingest_service {
    intake rules;
    event_store *store;
    ack_waiters *waiters;
    char store_text[UUID_TEXT_SIZE];
    /* figures */
    histogram ack_duration;
    _Atomic uint64_t refused[OUTCOME_COUNT];
} ingest_service;

#define INGEST_METHOD_COUNT 4
/* Fills the methods' table; `service` must outlive the rpc server. */
void ingest_methods(ingest_service *service, rpc_method out[INGEST_METHOD_COUNT]);

/* Deep enough for any data, and within the 100 levels at which other protobuf decoders stop; the
 * number of fields bounds what a small message can cost in memory. */
#define INGEST_CODEC_LIMITS                                                                        \
    ((codec_limits){.max_depth = EVENT_MESSAGE_DEPTH_MAX, .max_fields = 250000})

/* How long a client should wait before it sends the refused request again; 0: never. */
uint32_t ingest_retry_ms(outcome result);
/* Counts a refusal. */
void ingest_count_refused(ingest_service *service, outcome result);

/* publish_stream.c */
void publish_stream_message(rpc_call *call, bytes message);
void publish_stream_half_close(rpc_call *call);
void publish_stream_sent(rpc_call *call);
void publish_stream_cancel(rpc_call *call);

#endif
