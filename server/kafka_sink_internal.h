/*
 * kafka_sink_internal: the sink's state, shared by kafka_sink.c and kafka_position.c and nobody
 * else.
 */
#ifndef INGEST_SERVER_KAFKA_SINK_INTERNAL_H
#define INGEST_SERVER_KAFKA_SINK_INTERNAL_H

#include "server/kafka_sink.h"

#include <pthread.h>

#include "server/log.h"

#define KAFKA_SINK_SLICE_MS 500 /* of every long call; then *abandon or *stopping is looked at */

typedef struct producer producer;
struct kafka_sink {
    sink_options options;
    char key[POSITION_KEY_SIZE];
    char transactional_id[POSITION_KEY_SIZE + 8];
    producer *current; /* NULL after discard */
    int64_t position_offset;
    int64_t read_to; /* end of the last reading of the position; -1: it is confirmed */
    atomic_bool reachable;
    pthread_mutex_t log_lock; /* librdkafka logs from its own threads */
    log_limit log_limits[2];
};

/* A consumer without a group. NULL: why->fault. */
rd_kafka_t *kafka_sink_reader(kafka_sink *it, const char *isolation, sink_failure *why);
/* Where the position record of the open transaction stands, once it is flushed. */
int64_t kafka_sink_written_offset(const kafka_sink *it);
bool kafka_sink_out_of_time(const atomic_bool *cancelled, int64_t deadline_ms);

#endif
