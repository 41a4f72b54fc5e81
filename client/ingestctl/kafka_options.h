/* kafka_options: how a command reaches Kafka: --kafka, and --set NAME=VALUE for librdkafka. */
#ifndef INGEST_CLIENT_INGESTCTL_KAFKA_OPTIONS_H
#define INGEST_CLIENT_INGESTCTL_KAFKA_OPTIONS_H

#include "client/ingestctl/command.h"

/* clang-format off */
#define KAFKA_OPTION {"kafka", "BROKERS", "default INGEST_KAFKA_BROKERS, then localhost:9092"}
#define KAFKA_SET_OPTION                                                                           \
    {"set", "NAME=VALUE", "a property of librdkafka, for TLS or SASL; may be repeated"}
/* clang-format on */

/* Names and values in turn, ending with NULL. */
typedef struct kafka_properties {
    const char *list[2 * ARGUMENTS_MAX + 1];
    char *texts[ARGUMENTS_MAX]; /* owned: what the names and values point into */
    size_t count;
} kafka_properties;

const char *kafka_brokers(const arguments *given);
/* False: said on stderr. To be freed either way. */
bool kafka_properties_of(const arguments *given, kafka_properties *out);
void kafka_properties_free(kafka_properties *it);

#endif
