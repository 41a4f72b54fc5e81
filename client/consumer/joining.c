#include "client/consumer/joining.h"

#include <string.h>
#include <unistd.h>

enum {
    /* of Kafka's protocol, https://kafka.apache.org/protocol.html#protocol_api_keys */
    METADATA = 3,
    JOIN_GROUP = 11,
    HEARTBEAT = 12,
    SYNC_GROUP = 14,
    SEND_MS = 3, /* within which what librdkafka's main thread makes is sent */
    EXPECTED_MS = 1000,
};

#define NAME "ingest-consumer"

void joining_init(joining *it, int wake) {
    *it = (joining){.wake = wake, .steady = true};
    pthread_mutex_init(&it->lock, NULL);
}

void joining_destroy(joining *it) { pthread_mutex_destroy(&it->lock); }

/* ---- what librdkafka tells ------------------------------------------------------------------- */

static bool is_one_of(const char *state, const char *const *all) {
    for (; *all; all++) {
        const size_t len = strlen(*all);
        if (strncmp(state, *all, len) == 0 && (state[len] == ' ' || !state[len])) return true;
    }
    return false;
}

/* In these no JoinGroup is made: in the last two not before we have let the partitions go. */
static const char *const CALM[] = {"steady", "wait-assign-call", "wait-unassign-call", NULL};
static const char *const STEADY[] = {"steady", NULL};

static void wake(const joining *it) {
    const uint64_t one = 1;
    if (write(it->wake, &one, sizeof one) < 0) return; /* full: it is awake */
}

/* `Group "NAME" changed join state OLD -> NEW (state STATE)`; the name may be anything. */
void joining_hear(joining *it, const char *facility, const char *text) {
    const char *arrow = NULL;
    if (strcmp(facility, "CGRPJOINSTATE") != 0) return;
    for (const char *at = text; (at = strstr(at, " -> ")); at++)
        arrow = at;
    if (!arrow) return;
    pthread_mutex_lock(&it->lock);
    const char *state = arrow + strlen(" -> ");
    it->joining = !is_one_of(state, CALM);
    it->steady = is_one_of(state, STEADY);
    pthread_mutex_unlock(&it->lock);
    wake(it);
}

static rd_kafka_resp_err_t on_answer(rd_kafka_t *rk, int socket, const char *broker, int32_t id,
                                     int16_t key, int16_t version, int32_t correlation, size_t size,
                                     int64_t rtt, rd_kafka_resp_err_t code, void *arg) {
    joining *it = arg;
    (void)rk, (void)socket, (void)broker, (void)id, (void)version, (void)correlation, (void)size;
    (void)rtt, (void)code;
    if (key != METADATA && key != HEARTBEAT) return RD_KAFKA_RESP_ERR_NO_ERROR;
    pthread_mutex_lock(&it->lock);
    it->unsure = true;
    pthread_mutex_unlock(&it->lock);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_new(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *arg,
                                  char *text, size_t size) {
    (void)conf, (void)text, (void)size;
    return rd_kafka_interceptor_add_on_response_received(rk, NAME, on_answer, arg);
}

void joining_watch(joining *it, rd_kafka_conf_t *conf) {
    (void)rd_kafka_conf_interceptor_add_on_new(conf, NAME, on_new, it);
}

/* ---- the driver's side ----------------------------------------------------------------------- */

/* Whether there is nothing new; locked then. */
static bool enter_sure(joining *it) {
    pthread_mutex_lock(&it->lock);
    if (!it->unsure) return true;
    it->unsure = false;
    pthread_mutex_unlock(&it->lock);
    return false;
}

bool joining_enter(joining *it, rd_kafka_t *rk) {
    while (!enter_sure(it))
        rd_kafka_mem_free(rk, rd_kafka_memberid(rk)); /* answered by the main thread, in its turn */
    if (!it->joining) return true;
    pthread_mutex_unlock(&it->lock);
    return false;
}

void joining_leave(joining *it) { pthread_mutex_unlock(&it->lock); }

bool joining_at_rest(joining *it) {
    pthread_mutex_lock(&it->lock);
    const bool steady = it->steady;
    pthread_mutex_unlock(&it->lock);
    return steady;
}
