/*
 * A request is delivered and answered within milliseconds, but sometimes slowly, and sometimes its
 * connection is lost. Then the client repeats it, not before retry.backoff.ms less the jitter of
 * 20% (rd_kafka_broker's retry_backoff), while the first one may be lost, or may have been taken,
 * or may still wait in a broker's queue and be taken much later. A connection lost is mostly
 * reported, but not always: librdkafka suppresses an error that repeats the last one.
 */
#include "rdkafka.h"

#include <string.h>

#define RETRY_BACKOFF (1000 * MS)

bool network_is_calm;
unsigned network_losses;

request *new_request(rd_kafka_t *from, void (*arrive)(request *), void (*answer)(request *)) {
    request *it = world_hold(sizeof *it);
    it->from = from;
    it->arrive = arrive;
    it->answer = answer;
    it->producer = from->producer;
    it->epoch = from->epoch;
    return it;
}

bool is_retriable(rd_kafka_resp_err_t code) {
    return code == RD_KAFKA_RESP_ERR_NOT_COORDINATOR ||
           code == RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS ||
           code == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
}

static void deliver_answer(void *argument) {
    request *it = argument;
    if (it->from->destroyed || it->done) return;
    it->answer(it);
    process_wake(it->from->owner);
}

static void deliver_request(void *argument) {
    request *it = argument;
    it->arrive(it);
    later(between(100, MS), it->from->owner, deliver_answer, it);
}

/* A copy, since the one that is repeated gets an answer of its own. */
static void deliver_unanswered(void *argument) {
    request *it = argument;
    trace("  a request whose connection was lost arrives now");
    it->arrive(it);
}

static void resend(void *argument) {
    request *it = argument;
    if (!it->from->destroyed && !it->done) send_request(it);
}

void retry_request_in(request *it, int64_t delay_us) {
    later(delay_us, it->from->owner, resend, it);
}

void retry_request(request *it) {
    retry_request_in(it, between(RETRY_BACKOFF * 8 / 10, RETRY_BACKOFF * 12 / 10));
}

static void notice_loss(void *argument) {
    request *it = argument;
    if (it->from->destroyed || it->done) return;
    if (chance(700)) report_error(it->from, RD_KAFKA_RESP_ERR__TRANSPORT);
    retry_request(it);
}

static void lose_connection(request *it) {
    request *lost = world_hold(sizeof *lost);
    *lost = *it;
    switch (draw(4)) {
    case 0: /* with the request */
        break;
    case 1: /* with the answer */
        later(between(100, 2 * MS), NULL, deliver_unanswered, lost);
        break;
    default: /* after the request, which waits somewhere */
        later(chance(500) ? between(MS, 4 * SECOND) : between(SECOND, 40 * SECOND), NULL,
              deliver_unanswered, lost);
    }
    trace("  the connection of a request is lost");
    later(chance(800) ? between(MS, 100 * MS) : between(100 * MS, 5 * SECOND), it->from->owner,
          notice_loss, it);
}

void send_request(request *it) {
    if (it->from->owner->killed) return;
    if (cluster_is_away()) {
        if (chance(500)) report_error(it->from, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN);
        retry_request_in(it, between(100 * MS, 5 * SECOND)); /* reconnect.backoff.max.ms */
    } else if (!network_is_calm && chance(network_losses)) {
        lose_connection(it);
    } else {
        bool slow = !network_is_calm && chance(20);
        later(slow ? between(MS, 3 * SECOND) : between(100, MS), NULL, deliver_request, it);
    }
}
