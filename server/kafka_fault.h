/*
 * kafka_fault: what failed at Kafka, whose fault it is, and the words for it. Each kafka_failed_*
 * fills `why` and returns why->fault, so that it ends a function.
 */
#ifndef INGEST_SERVER_KAFKA_FAULT_H
#define INGEST_SERVER_KAFKA_FAULT_H

#include <librdkafka/rdkafka.h>

#include "server/publisher_machine.h"

typedef struct sink_failure {
    fault fault;
    int32_t code; /* librdkafka's, or 0 */
    char text[480];
} sink_failure;

fault kafka_fault(rd_kafka_resp_err_t code);

PRINTF_LIKE(4, 5)
fault kafka_failed(sink_failure *why, fault what, rd_kafka_resp_err_t code, const char *format,
                   ...);
fault kafka_failed_code(sink_failure *why, const char *doing, rd_kafka_resp_err_t code);
/* Takes the error. */
fault kafka_failed_error(sink_failure *why, const char *doing, rd_kafka_error_t *error);
fault kafka_failed_time(sink_failure *why, const char *doing);

#endif
