/*
 * kafka_sink: one route's way into Kafka on librdkafka: a producer that can be thrown away, the
 * transactions on it, and the reading of the position. It decides nothing; a failure is handed
 * back with whose fault it is.
 *
 * Threads: one, but for kafka_sink_reachable. Every function ends in finite time: see the limits
 * in kafka_sink.c. Setting *stopping ends what only prepares for publishing; setting *abandon
 * ends everything, both within a second.
 */
#ifndef INGEST_SERVER_KAFKA_SINK_H
#define INGEST_SERVER_KAFKA_SINK_H

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

#include "server/kafka_fault.h"
#include "server/kafka_record.h"
#include "server/position.h"

#define KAFKA_CLUSTER_ID_SIZE 128

typedef struct kafka_sink kafka_sink;

typedef struct sink_options {
    const config *config; /* these outlive the sink */
    const route_config *route;
    uuid store;
    const atomic_bool *stopping;
    const atomic_bool *abandon;
} sink_options;

/* The functions below return FAULT_NONE, or fill `why` and return why->fault. */

kafka_sink *kafka_sink_new(const sink_options *options); /* does not connect */
void kafka_sink_free(kafka_sink *it);                    /* NULL is fine */

/* ---- settling ---------------------------------------------------------------------------- */

/* A new producer. With transactions: fences every earlier one of this store and route, and ends
 * what it left open. It sends batches of less than `batch_bytes`, or single records; 0: the
 * default. */
MUST_CHECK fault kafka_sink_open(kafka_sink *it, uint64_t batch_bytes, sink_failure *why);
/* Throws the producer away, and aborts its transaction if that is certain to be open. */
void kafka_sink_discard(kafka_sink *it);

MUST_CHECK fault kafka_sink_cluster_id(kafka_sink *it, char id[KAFKA_CLUSTER_ID_SIZE],
                                       sink_failure *why);
MUST_CHECK fault kafka_sink_partition_count(kafka_sink *it, const char *topic, int32_t *count,
                                            sink_failure *why);

typedef struct found_position {
    bool found;
    position position;
    int64_t offset; /* of its record */
    int64_t end;    /* the offset up to which was read; -1: it did not come to an end */
} found_position;

/* The last committed position of this route. Reads from `hint`, an offset where one was once, or
 * from the beginning (-1). To be called after kafka_sink_open, which settles what was open. */
MUST_CHECK fault kafka_sink_read_position(kafka_sink *it, const char *topic, int32_t partition,
                                          int64_t hint, found_position *out, sink_failure *why);

/* ---- a transaction ------------------------------------------------------------------------- */

MUST_CHECK fault kafka_sink_begin(kafka_sink *it, sink_failure *why);
/* One record of the event `sequence`; the bytes are copied. */
MUST_CHECK fault kafka_sink_produce(kafka_sink *it, const kafka_record *record, uint64_t sequence,
                                    sink_failure *why);
MUST_CHECK fault kafka_sink_produce_position(kafka_sink *it, const char *topic, int32_t partition,
                                             const position *value, sink_failure *why);
/* Waits until every record is delivered, or one has failed. */
MUST_CHECK fault kafka_sink_flush(kafka_sink *it, sink_failure *why);
/*
 * Whether the position that was read last is still the last one; to be called between flush and
 * commit. A broker that has lost the lead of the partition and does not know it yet may have
 * answered kafka_sink_read_position, from long ago; but it cannot have taken our position record,
 * so what lies between the two is read now. Does nothing once it has been confirmed.
 */
MUST_CHECK fault kafka_sink_confirm_position(kafka_sink *it, const char *topic, int32_t partition,
                                             sink_failure *why);
/* `transport_error`: a connection was lost since begin. */
MUST_CHECK fault kafka_sink_commit(kafka_sink *it, int64_t *elapsed_ms, bool *transport_error,
                                   sink_failure *why);
/* Offset of the position record of the last transaction. */
int64_t kafka_sink_position_offset(const kafka_sink *it);

/* ---- the rest -------------------------------------------------------------------------------- */

/* Serves librdkafka's callbacks; now and then while idle. */
void kafka_sink_poll(kafka_sink *it);
/* The producer's handle, for kafka_topics; NULL when there is none. */
rd_kafka_t *kafka_sink_handle(kafka_sink *it);
bool kafka_sink_reachable(const kafka_sink *it); /* any thread */

#endif
