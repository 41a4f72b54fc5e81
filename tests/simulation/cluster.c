/*
 * The names are Kafka's: TransactionCoordinator.scala for the states, ProducerAppendInfo for what a
 * partition checks. A marker is written to each partition on its own, some time after the
 * coordinator has answered: until then the last stable offset stays behind the high watermark.
 */
#include "cluster.h"

#include <stdio.h>
#include <string.h>

#define TRANSACTION_TIMEOUT (120 * SECOND) /* as the sink asks for */

typedef enum transaction_state {
    STATE_EMPTY,
    STATE_ONGOING,
    STATE_PREPARE_COMMIT,
    STATE_PREPARE_ABORT,
    STATE_COMPLETE_COMMIT,
    STATE_COMPLETE_ABORT,
} transaction_state;

typedef struct transaction {
    char id[128];
    int epoch;
    transaction_state state;
    uint32_t partitions; /* bits */
    uint32_t unmarked;   /* of them, those whose marker is not written yet */
    uint64_t serial;     /* counts the transactions of this id */
} transaction;

static struct {
    partition partitions[PARTITIONS_MAX];
    size_t partition_count;
    transaction transactions[PRODUCERS_MAX]; /* index: the producer id */
    int transaction_count;
} cluster;

int64_t cluster_away_until;
int64_t coordinator_away_until;

bool cluster_is_away(void) { return cluster_away_until > world_now(); }

/* ---- partitions ------------------------------------------------------------------------------ */

static void add_partitions(const char *topic, int32_t count) {
    for (int32_t number = 0; number < count; number++) {
        partition *it = &cluster.partitions[cluster.partition_count++];
        *it = (partition){.topic = topic, .number = number};
        for (int i = 0; i < PRODUCERS_MAX; i++) {
            it->producers[i].epoch = -1;
            it->producers[i].open_from = -1;
        }
    }
}

void cluster_begin(int event_partitions) {
    memset(&cluster, 0, sizeof cluster);
    cluster_away_until = coordinator_away_until = 0;
    add_partitions("positions", 2);
    add_partitions("events", event_partitions);
    add_partitions("other", event_partitions);
}

partition *cluster_partition(size_t index) {
    return index < cluster.partition_count ? &cluster.partitions[index] : NULL;
}

partition *cluster_find(const char *topic, int32_t number) {
    for (size_t i = 0; i < cluster.partition_count; i++)
        if (cluster.partitions[i].number == number &&
            strcmp(cluster.partitions[i].topic, topic) == 0)
            return &cluster.partitions[i];
    return NULL;
}

int32_t cluster_partition_count(const char *topic) {
    int32_t count = 0;
    while (cluster_find(topic, count))
        count++;
    return count;
}

static int64_t append(partition *it, entry what) {
    if (it->end == it->capacity) {
        int64_t capacity = it->capacity ? 2 * it->capacity : 64;
        entry *grown = world_hold((size_t)capacity * sizeof *grown);
        if (it->end) memcpy(grown, it->log, (size_t)it->end * sizeof *grown);
        it->log = grown;
        it->capacity = capacity;
    }
    it->log[it->end] = what;
    return it->end++;
}

int64_t cluster_last_stable(const partition *it) {
    int64_t first_open = it->end;
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (it->producers[i].open_from >= 0 && it->producers[i].open_from < first_open)
            first_open = it->producers[i].open_from;
    return first_open;
}

int64_t cluster_readable(const partition *it, bool committed, bool stale) {
    if (stale && it->stale_until > world_now()) return committed ? it->stale_stable : it->stale_end;
    return committed ? cluster_last_stable(it) : it->end;
}

static void mark(partition *on, int producer, int epoch, bool commit) {
    int64_t from = on->producers[producer].open_from;
    for (int64_t i = from; from >= 0 && i < on->end; i++)
        if (on->log[i].producer == producer && on->log[i].fate == FATE_OPEN)
            on->log[i].fate = commit ? FATE_COMMITTED : FATE_ABORTED;
    append(on, (entry){.kind = ENTRY_MARKER, .fate = FATE_COMMITTED, .producer = producer});
    on->producers[producer].open_from = -1;
    if (on->producers[producer].epoch < epoch) on->producers[producer].next_sequence = 0;
    on->producers[producer].epoch = epoch;
    trace("    %s/%d: %s marker of producer %d epoch %d", on->topic, on->number,
          commit ? "commit" : "abort", producer, epoch);
}

/* ---- the end of a transaction ---------------------------------------------------------------- */

typedef struct marker_request {
    int producer, epoch;
    bool commit;
    size_t partition;
} marker_request;

static void write_marker(void *argument) {
    marker_request *it = argument;
    partition *on = &cluster.partitions[it->partition];
    if (on->away_until > world_now()) {
        later(on->away_until - world_now() + MS, NULL, write_marker, it);
        return;
    }
    transaction *of = &cluster.transactions[it->producer];
    mark(on, it->producer, it->epoch, it->commit);
    of->unmarked &= ~(1u << it->partition);
    if (of->unmarked) return;
    of->state = it->commit ? STATE_COMPLETE_COMMIT : STATE_COMPLETE_ABORT;
    of->partitions = 0;
}

static void prepare(int producer, bool commit) {
    transaction *of = &cluster.transactions[producer];
    of->state = commit ? STATE_PREPARE_COMMIT : STATE_PREPARE_ABORT;
    of->unmarked = of->partitions;
    for (size_t i = 0; i < cluster.partition_count; i++) {
        if (!(of->partitions & 1u << i)) continue;
        marker_request *request = world_hold(sizeof *request);
        *request = (marker_request){producer, of->epoch, commit, i};
        later(chance(50) ? between(0, 2 * SECOND) : between(100, 2 * MS), NULL, write_marker,
              request);
    }
}

typedef struct expiry {
    int producer;
    uint64_t serial;
} expiry;

static void expire(void *argument) {
    const expiry *it = argument;
    transaction *of = &cluster.transactions[it->producer];
    if (of->serial != it->serial || of->state != STATE_ONGOING) return;
    of->epoch++; /* fences its producer */
    trace("    transaction of producer %d expires, epoch is %d now", it->producer, of->epoch);
    prepare(it->producer, false);
}

/* ---- requests ---------------------------------------------------------------------------------
 */

static int transaction_of(const char *id) {
    for (int i = 0; i < cluster.transaction_count; i++)
        if (strcmp(cluster.transactions[i].id, id) == 0) return i;
    transaction *fresh = &cluster.transactions[cluster.transaction_count];
    snprintf(fresh->id, sizeof fresh->id, "%s", id);
    fresh->epoch = -1;
    return cluster.transaction_count++;
}

rd_kafka_resp_err_t cluster_init_producer(const char *transactional_id, int *producer, int *epoch) {
    if (coordinator_away_until > world_now()) return RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
    *producer = transaction_of(transactional_id);
    transaction *of = &cluster.transactions[*producer];
    if (of->state == STATE_ONGOING) {
        of->epoch++;
        prepare(*producer, false);
        return RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
    }
    if (of->state == STATE_PREPARE_COMMIT || of->state == STATE_PREPARE_ABORT)
        return RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
    *epoch = ++of->epoch;
    of->state = STATE_EMPTY;
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t check_epoch(const transaction *of, int epoch) {
    if (coordinator_away_until > world_now()) return RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
    return of->epoch == epoch ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR_PRODUCER_FENCED;
}

rd_kafka_resp_err_t cluster_add_partition(int producer, int epoch, partition *to) {
    transaction *of = &cluster.transactions[producer];
    rd_kafka_resp_err_t code = check_epoch(of, epoch);
    if (code) return code;
    if (of->state == STATE_PREPARE_COMMIT || of->state == STATE_PREPARE_ABORT)
        return RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
    if (to->denied_until > world_now()) return RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    if (of->state != STATE_ONGOING) {
        of->state = STATE_ONGOING;
        of->partitions = 0;
        expiry *limit = world_hold(sizeof *limit);
        *limit = (expiry){producer, ++of->serial};
        later(TRANSACTION_TIMEOUT, NULL, expire, limit);
    }
    of->partitions |= 1u << (to - cluster.partitions);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_resp_err_t cluster_end(int producer, int epoch, bool commit) {
    transaction *of = &cluster.transactions[producer];
    rd_kafka_resp_err_t code = check_epoch(of, epoch);
    if (code) return code;
    switch (of->state) {
    case STATE_ONGOING:
        prepare(producer, commit);
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    case STATE_PREPARE_COMMIT:
    case STATE_PREPARE_ABORT:
        return commit == (of->state == STATE_PREPARE_COMMIT)
                   ? RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS
                   : RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
    case STATE_COMPLETE_COMMIT:
    case STATE_COMPLETE_ABORT:
        if (commit == (of->state == STATE_COMPLETE_COMMIT)) return RD_KAFKA_RESP_ERR_NO_ERROR;
        return RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
    default:
        return RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
    }
}

/* Poisonous events are called so; it is their last record that the topic refuses. */
static bool is_refused(const message *it) { return it->id[0] == 'p' && it->part + 1 == it->parts; }

rd_kafka_resp_err_t cluster_produce(partition *to, int producer, int epoch, int64_t sequence,
                                    message *const *batch, size_t count, int64_t *offset) {
    if (to->away_until > world_now()) return RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    for (size_t i = 0; i < count; i++) /* the batch, hence all of it */
        if (is_refused(batch[i])) return RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    const transaction *of = &cluster.transactions[producer];
    int64_t *next = &to->producers[producer].next_sequence;
    if (epoch < to->producers[producer].epoch || epoch < of->epoch)
        return RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
    if (epoch > to->producers[producer].epoch) {
        to->producers[producer].epoch = epoch;
        *next = 0;
    }
    *offset = to->end;
    if (sequence + (int64_t)count <= *next) { /* has it already */
        while (*offset > 0 && to->log[*offset - 1].record != batch[0])
            --*offset;
        --*offset;
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    if (sequence != *next) return RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    if (of->state != STATE_ONGOING || !(of->partitions & 1u << (to - cluster.partitions)))
        return RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
    if (to->producers[producer].open_from < 0) to->producers[producer].open_from = to->end;
    for (size_t i = 0; i < count; i++)
        append(to, (entry){ENTRY_RECORD, FATE_OPEN, producer, batch[i]});
    *next += (int64_t)count;
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- what befalls it ------------------------------------------------------------------------- */

static void end_neighbour(void *argument) {
    cluster_end((int)(intptr_t)argument, cluster.transactions[(intptr_t)argument].epoch,
                chance(500));
}

void cluster_neighbour(partition *on, int64_t duration_us) {
    static message hello = {.topic = "positions", .parts = 1};
    int producer, epoch;
    int64_t offset;
    message *batch[] = {&hello};
    hello.key = bytes_of_string("another store");
    if (cluster_init_producer("neighbour", &producer, &epoch) ||
        cluster_add_partition(producer, epoch, on) ||
        cluster_produce(on, producer, epoch, 0, batch, 1, &offset))
        return;
    trace("a neighbour's transaction on %s/%d for %lld ms", on->topic, on->number,
          (long long)(duration_us / MS));
    later(duration_us, NULL, end_neighbour, (void *)(intptr_t)producer);
}

void cluster_move_leader(partition *it, int64_t stale_for_us) {
    trace("%s/%d has a new leader, the old one does not know for %lld ms", it->topic, it->number,
          (long long)(stale_for_us / MS));
    it->stale_end = it->end;
    it->stale_stable = cluster_last_stable(it);
    it->stale_until = world_now() + stale_for_us;
}

void cluster_compact(partition *it) {
    int64_t stable = cluster_last_stable(it);
    for (int64_t i = 0; i < stable; i++)
        for (int64_t j = i + 1; j < stable && it->log[i].fate == FATE_COMMITTED; j++)
            if (it->log[i].kind == ENTRY_RECORD && it->log[j].kind == ENTRY_RECORD &&
                it->log[j].fate == FATE_COMMITTED &&
                bytes_equal(it->log[i].record->key, it->log[j].record->key))
                it->log[i].fate = FATE_COMPACTED;
}

void cluster_lose(partition *it, int64_t end) {
    trace("%s/%d loses offsets %lld..%lld", it->topic, it->number, (long long)end,
          (long long)it->end - 1);
    it->stale_until = 0; /* nobody is left to answer with what is lost */
    for (int64_t i = end; i < it->end; i++) {
        if (it->log[i].kind != ENTRY_RECORD) continue;
        it->producers[it->log[i].producer].next_sequence--;
    }
    it->end = end;
    for (int i = 0; i < PRODUCERS_MAX; i++) {
        if (it->producers[i].next_sequence < 0) it->producers[i].next_sequence = 0;
        if (it->producers[i].open_from >= end) it->producers[i].open_from = -1;
    }
}
