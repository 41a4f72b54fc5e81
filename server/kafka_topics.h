/*
 * kafka_topics: makes the topics of a route that are missing (kafka.create_topics), and warns of
 * settings with which Kafka may lose what it has committed. Nothing here stops the publisher: a
 * topic that cannot be written shows when it is written.
 */
#ifndef INGEST_SERVER_KAFKA_TOPICS_H
#define INGEST_SERVER_KAFKA_TOPICS_H

#include <librdkafka/rdkafka.h>

#include "server/config.h"
#include "storage/catalogue.h"

/*
 * Of the route's topics; the first route of the configuration also checks those that all share.
 * Blocks, for at most some ten seconds a step. False: Kafka did not answer, try again later.
 * What is wrong, and what we may not ask, is logged.
 */
bool kafka_topics_prepare(rd_kafka_t *rk, const config *all, const route_config *route,
                          const catalogue *entries);

#endif
