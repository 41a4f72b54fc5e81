/*
 * Reading a route's position back from Kafka, and confirming it. On the publisher's thread, with
 * consumers that live for one reading. Fails as the rest of the sink does; a reading that a
 * neighbour's open transaction holds up ends when that does, or after READ_MS.
 */
#include "server/kafka_sink_internal.h"

#include "storage/clock.h"

#define READ_MS 150000 /* longer than the time-out of a neighbour's open transaction */
#define CONFIRM_MS 10000
#define WATERMARK_MS 10000

/*
 * The high watermark as read_uncommitted sees it. The last *stable* offset, which read_committed
 * gets, may lie before a commit marker that is on its way: to stop there doubles events.
 */
static fault high_watermark(kafka_sink *it, const char *topic, int32_t partition, int64_t *high,
                            sink_failure *why) {
    int64_t low;
    rd_kafka_t *rk = kafka_sink_reader(it, "read_uncommitted", why);
    if (!rk) return why->fault;
    rd_kafka_resp_err_t code =
        rd_kafka_query_watermark_offsets(rk, topic, partition, &low, high, WATERMARK_MS);
    rd_kafka_destroy(rk);
    return code ? kafka_failed_code(why, "asking for the end of the positions", code) : FAULT_NONE;
}

static fault take_position(const kafka_sink *it, const rd_kafka_message_t *message,
                           found_position *out, sink_failure *why) {
    failure reason;
    if (!bytes_equal(bytes_of(message->key, message->key_len), bytes_of_string(it->key)))
        return FAULT_NONE;
    if (position_decode(bytes_of(message->payload, message->len), &out->position, &reason))
        return kafka_failed(why, FAULT_HALT, 0,
                            "%s; it was written by another version of this program: start that one",
                            reason.reason);
    out->found = true;
    out->offset = message->offset;
    return FAULT_NONE;
}

/* Reads up to an end of partition at or past `high`: the last offset is a commit marker, so the
 * messages alone never get there. */
static fault scan(kafka_sink *it, rd_kafka_topic_t *topic, int32_t partition, int64_t high,
                  int64_t deadline, found_position *out, sink_failure *why) {
    while (!kafka_sink_out_of_time(it->options.stopping, deadline)) {
        rd_kafka_message_t *message = rd_kafka_consume(topic, partition, KAFKA_SINK_SLICE_MS);
        if (!message) continue;
        fault what = FAULT_NONE;
        bool end = false;
        switch (message->err) {
        case RD_KAFKA_RESP_ERR_NO_ERROR:
            what = take_position(it, message, out, why);
            break;
        case RD_KAFKA_RESP_ERR__PARTITION_EOF:
            end = message->offset >= high;
            if (end) out->end = message->offset;
            break;
        case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
        case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
            end =
                true; /* the hint is older than the topic, which the caller tells by its nothing */
            break;
        default:
            if (kafka_fault(message->err) != FAULT_AWAY)
                what = kafka_failed_code(why, "reading the position", message->err);
        }
        rd_kafka_message_destroy(message);
        if (what || end) return what;
    }
    return kafka_failed(
        why, FAULT_AWAY, RD_KAFKA_RESP_ERR__TIMED_OUT,
        "reading the position: Kafka away, or held up by a neighbour's transaction");
}

static fault scan_from(kafka_sink *it, const char *name, int32_t partition, int64_t from,
                       int64_t high, int64_t limit_ms, found_position *out, sink_failure *why) {
    int64_t deadline = clock_monotonic_ms() + limit_ms;
    *out = (found_position){.offset = -1, .end = -1};
    rd_kafka_t *rk = kafka_sink_reader(it, "read_committed", why);
    if (!rk) return why->fault;
    fault what;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
    /* The simple consumer: it needs no group, hence no rights to one. */
    if (!topic || rd_kafka_consume_start(topic, partition, from)) {
        what = kafka_failed_code(why, "reading the position", rd_kafka_last_error());
    } else {
        what = scan(it, topic, partition, high, deadline, out, why);
        rd_kafka_consume_stop(topic, partition);
    }
    if (topic) rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(rk);
    return what;
}

fault kafka_sink_read_position(kafka_sink *it, const char *topic, int32_t partition, int64_t hint,
                               found_position *out, sink_failure *why) {
    int64_t high;
    *out = (found_position){.offset = -1, .end = -1};
    fault what = high_watermark(it, topic, partition, &high, why);
    if (!what && hint >= 0) what = scan_from(it, topic, partition, hint, high, READ_MS, out, why);
    if (!what && !out->found)
        what = scan_from(it, topic, partition, RD_KAFKA_OFFSET_BEGINNING, high, READ_MS, out, why);
    it->read_to = out->end > 0 ? out->end : 0;
    return what;
}

fault kafka_sink_confirm_position(kafka_sink *it, const char *topic, int32_t partition,
                                  sink_failure *why) {
    int64_t ours = kafka_sink_written_offset(it);
    found_position newer = {.end = it->read_to};
    if (it->read_to < 0) return FAULT_NONE;
    fault what = FAULT_NONE;
    /* Our own open transaction begins there, so that is where committed records end. */
    if (ours > it->read_to)
        what = scan_from(it, topic, partition, it->read_to, ours, CONFIRM_MS, &newer, why);
    if (what) return what;
    if (newer.found || newer.end != ours)
        return kafka_failed(
            why, FAULT_DOUBT, 0,
            "the position that was read is out of date: a broker answered that no longer "
            "leads its partition");
    it->read_to = -1;
    return FAULT_NONE;
}
