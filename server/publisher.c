/*
 * The thread: does what the machine orders, and tells it how that went. It decides nothing but
 * when to make the hint durable.
 */
#include "server/publisher.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "server/kafka_sink.h"
#include "server/kafka_topics.h"
#include "server/log.h"
#include "server/publisher_machine.h"
#include "storage/clock.h"
#include "storage/committer.h"

#define DOUBT_MS 500 /* half of the sink's retry.backoff.ms */
#define ADVANCE_EVENTS 10000
#define ADVANCE_MS 1000
#define LOG_PERIOD_MS 10000

struct publisher {
    publisher_options options;
    pthread_t thread;
    atomic_bool stopping;
    atomic_bool abandon; /* the grace is over */

    /* the thread's */
    publisher_machine machine;
    kafka_sink *sink;
    store_reader *reader;
    uint64_t reader_next; /* what it reads next; 0: not known, seek */
    kafka_record_buffer buffer;
    uuid store;
    route_anchor anchor;
    sink_failure why; /* of the last failure */
    bool topics_ready;
    int64_t begun_us; /* of the open transaction */
    /* The position record that machine.position came from. */
    uuid record_incarnation;
    int64_t record_offset;
    uint64_t told;     /* the last position that the store and on_position know */
    uint64_t advanced; /* the last hint handed to the committer */
    int64_t advanced_ms;
    log_limit retry_log;

    pthread_mutex_t lock; /* of status */
    publisher_status status;
};

static bool transactional(const publisher *it) {
    return it->options.settings->delivery == DELIVERY_EXACTLY_ONCE;
}

/* ---- events ---------------------------------------------------------------------------------- */

typedef void (*performer)(publisher *it, const machine_order *order, machine_event *event);

static void set_failed(publisher *it, machine_event *event) {
    event->kind = EV_FAILED;
    event->failed.fault = it->why.fault;
    event->failed.code = it->why.code;
    event->failed.by_size = it->why.code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
                            it->why.code == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE ||
                            it->why.code == RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE;
    event->failed.text = it->why.text;
}

static void set_outcome(publisher *it, machine_event *event, fault what, machine_event_kind kind) {
    if (what == FAULT_NONE)
        event->kind = kind;
    else
        set_failed(it, event);
}

static fault store_failed(publisher *it, fault what, const char *doing, const failure *why) {
    it->why = (sink_failure){.fault = what};
    snprintf(it->why.text, sizeof it->why.text, "%s: %.240s", doing, why->reason);
    return what;
}

/* ---- settling -------------------------------------------------------------------------------- */

/* A partition for each store and route, and the same for every copy of the store: a clone that has
 * not published yet must meet the other's position. */
static int32_t positions_partition(const publisher *it, int32_t partitions) {
    const uint8_t *random = it->store.octets + sizeof it->store.octets - 2;
    uint32_t draw = ((uint32_t)random[0] << 8 | random[1]) + it->options.route;
    return (int32_t)(draw % (uint32_t)partitions);
}

/* Syncs where the positions will be: this cluster, this topic, a partition drawn once. */
static fault draw_anchor(publisher *it, const char *cluster) {
    int32_t partitions;
    const char *topic = it->options.config->kafka.positions_topic;
    fault what = kafka_sink_partition_count(it->sink, topic, &partitions, &it->why);
    if (what) return what;
    failure why = {0};
    snprintf(it->anchor.cluster_id, sizeof it->anchor.cluster_id, "%s", cluster);
    snprintf(it->anchor.positions_topic, sizeof it->anchor.positions_topic, "%s", topic);
    it->anchor.positions_partition = positions_partition(it, partitions);
    it->anchor.kafka_offset = -1;
    if (committer_set_anchor(it->options.store, it->options.route, &it->anchor, &why))
        return store_failed(it, FAULT_AWAY, "storing the anchor", &why);
    return FAULT_NONE;
}

/* The cluster and the topic must be those that have our position. */
static fault check_anchor(publisher *it) {
    char cluster[KAFKA_CLUSTER_ID_SIZE];
    const char *topic = it->options.config->kafka.positions_topic;
    fault what = kafka_sink_cluster_id(it->sink, cluster, &it->why);
    if (what) return what;
    bool same_cluster = strcmp(cluster, it->anchor.cluster_id) == 0;
    bool same_topic = strcmp(topic, it->anchor.positions_topic) == 0;
    if (same_cluster && same_topic) return FAULT_NONE;
    if (!it->anchor.has_published) return draw_anchor(it, cluster);
    it->why = (sink_failure){.fault = FAULT_HALT};
    snprintf(it->why.text, sizeof it->why.text,
             "this store publishes to %s %.80s, and was pointed at %.80s; correct %s, or, to move "
             "for good, stop the server and run: ingestctl store restore %.128s",
             same_cluster ? "positions topic" : "cluster",
             same_cluster ? it->anchor.positions_topic : it->anchor.cluster_id,
             same_cluster ? topic : cluster,
             same_cluster ? "kafka.positions_topic" : "kafka.brokers",
             it->options.config->data_dir);
    return FAULT_HALT;
}

static fault settle_transactional(publisher *it, settle_facts *facts) {
    found_position found;
    fault what = check_anchor(it);
    if (!what)
        what = kafka_sink_read_position(it->sink, it->anchor.positions_topic,
                                        it->anchor.positions_partition, it->anchor.kafka_offset,
                                        &found, &it->why);
    if (what) return what;
    facts->found = found.found;
    if (found.found) {
        facts->sequence = found.position.sequence;
        facts->known = store_check_position(it->options.store, it->options.route,
                                            &found.position.incarnation, found.position.sequence);
        it->record_incarnation = found.position.incarnation;
        it->record_offset = found.offset;
    }
    return FAULT_NONE;
}

/* At least once: the store's hint is all there is, so what Kafka has gets out of date. */
static fault settle_at_least_once(publisher *it) {
    failure why = {0};
    it->record_incarnation = store_incarnation(it->options.store);
    it->record_offset = -1;
    if (!it->anchor.has_published) return FAULT_NONE;
    it->anchor.has_published = false;
    it->anchor.kafka_offset = -1;
    if (committer_set_anchor(it->options.store, it->options.route, &it->anchor, &why))
        return store_failed(it, FAULT_AWAY, "storing the anchor", &why);
    return FAULT_NONE;
}

static void prepare_topics(publisher *it) {
    if (it->topics_ready || it->options.config->trial) return;
    it->topics_ready = kafka_topics_prepare(kafka_sink_handle(it->sink), it->options.config,
                                            it->options.settings, it->options.catalogue);
}

static void settle(publisher *it, const machine_order *order, machine_event *event) {
    settle_facts *facts = &event->settled;
    route_stats stats;
    store_anchor(it->options.store, it->options.route, &it->anchor);
    fault what = kafka_sink_open(it->sink, order->batch, &it->why);
    if (!what) {
        prepare_topics(it);
        what = transactional(it) ? settle_transactional(it, facts) : settle_at_least_once(it);
    }
    store_stats(it->options.store, it->options.route, &stats);
    facts->has_published = it->anchor.has_published;
    facts->hint_sequence = it->anchor.sequence;
    facts->last_sequence = stats.last_sequence;
    set_outcome(it, event, what, EV_SETTLED);
}

static void anchor(publisher *it, const machine_order *order, machine_event *event) {
    failure why = {0};
    (void)order;
    event->kind = EV_ANCHORED;
    it->anchor.has_published = true;
    if (!committer_set_anchor(it->options.store, it->options.route, &it->anchor, &why)) return;
    store_failed(it, FAULT_AWAY, "storing the anchor", &why);
    set_failed(it, event);
}

/* ---- a transaction --------------------------------------------------------------------------- */

static void begin(publisher *it, const machine_order *order, machine_event *event) {
    (void)order;
    it->begun_us = clock_monotonic_us();
    set_outcome(it, event, kafka_sink_begin(it->sink, &it->why), EV_BEGUN);
}

typedef struct event_records {
    const kafka_record *list;
    size_t count;
    uint64_t largest_bytes;
} event_records;

static fault make_records(publisher *it, const event_record *record, event_records *out) {
    failure why = {0};
    outcome made = kafka_record_make(record, it->options.settings, it->options.catalogue,
                                     &it->store, &it->buffer, &out->list, &out->count, &why);
    if (made)
        return store_failed(it, made == ST_CORRUPT ? FAULT_RECORD : FAULT_AWAY,
                            "making the Kafka record", &why);
    out->largest_bytes = 0;
    for (size_t i = 0; i < out->count; i++) {
        const kafka_record *one = &out->list[i];
        uint64_t size = one->key.len + one->value.len;
        for (size_t header = 0; header < one->header_count; header++)
            size += strlen(one->headers[header].name) + one->headers[header].value.len;
        if (size > out->largest_bytes) out->largest_bytes = size;
    }
    return FAULT_NONE;
}

/* A suspect goes alone: nothing may be in the transaction before it, and it closes it. Tombstones
 * neither: were it to fail for good, the position would never pass them. */
static fault produce_event(publisher *it, const machine_order *order, const event_record *record,
                           machine_event *event) {
    event_records made = {0};
    fault what = make_records(it, record, &made);
    bool suspicious = order->suspect && made.largest_bytes >= order->suspect;
    event->filled.closed = suspicious;
    if (suspicious && !(order->empty && event->filled.last_sequence == 0)) {
        it->reader_next = 0; /* it will be read again */
        return FAULT_NONE;
    }
    event->filled.last_sequence = record->sequence;
    event->filled.event_sequence = record->sequence;
    event->filled.events++;
    event->filled.bytes += record->event.len;
    if (made.largest_bytes > event->filled.largest_bytes)
        event->filled.largest_bytes = made.largest_bytes;
    for (size_t i = 0; i < made.count && !what; i++)
        what = kafka_sink_produce(it->sink, &made.list[i], record->sequence, &it->why);
    return what;
}

static void seek(publisher *it, uint64_t from) {
    if (!it->reader)
        it->reader = store_reader_open(it->options.store, it->options.route, from);
    else if (it->reader_next != from)
        store_reader_seek(it->reader, from);
    it->reader_next = from;
}

static fault outbox_unreadable(publisher *it, const failure *why) {
    it->why = (sink_failure){.fault = FAULT_HALT};
    snprintf(it->why.text, sizeof it->why.text,
             "reading the outbox: %.240s; stop the server and run: ingestctl store verify %.128s",
             why->reason, it->options.config->data_dir);
    return FAULT_HALT;
}

/* Asks the clock now and then only: a record takes about a microsecond. */
static bool fill_time_over(uint64_t records, int64_t until_ms) {
    return records % 256 == 255 && clock_monotonic_ms() >= until_ms;
}

static void fill(publisher *it, const machine_order *order, machine_event *event) {
    fault what = FAULT_NONE;
    int64_t until_ms = clock_monotonic_ms() + order->fill_ms;
    uint64_t records = 0;
    seek(it, order->from);
    while (!what && !event->filled.closed && it->reader_next <= order->upto &&
           event->filled.bytes < order->bytes && !fill_time_over(records++, until_ms)) {
        event_record record;
        failure why = {0};
        outcome got = store_reader_next(it->reader, &record, &why);
        if (got == ST_NOT_FOUND) break;
        if (got) {
            what = outbox_unreadable(it, &why);
            break;
        }
        it->reader_next = record.sequence + 1;
        if (record.kind != RECORD_EVENT)
            event->filled.last_sequence = record.sequence;
        else
            what = produce_event(it, order, &record, event);
    }
    set_outcome(it, event, what, EV_FILLED);
}

static void flush(publisher *it, const machine_order *order, machine_event *event) {
    position value = {.incarnation = store_incarnation(it->options.store),
                      .sequence = order->sequence};
    fault what = FAULT_NONE;
    if (transactional(it))
        what = kafka_sink_produce_position(it->sink, it->anchor.positions_topic,
                                           it->anchor.positions_partition, &value, &it->why);
    if (!what) what = kafka_sink_flush(it->sink, &it->why);
    if (!what && transactional(it))
        what = kafka_sink_confirm_position(it->sink, it->anchor.positions_topic,
                                           it->anchor.positions_partition, &it->why);
    set_outcome(it, event, what, EV_FLUSHED);
}

static void count_transaction(publisher *it) {
    uint64_t took_us = (uint64_t)(clock_monotonic_us() - it->begun_us);
    size_t bucket = 0;
    size_t last = sizeof it->status.transaction_us_buckets / sizeof(uint64_t) - 1;
    while (bucket < last && took_us >> bucket > 0)
        bucket++;
    pthread_mutex_lock(&it->lock);
    it->status.transactions++;
    it->status.transaction_us_sum += took_us;
    it->status.transaction_us_buckets[bucket]++;
    pthread_mutex_unlock(&it->lock);
}

static void commit(publisher *it, const machine_order *order, machine_event *event) {
    (void)order;
    fault what = kafka_sink_commit(it->sink, &event->committed.elapsed_ms,
                                   &event->committed.transport_error, &it->why);
    set_outcome(it, event, what, EV_COMMITTED);
    if (what) return;
    it->record_incarnation = store_incarnation(it->options.store);
    it->record_offset = kafka_sink_position_offset(it->sink);
    count_transaction(it);
}

static void bury(publisher *it, const machine_order *order, machine_event *event) {
    failure why = {0};
    int64_t now_ms = clock_wall_ms();
    bury_reason reason = {.reason = it->why.text, /* of the refusal that led here */
                          .error_code = order->code,
                          .attempts = order->attempts,
                          .first_attempt_ms = now_ms - order->suspect_ms,
                          .last_attempt_ms = now_ms};
    outcome done =
        committer_bury(it->options.store, it->options.route, order->sequence, &reason, &why);
    event->kind = EV_BURIED;
    if (done) {
        store_failed(it, done == ST_DEAD_FULL ? FAULT_DEAD_FULL : FAULT_AWAY,
                     "setting an event aside", &why);
        set_failed(it, event);
        return;
    }
    log_line(LOG_WARNING, "event set aside as a dead letter", "route=%s sequence=%llu reason=%s",
             it->options.settings->name, (unsigned long long)order->sequence, it->why.text);
    if (it->options.on_dead)
        it->options.on_dead(it->options.arg, it->options.route, order->sequence, it->why.text);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* The hint is only there to save time and space, so it may lag. */
static void advance_hint(publisher *it, bool now) {
    uint64_t settled = it->machine.position;
    int64_t now_ms = clock_monotonic_ms();
    if (settled <= it->advanced) return;
    if (!now && settled - it->advanced < ADVANCE_EVENTS && now_ms - it->advanced_ms < ADVANCE_MS)
        return;
    committer_advance(it->options.store, it->options.route, settled, &it->record_incarnation,
                      it->record_offset);
    it->advanced = settled;
    it->advanced_ms = now_ms;
}

static void await_events(publisher *it, const machine_order *order, machine_event *event) {
    if (order->state == M_IDLE) {
        if (it->reader) store_reader_rest(it->reader);
        advance_hint(it, false);
        kafka_sink_poll(it->sink);
    }
    uint64_t last = 0;
    if (!atomic_load(&it->stopping))
        last = store_wait(it->options.store, it->options.route, order->after, order->wait_ms);
    event->kind = atomic_load(&it->stopping) ? EV_STOP
                  : last > order->after      ? EV_AVAILABLE
                                             : EV_TIME;
}

static void wait_out(publisher *it, const machine_order *order, machine_event *event) {
    if (it->reader) store_reader_rest(it->reader);
    if (!atomic_load(&it->stopping)) /* for no record: until the time is over, or publisher_stop */
        store_wait(it->options.store, it->options.route, UINT64_MAX, order->wait_ms);
    event->kind = atomic_load(&it->stopping) ? EV_STOP : EV_TIME;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static const performer PERFORMERS[M_STATE_COUNT] = {
    [M_SETTLING] = settle, [M_ANCHORING] = anchor,  [M_IDLE] = await_events,
    [M_BEGINNING] = begin, [M_FILLING] = fill,      [M_LINGERING] = await_events,
    [M_FLUSHING] = flush,  [M_COMMITTING] = commit, [M_BURYING] = bury,
    [M_PAUSED] = wait_out,
};

static publisher_restart_reason restart_reason(fault what) {
    switch (what) {
    case FAULT_DOUBT:
        return RESTART_DOUBT;
    case FAULT_FENCED:
        return RESTART_FENCED;
    case FAULT_FATAL:
        return RESTART_FATAL;
    default:
        return RESTART_ABORT;
    }
}

static void discard(publisher *it, fault reason, machine_state during) {
    kafka_sink_discard(it->sink);
    it->reader_next = 0;
    if (during == M_SETTLING) return; /* it never published */
    pthread_mutex_lock(&it->lock);
    it->status.restarts[restart_reason(reason)]++;
    it->status.aborted++;
    pthread_mutex_unlock(&it->lock);
}

static publisher_state public_state(const publisher_machine *machine) {
    if (machine->state == M_STOPPED) return PUBLISHER_STOPPED;
    if (machine->standing == STANDING_HALTED) return PUBLISHER_HALTED;
    if (machine->standing == STANDING_BLOCKED) return PUBLISHER_BLOCKED;
    switch (machine->state) {
    case M_NEW:
    case M_SETTLING:
    case M_ANCHORING:
    case M_PAUSED:
        return PUBLISHER_SETTLING;
    default:
        return PUBLISHER_RUNNING;
    }
}

static void report(publisher *it, const machine_order *order) {
    static const struct {
        log_level level;
        const char *message;
    } LINES[] = {
        [STANDING_GOOD] = {LOG_INFO, "route publishes"},
        [STANDING_RETRYING] = {LOG_WARNING, "route tries again"},
        [STANDING_BLOCKED] = {LOG_ERROR, "route blocked"},
        [STANDING_HALTED] = {LOG_ERROR, "route halted"},
    };
    machine_standing standing = it->machine.standing;
    bool refused = order->discard == FAULT_RECORD;
    if ((refused || standing == STANDING_RETRYING) && !log_allowed(&it->retry_log, LOG_PERIOD_MS))
        return;
    log_line(refused ? LOG_WARNING : LINES[standing].level,
             refused ? "record refused" : LINES[standing].message, "route=%s last_error=%s",
             it->options.settings->name, order->text);
}

static void update_status(publisher *it, const machine_order *order) {
    pthread_mutex_lock(&it->lock);
    it->status.state = public_state(&it->machine);
    if (order->report && it->machine.standing != STANDING_GOOD) {
        memcpy(it->status.last_error, it->machine.text, sizeof it->status.last_error);
        it->status.last_error_ms = clock_wall_ms();
    }
    pthread_mutex_unlock(&it->lock);
}

static void tell_position(publisher *it) {
    if (it->machine.position <= it->told) return;
    it->told = it->machine.position;
    store_set_position(it->options.store, it->options.route, it->told);
    if (it->options.on_position)
        it->options.on_position(it->options.arg, it->options.route, it->told);
}

static void *run(void *argument) {
    publisher *it = argument;
    (void)pthread_setname_np(pthread_self(), "publisher");
    uuid random = uuid_random();
    machine_options options = {.transactional = transactional(it),
                               .max_events = it->options.settings->transaction_max_events,
                               .max_bytes = it->options.settings->transaction_max_bytes,
                               .linger_ms = (int64_t)it->options.settings->linger_ms,
                               .doubt_ms = DOUBT_MS,
                               .store_directory = it->options.config->data_dir};
    memcpy(&options.seed, random.octets + 8, sizeof options.seed);
    const machine_order *order = machine_start(&it->machine, &options, clock_monotonic_ms());
    while (order->state != M_STOPPED) {
        machine_state during = order->state;
        machine_event event = {0};
        PERFORMERS[during](it, order, &event);
        event.now_ms = clock_monotonic_ms();
        order = machine_step(&it->machine, &event);
        if (order->discard) discard(it, order->discard, during);
        tell_position(it);
        update_status(it, order);
        if (order->report) report(it, order);
    }
    advance_hint(it, true);
    if (it->reader) store_reader_close(it->reader);
    kafka_sink_discard(it->sink);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void free_publisher(publisher *it) {
    kafka_sink_free(it->sink);
    kafka_record_buffer_free(&it->buffer);
    pthread_mutex_destroy(&it->lock);
    free(it);
}

outcome publisher_start(const publisher_options *options, publisher **out, failure *why) {
    publisher *it = calloc(1, sizeof *it);
    if (!it) return fail(why, ST_NO_MEMORY, "", "out of memory");
    pthread_mutex_init(&it->lock, NULL);
    it->options = *options;
    it->store = store_id(options->store);
    it->sink = kafka_sink_new(&(sink_options){.config = options->config,
                                              .route = options->settings,
                                              .store = it->store,
                                              .stopping = &it->stopping,
                                              .abandon = &it->abandon});
    if (!it->sink || pthread_create(&it->thread, NULL, run, it)) {
        free_publisher(it);
        return fail(why, ST_NO_MEMORY, "", "cannot start the publisher of route %s",
                    options->settings->name);
    }
    *out = it;
    return ST_OK;
}

void publisher_stop(publisher *it) {
    atomic_store(&it->stopping, true);
    store_wake(it->options.store, it->options.route);
}

void publisher_join(publisher *it, int64_t grace_ms) {
    int64_t until_ms = clock_wall_ms() + grace_ms;
    const struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
    if (pthread_timedjoin_np(it->thread, NULL, &until) != 0) {
        atomic_store(&it->abandon, true);
        pthread_join(it->thread, NULL);
    }
    free_publisher(it);
}

void publisher_status_get(publisher *it, publisher_status *status) {
    pthread_mutex_lock(&it->lock);
    *status = it->status;
    pthread_mutex_unlock(&it->lock);
    status->kafka_reachable = kafka_sink_reachable(it->sink);
}
