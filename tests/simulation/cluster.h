/*
 * cluster: the brokers of the simulated Kafka: partition logs with transaction markers, high
 * watermark and last stable offset, and the transaction coordinator with producer ids and epochs.
 * As Kafka 4 treats a client of the first transaction protocol, which is what librdkafka speaks:
 * an epoch lives for many transactions (no KIP-890 part 2), and a batch is taken only into a
 * transaction that the coordinator knows to be open (KIP-890 part 1).
 *
 * These functions are what a broker does when a request arrives. How it gets there, late, twice or
 * never, is the client's part: rdkafka_producer.c.
 */
#ifndef INGEST_SIMULATION_CLUSTER_H
#define INGEST_SIMULATION_CLUSTER_H

#include <librdkafka/rdkafka.h>

#include "storage/bytes.h"
#include "world.h"

#define PARTITIONS_MAX 16
#define PRODUCERS_MAX 8

/* A record, as it was produced; held by the world. */
typedef struct message {
    const char *topic;
    bytes key;
    bytes value;
    char id[24]; /* ce_id up to a slash; "" for a position */
    uint64_t sequence;
    unsigned part, parts; /* of a group; 0 of 1 for a whole event */
    void *opaque;
} message;

typedef enum entry_kind { ENTRY_RECORD, ENTRY_MARKER } entry_kind;
typedef enum entry_fate { FATE_OPEN, FATE_COMMITTED, FATE_ABORTED, FATE_COMPACTED } entry_fate;

typedef struct entry {
    entry_kind kind;
    entry_fate fate;
    int producer;
    const message *record;
} entry;

typedef struct partition {
    const char *topic;
    int32_t number;
    entry *log;
    int64_t end; /* the high watermark: all is replicated at once */
    int64_t capacity;
    struct {
        int epoch;
        int64_t next_sequence;
        int64_t open_from; /* first offset of its open transaction; -1: none */
    } producers[PRODUCERS_MAX];
    int64_t away_until; /* no leader, or too few replicas in sync */
    /* After a move of the leadership the old leader, cut off from the others, may go on answering
     * readers for a while with what it had. */
    int64_t stale_until;
    int64_t stale_end, stale_stable;
    int64_t denied_until; /* the producer has no right to write */
} partition;

void cluster_begin(int event_partitions);
partition *cluster_partition(size_t index); /* NULL behind the last one */
partition *cluster_find(const char *topic, int32_t number);
int32_t cluster_partition_count(const char *topic);

/* Nobody reaches Kafka, or only not the coordinator, until then. */
extern int64_t cluster_away_until;
extern int64_t coordinator_away_until;
bool cluster_is_away(void);

/* ---- requests; RD_KAFKA_RESP_ERR_NO_ERROR or the broker's error ----------------------------- */

rd_kafka_resp_err_t cluster_init_producer(const char *transactional_id, int *producer, int *epoch);
rd_kafka_resp_err_t cluster_add_partition(int producer, int epoch, partition *to);
rd_kafka_resp_err_t cluster_end(int producer, int epoch, bool commit);
/* One batch. `offset` of its first record. */
rd_kafka_resp_err_t cluster_produce(partition *to, int producer, int epoch, int64_t sequence,
                                    message *const *batch, size_t count, int64_t *offset);

/* ---- reading -------------------------------------------------------------------------------- */

int64_t cluster_last_stable(const partition *it);

/* Where a reader gets to: the last stable offset or the high watermark; `stale`: one that asks an
 * old leader, as long as there is one. */
int64_t cluster_readable(const partition *it, bool committed, bool stale);

/* ---- what befalls it ------------------------------------------------------------------------ */

/* Another client's transaction on a partition: holds up its stable offset for a while. */
void cluster_neighbour(partition *on, int64_t duration_us);
/* The leadership moves; the old leader does not know until then. */
void cluster_move_leader(partition *it, int64_t stale_for_us);
/* The cleaner: of each key only the last record below the stable offset stays. */
void cluster_compact(partition *it);
/* An unclean election: what is at `end` and behind is gone. */
void cluster_lose(partition *it, int64_t end);

#endif
