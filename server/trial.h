/*
 * trial: librdkafka's mock cluster inside the process, for trying the service out without Kafka.
 * It keeps records in memory only and knows neither aborted transactions nor compaction.
 */
#ifndef INGEST_SERVER_TRIAL_H
#define INGEST_SERVER_TRIAL_H

#include <stddef.h>

#include "storage/status.h"

typedef struct trial_kafka trial_kafka;

/* Starts the mock with these topics. Start-up only. */
MUST_CHECK outcome trial_kafka_start(const char *const *topics, size_t topic_count, int partitions,
                                     trial_kafka **out, failure *why);
const char *trial_kafka_brokers(const trial_kafka *it); /* host:port */
void trial_kafka_stop(trial_kafka *it);

#endif
