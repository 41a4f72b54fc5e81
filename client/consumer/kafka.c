/*
 * The client of librdkafka: its settings, its log, its errors. Callbacks run on the driver's
 * thread, within rd_kafka_consumer_poll, but for the log, which comes from any thread.
 */
#include <stdio.h>
#include <stdlib.h>

#include "client/consumer/driver.h"

typedef struct setting {
    const char *name, *value;
} setting;

static outcome set(rd_kafka_conf_t *conf, const char *name, const char *value, failure *why) {
    char text[256];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) == RD_KAFKA_CONF_OK) return ST_OK;
    return fail(why, ST_INVALID, "properties", "%s", text);
}

static outcome set_all(const consumer *it, rd_kafka_conf_t *conf, failure *why) {
    const ingest_consumer_options *options = &it->settings.options;
    const setting defaults[] = {
        {"client.id", "ingest-consumer"},
        {"queued.max.messages.kbytes", "8192"}, /* for each partition: it is memory */
        {"reconnect.backoff.max.ms", "5000"},
        {"fetch.error.backoff.ms", "100"},
        {"topic.metadata.refresh.interval.ms", "10000"}, /* a topic that is made later is noticed */
    };
    const setting ours[] = {
        {"bootstrap.servers", options->brokers},
        {"group.id", options->group},
        {"isolation.level", "read_committed"},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"enable.partition.eof", "true"},
        {"debug", "cgrp"}, /* joining.h */
        {"auto.offset.reset", "error"},
        {"partition.assignment.strategy",
         options->groups_span_topics ? "range" : "cooperative-sticky"},
    };
    outcome result = ST_OK;
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults && result == ST_OK; i++)
        result = set(conf, defaults[i].name, defaults[i].value, why);
    for (const char *const *one = options->properties; one && *one && result == ST_OK; one += 2)
        result = set(conf, one[0], one[1], why);
    for (size_t i = 0; i < sizeof ours / sizeof *ours && result == ST_OK; i++)
        result = set(conf, ours[i].name, ours[i].value, why);
    return result;
}

/* ---- what it tells --------------------------------------------------------------------------- */

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    enum { WARNING = 4 }; /* of syslog */
    consumer *it = rd_kafka_opaque(rk);
    joining_hear(&it->joining, facility, text);
    if (level <= WARNING) driver_log(it, "librdkafka: %s: %s", facility, text);
}

/* Passing troubles are in the log; these stay until somebody does something. */
static bool for_people(rd_kafka_resp_err_t code) {
    switch (code) {
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__SSL:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
    case RD_KAFKA_RESP_ERR__INCONSISTENT:
        return true;
    default:
        return false;
    }
}

void kafka_error(consumer *it, rd_kafka_resp_err_t code, const char *text) {
    char fatal[256];
    if (rd_kafka_fatal_error(it->rk, fatal, sizeof fatal))
        driver_end(it, ST_UNAVAILABLE, "kafka", "%s", fatal);
    else if (for_people(code))
        driver_alarm(it, INGEST_ALARM_KAFKA, "Kafka refuses: %s (%s)", text,
                     rd_kafka_err2name(code));
    else
        driver_log(it, "Kafka: %s (%s)", text, rd_kafka_err2name(code));
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *arg) {
    (void)rk;
    kafka_error(arg, (rd_kafka_resp_err_t)code, reason);
}

/* ---- opening --------------------------------------------------------------------------------- */

outcome kafka_open(consumer *it, failure *why) {
    char text[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    outcome result = set_all(it, conf, why);
    if (result == ST_OK) {
        rd_kafka_conf_set_opaque(conf, it);
        rd_kafka_conf_set_log_cb(conf, on_log);
        rd_kafka_conf_set_error_cb(conf, on_error);
        rd_kafka_conf_set_rebalance_cb(conf, partitions_rebalance);
        joining_watch(&it->joining, conf);
        it->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
        if (!it->rk) result = fail(why, ST_INVALID, "properties", "%s", text);
    }
    if (result != ST_OK) rd_kafka_conf_destroy(conf);
    return result;
}

char *kafka_topic_name(consumer *it, const char *name) {
    for (size_t i = 0; i < it->topic_count; i++)
        if (strcmp(it->topics[i], name) == 0) return it->topics[i];
    char **grown = realloc(it->topics, (it->topic_count + 1) * sizeof(*grown));
    if (!grown) return NULL;
    it->topics = grown;
    if ((grown[it->topic_count] = strdup(name))) return grown[it->topic_count++];
    return NULL;
}
