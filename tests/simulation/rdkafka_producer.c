/*
 * The transactional producer. Records wait for linger.ms, then go out by partition, in batches with
 * sequence numbers, one in flight; a partition is first added to the transaction. An error that is
 * not worth a retry fails its whole batch and makes the transaction one that can only be aborted,
 * and what is queued is purged (rd_kafka_txn_set_abortable_error0); a fence, and now and then
 * librdkafka itself, is fatal. EndTxn is repeated silently (rd_kafka_txn_handle_EndTxn).
 */
#include "rdkafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINGER (5 * MS)
#define ADD_RETRY (20 * MS) /* of AddPartitionsToTxn, while the last transaction is being ended */
#define INIT_RETRY (500 * MS)

static void kick(rd_kafka_t *rk);

/* ---- what goes wrong with a transaction ------------------------------------------------------ */

static void fail_queued(outbound *it, rd_kafka_t *rk, size_t from, rd_kafka_resp_err_t code) {
    for (size_t i = from; i < it->count; i++)
        report_delivery(rk, it->queue[i], code, -1);
    it->count = from;
}

static void purge_queues(rd_kafka_t *rk) {
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        fail_queued(&rk->out[i], rk, rk->out[i].sent, RD_KAFKA_RESP_ERR__PURGE_QUEUE);
}

static void must_abort(rd_kafka_t *rk, rd_kafka_resp_err_t code) {
    trace("  the transaction must be aborted: %s", rd_kafka_err2name(code));
    if (!rk->abortable) rk->abortable = code;
    purge_queues(rk);
    process_wake(rk->owner);
}

static void go_fatal(rd_kafka_t *rk, rd_kafka_resp_err_t code) {
    trace("  fatal: %s", rd_kafka_err2name(code));
    if (!rk->fatal) rk->fatal = code;
    report_error(rk, RD_KAFKA_RESP_ERR__FATAL);
    purge_queues(rk);
}

static bool is_fence(rd_kafka_resp_err_t code) {
    return code == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
           code == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
}

/* ---- records ----------------------------------------------------------------------------------
 */

static outbound *outbound_of(const request *it) {
    return &it->from->out[it->to - cluster_partition(0)];
}

static void arrive_produce(request *it) {
    it->code = cluster_produce(it->to, it->producer, it->epoch, it->sequence, it->batch, it->count,
                               &it->offset);
    trace("    %s/%d: %zu records of epoch %d: %s", it->to->topic, it->to->number, it->count,
          it->epoch, rd_kafka_err2name(it->code));
}

/* The batch is done with, in one way or another. */
static void finish_batch(outbound *out, request *it) {
    for (size_t i = 0; i < it->count; i++)
        report_delivery(it->from, out->queue[i], it->code, it->code ? -1 : it->offset + (int64_t)i);
    out->count -= it->count;
    memmove(out->queue, out->queue + it->count, out->count * sizeof *out->queue);
    out->sent = 0;
    it->done = true;
}

static void answer_produce(request *it) {
    rd_kafka_t *rk = it->from;
    outbound *out = outbound_of(it);
    if (is_retriable(it->code)) {
        retry_request(it);
        return;
    }
    if (out->sent == 0) { /* purged meanwhile */
        it->done = true;
        return;
    }
    bool own_trouble = !network_is_calm && chance(2);
    if (is_fence(it->code) && chance(500)) it->code = RD_KAFKA_RESP_ERR__FENCED;
    finish_batch(out, it);
    if (own_trouble || it->code == RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER)
        go_fatal(rk, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    else if (is_fence(it->code) || it->code == RD_KAFKA_RESP_ERR__FENCED)
        go_fatal(rk, RD_KAFKA_RESP_ERR__FENCED);
    else if (it->code)
        must_abort(rk, it->code);
    else
        out->sequence = it->sequence + (int64_t)it->count;
    kick(rk);
}

static void arrive_add(request *it) {
    it->code = cluster_add_partition(it->producer, it->epoch, it->to);
}

static void answer_add(request *it) {
    outbound *out = outbound_of(it);
    if (it->code == RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS) {
        retry_request_in(it, ADD_RETRY);
        return;
    }
    if (is_retriable(it->code)) {
        retry_request(it);
        return;
    }
    it->done = true;
    out->adding = false;
    out->added = it->code == RD_KAFKA_RESP_ERR_NO_ERROR;
    if (is_fence(it->code))
        go_fatal(it->from, RD_KAFKA_RESP_ERR__FENCED);
    else if (it->code)
        must_abort(it->from, it->code);
    kick(it->from);
}

static void kick_partition(rd_kafka_t *rk, outbound *out) {
    if (out->count == 0 || out->sent > 0 || out->adding) return;
    request *it = new_request(rk, out->added ? arrive_produce : arrive_add,
                              out->added ? answer_produce : answer_add);
    it->to = out->to;
    if (out->added) {
        it->count = out->count < BATCH_MAX ? out->count : BATCH_MAX;
        it->sequence = out->sequence;
        memcpy(it->batch, out->queue, it->count * sizeof *it->batch);
        out->sent = it->count;
    } else {
        out->adding = out->used = true;
    }
    send_request(it);
}

static void kick(rd_kafka_t *rk) {
    if (rk->abortable || rk->fatal) return;
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        kick_partition(rk, &rk->out[i]);
}

static void kick_lingered(void *argument) {
    rd_kafka_t *rk = argument;
    if (!rk->destroyed) kick(rk);
}

/* ---- producing --------------------------------------------------------------------------------
 */

static bytes hold_bytes(const void *data, size_t size) {
    void *held = world_hold(size);
    if (size) memcpy(held, data, size);
    return bytes_of(held, size);
}

static uint64_t number_of(const rd_kafka_vu_t *field) {
    char text[24] = "";
    size_t size = (size_t)field->u.header.size;
    if (size < sizeof text) memcpy(text, field->u.header.val, size);
    return strtoull(text, NULL, 10);
}

static void take_header(message *it, const rd_kafka_vu_t *field) {
    const char *name = field->u.header.name;
    if (strcmp(name, "ce_id") == 0) {
        const char *text = field->u.header.val;
        size_t size = 0;
        while (size < (size_t)field->u.header.size && text[size] != '/')
            size++;
        if (size < sizeof it->id) memcpy(it->id, text, size);
    } else if (strcmp(name, "ce_sequence") == 0) {
        it->sequence = number_of(field);
    } else if (strcmp(name, "ce_groupindex") == 0) {
        it->part = (unsigned)number_of(field);
    } else if (strcmp(name, "ce_groupsize") == 0) {
        it->parts = (unsigned)number_of(field);
    }
}

static message *message_of(const rd_kafka_vu_t *fields, size_t count, int32_t *number) {
    message *it = world_hold(sizeof *it);
    it->parts = 1;
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_vu_t *field = &fields[i];
        switch (field->vtype) {
        case RD_KAFKA_VTYPE_RKT:
            it->topic = field->u.rkt->name;
            break;
        case RD_KAFKA_VTYPE_PARTITION:
            *number = field->u.i32;
            break;
        case RD_KAFKA_VTYPE_KEY:
            it->key = hold_bytes(field->u.mem.ptr, field->u.mem.size);
            break;
        case RD_KAFKA_VTYPE_VALUE:
            it->value = hold_bytes(field->u.mem.ptr, field->u.mem.size);
            break;
        case RD_KAFKA_VTYPE_OPAQUE:
            it->opaque = field->u.ptr;
            break;
        case RD_KAFKA_VTYPE_HEADER:
            take_header(it, field);
            break;
        default:
            break;
        }
    }
    return it;
}

static int32_t partition_of(const message *it) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < it->key.len; i++)
        hash = (hash ^ it->key.data[i]) * 16777619u;
    return (int32_t)(hash % (uint32_t)cluster_partition_count(it->topic));
}

rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *rk, const rd_kafka_vu_t *fields, size_t count) {
    if (rk->fatal) return new_error(RD_KAFKA_RESP_ERR__FATAL, false, true);
    if (rk->phase != PHASE_OPEN || rk->abortable)
        return new_error(RD_KAFKA_RESP_ERR__STATE, false, false);
    if (!network_is_calm && chance(2) && !rk->owner->killed)
        return new_error(RD_KAFKA_RESP_ERR__QUEUE_FULL, true, false);
    int32_t number = -1;
    message *it = message_of(fields, count, &number);
    partition *to = cluster_find(it->topic, number >= 0 ? number : partition_of(it));
    outbound *out = &rk->out[to - cluster_partition(0)];
    out->to = to;
    if (!out->queue) out->queue = world_hold(QUEUE_MAX * sizeof *out->queue);
    if (out->count == QUEUE_MAX) abort();
    out->queue[out->count++] = it;
    later(LINGER, rk->owner, kick_lingered, rk);
    return NULL;
}

int rd_kafka_outq_len(rd_kafka_t *rk) {
    if (rk->owner->killed) return 0;
    uint64_t count = rk->report_tail - rk->report_head;
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        count += rk->out[i].count;
    return (int)count;
}

rd_kafka_resp_err_t rd_kafka_flush(rd_kafka_t *rk, int timeout_ms) {
    int64_t deadline = world_now() + timeout_ms * MS;
    kick(rk);
    for (;;) {
        rd_kafka_poll(rk, 0);
        if (rd_kafka_outq_len(rk) == 0) return RD_KAFKA_RESP_ERR_NO_ERROR;
        if (!wait_until(rk, deadline)) return RD_KAFKA_RESP_ERR__TIMED_OUT;
    }
}

rd_kafka_resp_err_t rd_kafka_purge(rd_kafka_t *rk, int flags) {
    purge_queues(rk);
    for (size_t i = 0; (flags & RD_KAFKA_PURGE_F_INFLIGHT) && i < PARTITIONS_MAX; i++) {
        rk->out[i].sent = 0;
        fail_queued(&rk->out[i], rk, 0, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT);
    }
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- transactions ------------------------------------------------------------------------------
 */

/* For an answer to the present call. NULL: it came. */
static rd_kafka_error_t *await_answer(rd_kafka_t *rk, int64_t deadline) {
    while (!rk->answered && !rk->fatal && !rk->abortable)
        if (!wait_until(rk, deadline)) break;
    if (rk->owner->killed) return new_error(RD_KAFKA_RESP_ERR__DESTROY, false, false);
    if (rk->fatal) return new_error(rk->fatal, false, true);
    if (rk->abortable && !rk->answered) return new_error(rk->abortable, false, false);
    if (!rk->answered) return new_error(RD_KAFKA_RESP_ERR__TIMED_OUT, true, false);
    rk->asked = false;
    return NULL;
}

static void ask(rd_kafka_t *rk, request *it) {
    rk->asked = true;
    rk->answered = false;
    send_request(it);
}

static void arrive_init(request *it) {
    it->code = cluster_init_producer(it->from->conf.transactional_id, &it->producer, &it->epoch);
    trace("    InitProducerId: %s, epoch %d", rd_kafka_err2name(it->code), it->epoch);
}

static void answer_init(request *it) {
    if (it->code) {
        retry_request_in(it, between(INIT_RETRY / 5, INIT_RETRY));
        return;
    }
    it->done = true;
    it->from->producer = it->producer;
    it->from->epoch = it->epoch;
    it->from->answered = true;
}

rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *rk, int timeout_ms) {
    if (!rk->asked) ask(rk, new_request(rk, arrive_init, answer_init));
    rd_kafka_error_t *error = await_answer(rk, world_now() + timeout_ms * MS);
    if (!error) rk->phase = PHASE_READY;
    return error;
}

rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *rk) {
    if (rk->fatal) return new_error(rk->fatal, false, true);
    if (rk->phase != PHASE_READY) return new_error(RD_KAFKA_RESP_ERR__STATE, false, false);
    rk->phase = PHASE_OPEN;
    rk->abortable = RD_KAFKA_RESP_ERR_NO_ERROR;
    trace("  begin_transaction");
    return NULL;
}

static void arrive_end(request *it) {
    it->code = cluster_end(it->producer, it->epoch, it->commit);
    trace("    EndTxn(%s) of epoch %d: %s", it->commit ? "commit" : "abort", it->epoch,
          rd_kafka_err2name(it->code));
}

static void answer_end(request *it) {
    rd_kafka_t *rk = it->from;
    if (is_retriable(it->code)) {
        retry_request(it);
        return;
    }
    it->done = true;
    if (it->code == RD_KAFKA_RESP_ERR_NO_ERROR)
        rk->answered = true;
    else
        go_fatal(rk, is_fence(it->code) ? RD_KAFKA_RESP_ERR__FENCED : it->code);
}

static bool has_partitions(const rd_kafka_t *rk) {
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        if (rk->out[i].used) return true;
    return false;
}

static rd_kafka_error_t *end_transaction(rd_kafka_t *rk, bool commit, int64_t deadline) {
    rk->phase = PHASE_ENDING;
    if (!rk->asked && has_partitions(rk)) {
        request *it = new_request(rk, arrive_end, answer_end);
        it->commit = commit;
        ask(rk, it);
    }
    rd_kafka_error_t *error = rk->asked ? await_answer(rk, deadline) : NULL;
    if (error) return error;
    rk->phase = PHASE_READY;
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        rk->out[i].added = rk->out[i].adding = rk->out[i].used = false;
    return NULL;
}

rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms) {
    int64_t deadline = world_now() + timeout_ms * MS;
    if (rk->fatal) return new_error(rk->fatal, false, true);
    if (rk->abortable) return new_error(rk->abortable, false, false);
    if (rk->phase != PHASE_OPEN && rk->phase != PHASE_ENDING)
        return new_error(RD_KAFKA_RESP_ERR__STATE, false, false);
    if (rk->phase == PHASE_OPEN && rd_kafka_flush(rk, timeout_ms))
        return new_error(RD_KAFKA_RESP_ERR__TIMED_OUT, true, false);
    if (rk->fatal) return new_error(rk->fatal, false, true);
    if (rk->abortable) return new_error(rk->abortable, false, false);
    return end_transaction(rk, true, deadline);
}

rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *rk, int timeout_ms) {
    int64_t deadline = world_now() + timeout_ms * MS;
    if (rk->fatal) return new_error(rk->fatal, false, true);
    if (rk->phase != PHASE_OPEN && rk->phase != PHASE_ENDING)
        return new_error(RD_KAFKA_RESP_ERR__STATE, false, false);
    rk->abortable = RD_KAFKA_RESP_ERR_NO_ERROR;
    purge_queues(rk);
    if (rk->phase == PHASE_OPEN && rd_kafka_flush(rk, timeout_ms))
        return new_error(RD_KAFKA_RESP_ERR__TIMED_OUT, true, false);
    return end_transaction(rk, false, deadline);
}
