/* Whose fault a code of librdkafka's is, and the words for it. Pure; any thread. */
#include "server/kafka_fault.h"

#include <stdarg.h>
#include <stdio.h>

fault kafka_fault(rd_kafka_resp_err_t code) {
    switch (code) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return FAULT_NONE;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
        return FAULT_RECORD;
    case RD_KAFKA_RESP_ERR__FENCED:
    case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
    case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
        return FAULT_FENCED;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__WAIT_COORD:
    case RD_KAFKA_RESP_ERR__WAIT_CACHE:
    case RD_KAFKA_RESP_ERR__RETRY:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
    case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
        return FAULT_AWAY;
    case RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS: /* even the end of the last one is not taken */
        return FAULT_STUCK;
    default:
        /* What a broker says and we do not know is the route's, so that people see it and no
         * event is blamed; what the library says calls for a new producer. */
        return (int)code > 0 ? FAULT_ROUTE : FAULT_FATAL;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
        return FAULT_ROUTE;
    case RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID: /* idle for longer than Kafka remembers ids */
    case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING:
    case RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER:
    case RD_KAFKA_RESP_ERR_INVALID_TXN_STATE:
        return FAULT_FATAL;
    }
}

fault kafka_failed(sink_failure *why, fault what, rd_kafka_resp_err_t code, const char *format,
                   ...) {
    va_list arguments;
    why->fault = what;
    why->code = (int32_t)code;
    va_start(arguments, format);
    vsnprintf(why->text, sizeof why->text, format, arguments);
    va_end(arguments);
    return what;
}

fault kafka_failed_code(sink_failure *why, const char *doing, rd_kafka_resp_err_t code) {
    return kafka_failed(why, kafka_fault(code), code, "%s: %s (%s)", doing, rd_kafka_err2str(code),
                        rd_kafka_err2name(code));
}

/* Takes the error. */
fault kafka_failed_error(sink_failure *why, const char *doing, rd_kafka_error_t *error) {
    fault what = kafka_fault(rd_kafka_error_code(error));
    if (rd_kafka_error_is_fatal(error) && what == FAULT_AWAY) what = FAULT_FATAL;
    kafka_failed(why, what, rd_kafka_error_code(error), "%s: %s (%s)", doing,
                 rd_kafka_error_string(error), rd_kafka_error_name(error));
    rd_kafka_error_destroy(error);
    return what;
}

fault kafka_failed_time(sink_failure *why, const char *doing) {
    return kafka_failed(why, FAULT_AWAY, RD_KAFKA_RESP_ERR__TIMED_OUT, "%s: no answer in time",
                        doing);
}
