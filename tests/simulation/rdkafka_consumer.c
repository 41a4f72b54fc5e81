/*
 * Reading. A reader of committed records stops at the last stable offset; an end of partition is
 * reported once for each offset at which the reader has arrived (rd_kafka_fetch_reply_handle).
 */
#include "rdkafka.h"

#include <stdlib.h>

#define FETCH_WAIT (20 * MS) /* fetch.wait.max.ms */

rd_kafka_resp_err_t rd_kafka_query_watermark_offsets(rd_kafka_t *rk, const char *topic,
                                                     int32_t number, int64_t *low, int64_t *high,
                                                     int timeout_ms) {
    int64_t deadline = world_now() + timeout_ms * MS;
    const partition *it = cluster_find(topic, number);
    int64_t answer = world_now() + between(200, 2 * MS);
    while (wait_until(rk, answer)) {
    }
    if (!network_is_calm && chance(20)) return RD_KAFKA_RESP_ERR__TRANSPORT;
    while (cluster_is_away() || it->away_until > world_now())
        if (!wait_until(rk, deadline < world_now() + SECOND ? deadline : world_now() + SECOND))
            return RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (rk->owner->killed) return RD_KAFKA_RESP_ERR__DESTROY;
    *low = 0;
    *high = cluster_readable(it, rk->conf.read_committed, rk->stale);
    trace("  asked for the end of %s/%d: %lld", topic, number, (long long)*high);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

int rd_kafka_consume_start(rd_kafka_topic_t *topic, int32_t number, int64_t offset) {
    topic->reads = cluster_find(topic->name, number);
    topic->next = offset == RD_KAFKA_OFFSET_BEGINNING ? 0 : offset;
    topic->told_end = -1;
    return 0;
}

int rd_kafka_consume_stop(rd_kafka_topic_t *topic, int32_t number) {
    (void)number;
    topic->reads = NULL;
    return 0;
}

static rd_kafka_message_t *new_message(rd_kafka_topic_t *from, rd_kafka_resp_err_t code,
                                       int64_t offset, const message *record) {
    rd_kafka_message_t *it = calloc(1, sizeof *it);
    *it = (rd_kafka_message_t){
        .err = code, .rkt = from, .partition = from->reads->number, .offset = offset};
    if (!record) return it;
    it->key = (void *)(uintptr_t)record->key.data;
    it->key_len = record->key.len;
    it->payload = (void *)(uintptr_t)record->value.data;
    it->len = record->value.len;
    return it;
}

void rd_kafka_message_destroy(rd_kafka_message_t *it) { free(it); }

/* What a fetch brings; NULL: nothing new. */
static rd_kafka_message_t *fetch(rd_kafka_topic_t *from) {
    const partition *it = from->reads;
    bool committed = from->rk->conf.read_committed;
    int64_t end = cluster_readable(it, committed, from->rk->stale);
    if (from->next > cluster_readable(it, false, from->rk->stale))
        return new_message(from, RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, from->next, NULL);
    while (from->next < end) {
        int64_t offset = from->next++;
        const entry *each = &it->log[offset];
        if (each->kind == ENTRY_MARKER || each->fate == FATE_COMPACTED) continue;
        if (!committed || each->fate == FATE_COMMITTED)
            return new_message(from, RD_KAFKA_RESP_ERR_NO_ERROR, offset, each->record);
    }
    if (from->told_end == from->next) return NULL;
    from->told_end = from->next;
    trace("  read %s/%d to its end at %lld", it->topic, it->number, (long long)from->next);
    return new_message(from, RD_KAFKA_RESP_ERR__PARTITION_EOF, from->next, NULL);
}

rd_kafka_message_t *rd_kafka_consume(rd_kafka_topic_t *from, int32_t number, int timeout_ms) {
    int64_t deadline = world_now() + timeout_ms * MS;
    (void)number;
    for (;;) {
        int64_t answer = world_now() + between(100, MS);
        while (wait_until(from->rk, answer)) {
        }
        bool away = cluster_is_away() || from->reads->away_until > world_now();
        if (!network_is_calm && chance(10))
            return new_message(from, RD_KAFKA_RESP_ERR__TRANSPORT, from->next, NULL);
        rd_kafka_message_t *found = away ? NULL : fetch(from);
        if (found) return found;
        int64_t again = world_now() + (away ? 500 * MS : FETCH_WAIT);
        if (!wait_until(from->rk, again < deadline ? again : deadline)) return NULL;
    }
}
