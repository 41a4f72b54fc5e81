/*
 * Group commit: all that was done since the last commit goes with the next one, and one is on its
 * way at a time. It carries the whole state of each partition that changed, so a failed one is just
 * made again. It is in the name of the generation in which it is sent, so none is asked for once
 * the partitions are known to be lost, and none is under way when they are let go (partitions.c).
 */
#include <stdlib.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

enum { PAUSE_MS = 100 }; /* after one that failed */

static void take_answer(consumer *it, rd_kafka_resp_err_t code,
                        const rd_kafka_topic_partition_list_t *list) {
    bool sound = code == RD_KAFKA_RESP_ERR_NO_ERROR;
    for (int i = 0; list && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *item = &list->elems[i];
        partition *of = partitions_find(it, item->topic, item->partition);
        const rd_kafka_resp_err_t own = item->err ? item->err : code;
        if (own == RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE)
            driver_end(it, ST_PRECONDITION, "kafka",
                       "the brokers' offset.metadata.max.bytes is too small: %d are needed",
                       PROGRESS_TEXT_MAX);
        if (own) sound = false;
        if (own && of) of->dirty = true;
        if (own) code = own;
    }
    it->committing = false;
    if (sound) {
        it->commit_durable = it->commit_number;
        atomic_fetch_add(&it->counters.commits, 1);
        return;
    }
    it->commit_not_before_ms = clock_monotonic_ms() + PAUSE_MS;
    driver_log(it, "committing progress: %s (%s)", rd_kafka_err2str(code), rd_kafka_err2name(code));
}

static void on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                      rd_kafka_topic_partition_list_t *list, void *arg) {
    (void)rk;
    take_answer(arg, code, list);
}

static bool any_dirty(const consumer *it) {
    for (const partition *one = it->partitions; one; one = one->next)
        if (one->dirty) return true;
    return false;
}

/* What changed. */
static rd_kafka_topic_partition_list_t *make_list(consumer *it) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    char text[PROGRESS_TEXT_MAX + 1];
    for (partition *one = it->partitions; one; one = one->next) {
        if (!one->dirty) continue;
        rd_kafka_topic_partition_t *item =
            rd_kafka_topic_partition_list_add(list, one->topic, one->number);
        item->offset = window_offset(&one->window);
        item->metadata_size =
            window_text(&one->window, effects_crc(it->effects), &one->moves, text);
        item->metadata = strdup(text);
        if (!item->metadata) abort(); /* as librdkafka does */
        one->dirty = false;
    }
    return list;
}

void committing_serve(consumer *it) {
    rd_kafka_queue_poll_callback(it->commits, 0);
    if (it->committing && clock_monotonic_ms() - it->commit_sent_ms > COMMIT_MS)
        driver_end(it, ST_TIMEOUT, "kafka", "a commit has neither succeeded nor failed within %d s",
                   COMMIT_MS / 1000);
}

void committing_turn(consumer *it, int64_t now_ms) {
    if (it->committing || now_ms < it->commit_not_before_ms || rd_kafka_assignment_lost(it->rk))
        return;
    if (!any_dirty(it) || !joining_enter(&it->joining, it->rk)) return;
    rd_kafka_topic_partition_list_t *list = make_list(it);
    it->committing = true;
    it->commit_number++;
    it->commit_sent_ms = now_ms;
    rd_kafka_resp_err_t code = rd_kafka_commit_queue(it->rk, list, it->commits, on_commit, it);
    joining_leave(&it->joining);
    if (code) {
        for (int i = 0; i < list->cnt; i++)
            list->elems[i].err = code;
        take_answer(it, code, list);
    }
    rd_kafka_topic_partition_list_destroy(list);
}
