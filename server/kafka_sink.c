/*
 * A producer lives from kafka_sink_open to the first failure. Nothing is repaired: after a failed
 * record, an error of a transaction or a commit in doubt the producer is discarded, and the next
 * one starts from what Kafka says. Each producer has its own `producer` struct, which is what its
 * callbacks write to, so that a late report cannot touch the next one.
 */
#include "server/kafka_sink_internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "storage/clock.h"

/* Limits in milliseconds. Those on transactions add up to less than TRANSACTION_MS, after which
 * the broker aborts by itself. */
#define TRANSACTION_MS 120000
#define OPEN_MS 30000
#define ASK_MS 10000 /* metadata, cluster id */
#define QUEUE_FULL_MS 20000
#define FLUSH_MS 30000      /* without a record delivered, */
#define FLUSH_MOST_MS 60000 /* and with */
#define COMMIT_MS 30000
#define ABORT_MS 2000
#define PURGE_MS 1000
#define RETRY_MS 20             /* between our own repetitions */
#define POLL_EVERY 16           /* records: what was delivered goes, and its memory with it */
#define RETRY_BACKOFF_MS "1000" /* the doubt rule of the machine builds on it */
#define LOG_PERIOD_MS 10000

#define TEXT_OF(token) #token
#define NUMBER_TEXT(macro) TEXT_OF(macro)

struct producer {
    kafka_sink *sink;
    rd_kafka_t *rk;
    rd_kafka_topic_t **topics; /* handles, so that a record needs no look-up by name in the lib */
    size_t topic_count;
    bool in_transaction; /* begun, and its commit not yet tried */
    /* since begin: */
    uint64_t produced;
    bool transport_error;
    bool purged;                     /* records were dropped after an error of the transaction */
    rd_kafka_resp_err_t first_error; /* of a record, purges aside */
    uint64_t first_error_sequence;   /* 0: it was the position */
    int64_t position_offset;
};

bool kafka_sink_out_of_time(const atomic_bool *cancelled, int64_t deadline_ms) {
    return atomic_load(cancelled) || clock_monotonic_ms() >= deadline_ms;
}

/* ---- callbacks ----------------------------------------------------------------------------- */

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    producer *from = opaque;
    uint64_t sequence = (uint64_t)(uintptr_t)message->_private;
    (void)rk;
    switch (message->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        if (sequence == 0) from->position_offset = message->offset;
        break;
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
        from->purged = true;
        break;
    default:
        if (from->first_error) break;
        from->first_error = message->err;
        from->first_error_sequence = sequence;
    }
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque) {
    producer *from = opaque; /* NULL: a reader's */
    (void)rk, (void)reason;
    if (!from) return;
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) atomic_store(&from->sink->reachable, false);
    from->transport_error = true; /* whatever it was: better a settle too many */
}

static void log_to(kafka_sink *sink, int level, const char *facility, const char *text) {
    bool trouble = level <= 4; /* syslog's warning */
    if (!log_enabled(trouble ? LOG_WARNING : LOG_DEBUG)) return;
    pthread_mutex_lock(&sink->log_lock);
    bool allowed = log_allowed(&sink->log_limits[trouble], LOG_PERIOD_MS);
    pthread_mutex_unlock(&sink->log_lock);
    if (allowed)
        log_line(trouble ? LOG_WARNING : LOG_DEBUG, "librdkafka", "route=%s facility=%s text=%s",
                 sink->options.route->name, facility, text);
}

static void on_producer_log(const rd_kafka_t *rk, int level, const char *facility,
                            const char *text) {
    producer *from = rd_kafka_opaque(rk);
    if (from) log_to(from->sink, level, facility, text);
}

/* ---- handles ------------------------------------------------------------------------------- */

typedef struct setting {
    const char *name;
    const char *value;
} setting;

static fault set(rd_kafka_conf_t *conf, const char *name, const char *value, sink_failure *why) {
    char text[200];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) == RD_KAFKA_CONF_OK)
        return FAULT_NONE;
    return kafka_failed(why, FAULT_HALT, RD_KAFKA_RESP_ERR__INVALID_ARG,
                        "kafka.properties: %s; correct the configuration and start again", text);
}

/*
 * A handle with, in rising order of precedence: `defaults`, the user's properties, `fixed`.
 * Both lists end with a NULL name; a fixed one with a NULL value is left as it is.
 */
static rd_kafka_t *new_handle(kafka_sink *it, rd_kafka_type_t type, const setting *defaults,
                              const setting *fixed, producer *callbacks, sink_failure *why) {
    const config *all = it->options.config;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_t *rk = NULL;
    char text[200];
    for (const setting *each = defaults; each->name; each++)
        if (set(conf, each->name, each->value, why)) goto out;
    for (size_t i = 0; i < all->kafka.property_count; i++)
        if (set(conf, all->kafka.properties[i].name, all->kafka.properties[i].value, why)) goto out;
    if (set(conf, "bootstrap.servers", all->kafka.brokers, why)) goto out;
    for (const setting *each = fixed; each->name; each++)
        if (each->value && set(conf, each->name, each->value, why)) goto out;
    /* Later than 2.0.2: retries must not come sooner than retry.backoff.ms. */
    (void)rd_kafka_conf_set(conf, "retry.backoff.max.ms", RETRY_BACKOFF_MS, text, sizeof text);

    rd_kafka_conf_set_opaque(conf, callbacks);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, callbacks ? on_producer_log : NULL);
    if (callbacks) rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rk = rd_kafka_new(type, conf, text, sizeof text);
    if (rk) return rk;
    kafka_failed(why, FAULT_HALT, rd_kafka_last_error(),
                 "librdkafka refuses its configuration: %s; correct it and start again", text);
out:
    rd_kafka_conf_destroy(conf);
    return NULL;
}

static const setting NO_SETTINGS[] = {{NULL, NULL}};

static rd_kafka_t *new_producer_handle(kafka_sink *it, producer *callbacks, uint64_t batch_bytes,
                                       sink_failure *why) {
    const route_config *route = it->options.route;
    char max_bytes[24], queue_kbytes[24], timeout_ms[24], batch_size[24];
    uint64_t queue = 32768 + 2 * (route->max_record_bytes / 1024);
    snprintf(max_bytes, sizeof max_bytes, "%llu", (unsigned long long)route->max_record_bytes);
    snprintf(queue_kbytes, sizeof queue_kbytes, "%llu", (unsigned long long)queue);
    snprintf(timeout_ms, sizeof timeout_ms, "%d", TRANSACTION_MS);
    snprintf(batch_size, sizeof batch_size, "%llu", (unsigned long long)batch_bytes);
    const setting defaults[] = {
        {"client.id", "ingestd"},
        {"compression.type", "lz4"},
        {"linger.ms", "5"}, /* a flush does not wait for it */
        {"batch.num.messages", "10000"},
        {"batch.size", NUMBER_TEXT(MACHINE_BATCH_BYTES)},
        {"message.max.bytes", max_bytes},
        /* What of a transaction is in memory; it may be much larger. */
        {"queue.buffering.max.messages", "50000"},
        {"queue.buffering.max.kbytes", queue_kbytes},
        {"reconnect.backoff.max.ms", "5000"},
        {NULL, NULL},
    };
    bool transactional = route->delivery == DELIVERY_EXACTLY_ONCE;
    const setting fixed[] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        {"partitioner", "murmur2_random"},
        {"retry.backoff.ms", RETRY_BACKOFF_MS},
        {"message.timeout.ms", timeout_ms},
        {"batch.size", batch_bytes ? batch_size : NULL},
        {"transaction.timeout.ms", transactional ? timeout_ms : NULL},
        {"transactional.id", transactional ? it->transactional_id : NULL},
        {NULL, NULL},
    };
    return new_handle(it, RD_KAFKA_PRODUCER, defaults, fixed, callbacks, why);
}

rd_kafka_t *kafka_sink_reader(kafka_sink *it, const char *isolation, sink_failure *why) {
    const setting fixed[] = {
        {"isolation.level", isolation},
        {"enable.partition.eof", "true"},
        {"enable.auto.commit", "false"},
        {"auto.offset.reset", "error"},
        {"enable.auto.offset.store", "false"},
        {"fetch.wait.max.ms", "20"},
        {"log_level", "2"},
        {NULL, NULL},
    };
    return new_handle(it, RD_KAFKA_CONSUMER, NO_SETTINGS, fixed, NULL, why);
}

kafka_sink *kafka_sink_new(const sink_options *options) {
    kafka_sink *it = calloc(1, sizeof *it);
    if (!it) return NULL;
    char store[UUID_TEXT_SIZE];
    it->options = *options;
    it->position_offset = -1;
    it->read_to = -1;
    pthread_mutex_init(&it->log_lock, NULL);
    uuid_format(&options->store, store);
    position_key(&options->store, options->route->name, it->key);
    snprintf(it->transactional_id, sizeof it->transactional_id, "ingest-%s-%s", store,
             options->route->name);
    return it;
}

void kafka_sink_free(kafka_sink *it) {
    if (!it) return;
    kafka_sink_discard(it);
    pthread_mutex_destroy(&it->log_lock);
    free(it);
}

fault kafka_sink_open(kafka_sink *it, uint64_t batch_bytes, sink_failure *why) {
    producer *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return kafka_failed(why, FAULT_AWAY, 0, "out of memory");
    fresh->sink = it;
    fresh->position_offset = -1;
    kafka_sink_discard(it);
    fresh->rk = new_producer_handle(it, fresh, batch_bytes, why);
    if (!fresh->rk) {
        free(fresh);
        return why->fault;
    }
    it->current = fresh;
    if (it->options.route->delivery != DELIVERY_EXACTLY_ONCE) return FAULT_NONE;

    int64_t deadline = clock_monotonic_ms() + OPEN_MS;
    for (;;) {
        rd_kafka_error_t *error = rd_kafka_init_transactions(fresh->rk, KAFKA_SINK_SLICE_MS);
        rd_kafka_poll(fresh->rk, 0);
        if (!error) break;
        bool resume = rd_kafka_error_is_retriable(error) &&
                      !kafka_sink_out_of_time(it->options.stopping, deadline);
        if (!resume) return kafka_failed_error(why, "asking for the transactional id", error);
        rd_kafka_error_destroy(error);
        rd_kafka_poll(fresh->rk, RETRY_MS);
    }
    atomic_store(&it->reachable, true);
    return FAULT_NONE;
}

static void drain(rd_kafka_t *rk) {
    int64_t deadline = clock_monotonic_ms() + PURGE_MS;
    rd_kafka_purge(rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (rd_kafka_outq_len(rk) > 0 && clock_monotonic_ms() < deadline)
        rd_kafka_poll(rk, 10);
}

void kafka_sink_discard(kafka_sink *it) {
    producer *old = it->current;
    if (!old) return;
    it->current = NULL;
    /* Only a courtesy to readers behind an open transaction: whether it works makes no difference
     * to us, for the next kafka_sink_open aborts what is open. */
    if (old->in_transaction && !atomic_load(it->options.abandon)) {
        rd_kafka_error_t *error = rd_kafka_abort_transaction(old->rk, ABORT_MS);
        if (error) rd_kafka_error_destroy(error);
    }
    drain(old->rk);
    for (size_t i = 0; i < old->topic_count; i++)
        rd_kafka_topic_destroy(old->topics[i]);
    rd_kafka_destroy(old->rk);
    free(old->topics);
    free(old);
}

/* ---- settling ------------------------------------------------------------------------------ */

fault kafka_sink_cluster_id(kafka_sink *it, char id[KAFKA_CLUSTER_ID_SIZE], sink_failure *why) {
    char *found = rd_kafka_clusterid(it->current->rk, ASK_MS);
    if (!found) return kafka_failed_time(why, "asking for the cluster id");
    snprintf(id, KAFKA_CLUSTER_ID_SIZE, "%s", found);
    rd_kafka_mem_free(it->current->rk, found);
    return FAULT_NONE;
}

static rd_kafka_topic_t *topic_handle(producer *from, const char *name) {
    for (size_t i = 0; i < from->topic_count; i++)
        if (strcmp(rd_kafka_topic_name(from->topics[i]), name) == 0) return from->topics[i];
    rd_kafka_topic_t **grown =
        realloc(from->topics, (from->topic_count + 1) * sizeof(*from->topics));
    if (!grown) return NULL;
    from->topics = grown;
    rd_kafka_topic_t *made = rd_kafka_topic_new(from->rk, name, NULL);
    if (made) from->topics[from->topic_count++] = made;
    return made;
}

fault kafka_sink_partition_count(kafka_sink *it, const char *topic, int32_t *count,
                                 sink_failure *why) {
    const rd_kafka_metadata_t *found = NULL;
    rd_kafka_topic_t *handle = topic_handle(it->current, topic);
    if (!handle) return kafka_failed(why, FAULT_AWAY, 0, "out of memory");
    rd_kafka_resp_err_t code = rd_kafka_metadata(it->current->rk, 0, handle, &found, ASK_MS);
    if (code) return kafka_failed_code(why, "asking about the positions topic", code);
    code = found->topic_cnt == 1 ? found->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    *count = found->topic_cnt == 1 ? found->topics[0].partition_cnt : 0;
    rd_kafka_metadata_destroy(found);
    if (code || *count == 0)
        return kafka_failed(why, kafka_fault(code ? code : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART),
                            code, "positions topic %s: %s", topic, rd_kafka_err2str(code));
    return FAULT_NONE;
}

/* ---- a transaction --------------------------------------------------------------------------- */

fault kafka_sink_begin(kafka_sink *it, sink_failure *why) {
    producer *with = it->current;
    rd_kafka_poll(with->rk, 0); /* what was reported before does not count */
    with->produced = 0;
    with->transport_error = false;
    with->purged = false;
    with->first_error = RD_KAFKA_RESP_ERR_NO_ERROR;
    with->first_error_sequence = 0;
    with->position_offset = -1;
    if (it->options.route->delivery != DELIVERY_EXACTLY_ONCE) return FAULT_NONE;
    rd_kafka_error_t *error = rd_kafka_begin_transaction(with->rk);
    if (error) return kafka_failed_error(why, "beginning a transaction", error);
    with->in_transaction = true;
    return FAULT_NONE;
}

/* Why records failed: the first report that says so, else what the library has against the
 * transaction, which a commit tells (and cannot do: records are missing from it). */
static fault failed_records(kafka_sink *it, sink_failure *why) {
    producer *with = it->current;
    char text[200];
    rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(with->rk, text, sizeof text);
    if (with->first_error && !(fatal && with->first_error == RD_KAFKA_RESP_ERR__FATAL)) {
        fault what = kafka_fault(with->first_error);
        bool of_position = with->first_error_sequence == 0;
        if (what == FAULT_RECORD && of_position) what = FAULT_ROUTE;
        return kafka_failed(why, what, with->first_error, "publishing %s: %s (%s)",
                            of_position ? "the position" : "events",
                            rd_kafka_err2str(with->first_error),
                            rd_kafka_err2name(with->first_error));
    }
    if (fatal) {
        fault what = kafka_fault(fatal);
        return kafka_failed(why, what == FAULT_AWAY || what == FAULT_RECORD ? FAULT_FATAL : what,
                            fatal, "publishing: %s (%s)", text, rd_kafka_err2name(fatal));
    }
    if (with->in_transaction) {
        rd_kafka_error_t *error = rd_kafka_commit_transaction(with->rk, KAFKA_SINK_SLICE_MS);
        if (error) return kafka_failed_error(why, "publishing", error);
        with->in_transaction = false;
    }
    return kafka_failed(why, FAULT_DOUBT, 0, "publishing: records were purged for no known reason");
}

static bool records_failed(const producer *with) { return with->first_error || with->purged; }

static fault produce(kafka_sink *it, const rd_kafka_vu_t *fields, size_t count, sink_failure *why) {
    producer *with = it->current;
    int64_t deadline = 0;
    for (;;) {
        rd_kafka_error_t *error = rd_kafka_produceva(with->rk, fields, count);
        if (!error) {
            if (++with->produced % POLL_EVERY == 0) rd_kafka_poll(with->rk, 0);
            return records_failed(with) ? failed_records(it, why) : FAULT_NONE;
        }
        rd_kafka_resp_err_t code = rd_kafka_error_code(error);
        if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            rd_kafka_poll(with->rk, 0);
            if (!records_failed(with)) return kafka_failed_error(why, "publishing", error);
            rd_kafka_error_destroy(error);
            return failed_records(it, why);
        }
        rd_kafka_error_destroy(error);
        rd_kafka_poll(with->rk, 20);
        if (records_failed(with)) return failed_records(it, why);
        if (deadline == 0) deadline = clock_monotonic_ms() + QUEUE_FULL_MS;
        if (kafka_sink_out_of_time(it->options.abandon, deadline))
            return kafka_failed_time(why, "publishing");
    }
}

static rd_kafka_vu_t vu_bytes(rd_kafka_vtype_t type, bytes value) {
    return (rd_kafka_vu_t){.vtype = type, .u.mem = {(void *)(uintptr_t)value.data, value.len}};
}

fault kafka_sink_produce(kafka_sink *it, const kafka_record *record, uint64_t sequence,
                         sink_failure *why) {
    rd_kafka_vu_t fields[5 + KAFKA_RECORD_HEADERS_MAX];
    size_t count = 0;
    rd_kafka_topic_t *topic = topic_handle(it->current, record->topic);
    if (!topic) return kafka_failed(why, FAULT_AWAY, 0, "out of memory");
    fields[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = topic};
    fields[count++] = vu_bytes(RD_KAFKA_VTYPE_KEY, record->key);
    fields[count++] = vu_bytes(RD_KAFKA_VTYPE_VALUE, record->value);
    fields[count++] =
        (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = (void *)(uintptr_t)sequence};
    fields[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY};
    for (size_t i = 0; i < record->header_count; i++) {
        const kafka_header *header = &record->headers[i];
        fields[count++] = (rd_kafka_vu_t){
            .vtype = RD_KAFKA_VTYPE_HEADER,
            .u.header = {header->name, header->value.data, (ssize_t)header->value.len}};
    }
    return produce(it, fields, count, why);
}

fault kafka_sink_produce_position(kafka_sink *it, const char *topic, int32_t partition,
                                  const position *value, sink_failure *why) {
    uint8_t encoded[POSITION_SIZE];
    rd_kafka_topic_t *handle = topic_handle(it->current, topic);
    if (!handle) return kafka_failed(why, FAULT_AWAY, 0, "out of memory");
    position_encode(value, encoded);
    const rd_kafka_vu_t fields[] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = handle},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = partition},
        vu_bytes(RD_KAFKA_VTYPE_KEY, bytes_of_string(it->key)),
        vu_bytes(RD_KAFKA_VTYPE_VALUE, bytes_of(encoded, sizeof encoded)),
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
    };
    return produce(it, fields, sizeof fields / sizeof *fields, why);
}

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

fault kafka_sink_flush(kafka_sink *it, sink_failure *why) {
    producer *with = it->current;
    int64_t most = clock_monotonic_ms() + FLUSH_MOST_MS;
    int64_t deadline = clock_monotonic_ms() + FLUSH_MS;
    int waiting = rd_kafka_outq_len(with->rk);
    while (rd_kafka_flush(with->rk, KAFKA_SINK_SLICE_MS) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (records_failed(with)) break;
        int left = rd_kafka_outq_len(with->rk);
        if (left < waiting) deadline = earlier(most, clock_monotonic_ms() + FLUSH_MS);
        waiting = left;
        if (!kafka_sink_out_of_time(it->options.abandon, deadline)) continue;
        if (with->transport_error) return kafka_failed_time(why, "publishing");
        return kafka_failed(why, FAULT_STUCK, RD_KAFKA_RESP_ERR__TIMED_OUT,
                            "publishing: no progress although the brokers answer");
    }
    return records_failed(with) ? failed_records(it, why) : FAULT_NONE;
}

fault kafka_sink_commit(kafka_sink *it, int64_t *elapsed_ms, bool *transport_error,
                        sink_failure *why) {
    producer *with = it->current;
    int64_t started = clock_monotonic_ms();
    *elapsed_ms = 0;
    *transport_error = false;
    it->position_offset = with->position_offset;
    if (!with->in_transaction) return FAULT_NONE;
    with->in_transaction = false;
    rd_kafka_error_t *error;
    while ((error = rd_kafka_commit_transaction(with->rk, KAFKA_SINK_SLICE_MS))) {
        bool resume = rd_kafka_error_is_retriable(error) &&
                      !kafka_sink_out_of_time(it->options.abandon, started + COMMIT_MS);
        if (!resume) break;
        rd_kafka_error_destroy(error);
        rd_kafka_poll(with->rk, 10);
    }
    *elapsed_ms = clock_monotonic_ms() - started;
    rd_kafka_poll(with->rk, 0); /* errors that were reported meanwhile */
    *transport_error = with->transport_error;
    if (error) {
        fault what = kafka_failed_error(why, "committing", error);
        return what == FAULT_AWAY || what == FAULT_STUCK ? why->fault = FAULT_DOUBT : what;
    }
    atomic_store(&it->reachable, true);
    return FAULT_NONE;
}

int64_t kafka_sink_written_offset(const kafka_sink *it) { return it->current->position_offset; }
int64_t kafka_sink_position_offset(const kafka_sink *it) { return it->position_offset; }

/* ---- the rest ----------------------------------------------------------------------------------
 */

void kafka_sink_poll(kafka_sink *it) {
    if (it->current) rd_kafka_poll(it->current->rk, 0);
}

rd_kafka_t *kafka_sink_handle(kafka_sink *it) { return it->current ? it->current->rk : NULL; }

bool kafka_sink_reachable(const kafka_sink *it) { return atomic_load(&it->reachable); }
