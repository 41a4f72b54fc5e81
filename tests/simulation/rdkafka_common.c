/* What every handle has. A handle is the world's and is never freed before the run ends, so that
 * late answers find it; whether the sink destroys them all is told by rdkafka_alive. */
#include "rdkafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- configuration --------------------------------------------------------------------------- */

rd_kafka_conf_t *rd_kafka_conf_new(void) { return calloc(1, sizeof(rd_kafka_conf_t)); }
void rd_kafka_conf_destroy(rd_kafka_conf_t *conf) { free(conf); }

/* Values that the simulation builds on must be what it takes them for. */
static bool is_expected(const char *name, const char *value) {
    static const struct {
        const char *name, *value;
    } EXPECTED[] = {
        {"enable.idempotence", "true"},       {"acks", "all"},
        {"retry.backoff.ms", "1000"},         {"retry.backoff.max.ms", "1000"},
        {"transaction.timeout.ms", "120000"}, {"enable.partition.eof", "true"},
        {"auto.offset.reset", "error"},
    };
    for (size_t i = 0; i < sizeof EXPECTED / sizeof *EXPECTED; i++)
        if (strcmp(name, EXPECTED[i].name) == 0) return strcmp(value, EXPECTED[i].value) == 0;
    return true;
}

rd_kafka_conf_res_t rd_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value,
                                      char *text, size_t size) {
    (void)text, (void)size;
    if (!is_expected(name, value)) world_violate("the sink sets %s=%s", name, value);
    if (strcmp(name, "transactional.id") == 0)
        snprintf(conf->transactional_id, sizeof conf->transactional_id, "%s", value);
    if (strcmp(name, "isolation.level") == 0)
        conf->read_committed = strcmp(value, "read_committed") == 0;
    return RD_KAFKA_CONF_OK;
}

void rd_kafka_conf_set_opaque(rd_kafka_conf_t *conf, void *opaque) { conf->opaque = opaque; }

void rd_kafka_conf_set_error_cb(rd_kafka_conf_t *conf,
                                void (*on_error)(rd_kafka_t *, int, const char *, void *)) {
    conf->on_error = on_error;
}

void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *conf,
                                 void (*on_delivery)(rd_kafka_t *, const rd_kafka_message_t *,
                                                     void *)) {
    conf->on_delivery = on_delivery;
}

void rd_kafka_conf_set_log_cb(rd_kafka_conf_t *conf,
                              void (*on_log)(const rd_kafka_t *, int, const char *, const char *)) {
    (void)conf, (void)on_log;
}

/* ---- handles ----------------------------------------------------------------------------------
 */

static int alive;

void rdkafka_begin(void) { alive = 0; }
int rdkafka_alive(void) { return alive; }

rd_kafka_t *rd_kafka_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *text, size_t size) {
    (void)text, (void)size;
    rd_kafka_t *rk = world_hold(sizeof *rk);
    rk->conf = *conf;
    rk->type = type;
    rk->owner = process_current();
    rk->stale = !network_is_calm && chance(300);
    if (type == RD_KAFKA_PRODUCER) rk->reports = world_hold(REPORTS_MAX * sizeof *rk->reports);
    free(conf);
    alive++;
    return rk;
}

void rd_kafka_destroy(rd_kafka_t *rk) {
    if (rk->destroyed) world_violate("a handle is destroyed twice");
    rk->destroyed = true;
    alive--;
}

void *rd_kafka_opaque(const rd_kafka_t *rk) { return rk->conf.opaque; }

rd_kafka_resp_err_t rd_kafka_last_error(void) { return RD_KAFKA_RESP_ERR__FAIL; }

bool wait_until(rd_kafka_t *rk, int64_t deadline) {
    if (rk->owner->killed || world_now() >= deadline) return false;
    process_wait_until(deadline);
    return !rk->owner->killed;
}

/* ---- errors -----------------------------------------------------------------------------------
 */

rd_kafka_error_t *new_error(rd_kafka_resp_err_t code, bool retriable, bool fatal) {
    rd_kafka_error_t *error = calloc(1, sizeof *error);
    *error = (rd_kafka_error_t){.code = code, .retriable = retriable, .fatal = fatal};
    snprintf(error->text, sizeof error->text, "simulated: %s", rd_kafka_err2name(code));
    return error;
}

void rd_kafka_error_destroy(rd_kafka_error_t *error) { free(error); }
rd_kafka_resp_err_t rd_kafka_error_code(const rd_kafka_error_t *error) { return error->code; }
const char *rd_kafka_error_string(const rd_kafka_error_t *error) { return error->text; }
const char *rd_kafka_error_name(const rd_kafka_error_t *error) {
    return rd_kafka_err2name(error->code);
}
int rd_kafka_error_is_fatal(const rd_kafka_error_t *error) { return error->fatal; }
int rd_kafka_error_is_retriable(const rd_kafka_error_t *error) { return error->retriable; }

rd_kafka_resp_err_t rd_kafka_fatal_error(rd_kafka_t *rk, char *text, size_t size) {
    if (rk->fatal) snprintf(text, size, "simulated: fatal");
    return rk->fatal;
}

/* ---- callbacks --------------------------------------------------------------------------------
 */

void report_error(rd_kafka_t *rk, int code) {
    if (rk->error_count < sizeof rk->errors / sizeof *rk->errors)
        rk->errors[rk->error_count++] = code;
    process_wake(rk->owner);
}

void report_delivery(rd_kafka_t *rk, message *of, rd_kafka_resp_err_t code, int64_t offset) {
    if (rk->report_tail - rk->report_head == REPORTS_MAX) abort();
    rk->reports[rk->report_tail++ % REPORTS_MAX] = (report){of, code, offset};
    process_wake(rk->owner);
}

static void serve_report(rd_kafka_t *rk) {
    const report *it = &rk->reports[rk->report_head++ % REPORTS_MAX];
    const rd_kafka_message_t told = {
        .err = it->code, .offset = it->offset, ._private = it->of->opaque};
    if (rk->conf.on_delivery) rk->conf.on_delivery(rk, &told, rk->conf.opaque);
}

static int serve(rd_kafka_t *rk) {
    int served = 0;
    for (; rk->report_head < rk->report_tail; served++)
        serve_report(rk);
    for (size_t i = 0; i < rk->error_count; i++, served++)
        if (rk->conf.on_error) rk->conf.on_error(rk, rk->errors[i], "simulated", rk->conf.opaque);
    rk->error_count = 0;
    return served;
}

int rd_kafka_poll(rd_kafka_t *rk, int timeout_ms) {
    int64_t deadline = world_now() + timeout_ms * MS;
    int served;
    while (!(served = serve(rk)) && wait_until(rk, deadline)) {
    }
    return served;
}

/* ---- topics and metadata ----------------------------------------------------------------------
 */

rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *rk, const char *name,
                                     rd_kafka_topic_conf_t *conf) {
    (void)conf;
    rd_kafka_topic_t *topic = calloc(1, sizeof *topic);
    topic->rk = rk;
    topic->name = cluster_find(name, 0)->topic;
    return topic;
}

void rd_kafka_topic_destroy(rd_kafka_topic_t *topic) { free(topic); }
const char *rd_kafka_topic_name(const rd_kafka_topic_t *topic) { return topic->name; }

/* Waits until Kafka can be asked. */
static bool reach(rd_kafka_t *rk, int timeout_ms) {
    int64_t deadline = world_now() + timeout_ms * MS;
    while (cluster_is_away())
        if (!wait_until(rk, deadline < cluster_away_until ? deadline : cluster_away_until))
            return false;
    int64_t answer = world_now() + between(200, 2 * MS);
    while (wait_until(rk, answer)) {
    }
    return !rk->owner->killed;
}

char *rd_kafka_clusterid(rd_kafka_t *rk, int timeout_ms) {
    return reach(rk, timeout_ms) ? strdup("simulated") : NULL;
}

void rd_kafka_mem_free(rd_kafka_t *rk, void *memory) {
    (void)rk;
    free(memory);
}

rd_kafka_resp_err_t rd_kafka_metadata(rd_kafka_t *rk, int all, rd_kafka_topic_t *topic,
                                      const struct rd_kafka_metadata **found, int timeout_ms) {
    (void)all;
    if (!reach(rk, timeout_ms)) return RD_KAFKA_RESP_ERR__TRANSPORT;
    struct rd_kafka_metadata *metadata = calloc(1, sizeof *metadata);
    metadata->topic_cnt = 1;
    metadata->topics = calloc(1, sizeof *metadata->topics);
    metadata->topics[0].partition_cnt = cluster_partition_count(topic->name);
    *found = metadata;
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

void rd_kafka_metadata_destroy(const struct rd_kafka_metadata *metadata) {
    free(metadata->topics);
    free((void *)(uintptr_t)metadata);
}
