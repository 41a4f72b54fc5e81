/*
 * rdkafka: librdkafka's functions, as far as server/kafka_sink.c calls them, over the simulated
 * cluster. They come before librdkafka's at link time; what is left out (names of errors) is the
 * real one. What is simulated was read in librdkafka's sources, rdkafka_txnmgr.c before all.
 *
 *   rdkafka_common.c    configuration, errors, topics, metadata, callbacks
 *   rdkafka_network.c   a request on its way: late, lost, repeated
 *   rdkafka_producer.c  batches and transactions
 *   rdkafka_consumer.c  watermarks and the simple consumer
 */
#ifndef INGEST_SIMULATION_RDKAFKA_H
#define INGEST_SIMULATION_RDKAFKA_H

#include "cluster.h"

#define REPORTS_MAX 1024
#define QUEUE_MAX 256 /* records of one transaction for one partition */
#define BATCH_MAX 8

struct rd_kafka_conf_s {
    char transactional_id[128];
    bool read_committed;
    void *opaque;
    void (*on_error)(rd_kafka_t *, int, const char *, void *);
    void (*on_delivery)(rd_kafka_t *, const rd_kafka_message_t *, void *);
};

struct rd_kafka_error_s {
    rd_kafka_resp_err_t code;
    bool retriable, fatal;
    char text[120];
};

struct rd_kafka_topic_s {
    rd_kafka_t *rk;
    const char *name;
    /* of the simple consumer */
    partition *reads;
    int64_t next;
    int64_t told_end; /* the offset of the last end of partition that was reported */
};

typedef enum producer_phase {
    PHASE_NEW,
    PHASE_READY,
    PHASE_OPEN, /* in a transaction */
    PHASE_ENDING,
} producer_phase;

/* What a producer has to do with one partition. */
typedef struct outbound {
    partition *to;
    message **queue;
    size_t count;
    size_t sent;        /* of the queue: in flight, from its begin */
    bool adding, added; /* to the transaction */
    bool used;
    int64_t sequence;
} outbound;

typedef struct report {
    message *of;
    rd_kafka_resp_err_t code;
    int64_t offset;
} report;

struct rd_kafka_s {
    struct rd_kafka_conf_s conf;
    rd_kafka_type_t type;
    process *owner;
    bool destroyed;
    bool stale; /* has its metadata from an old leader */
    /* callbacks that wait for a poll */
    report *reports; /* a ring */
    uint64_t report_head, report_tail;
    int errors[8];
    size_t error_count;
    /* a producer */
    producer_phase phase;
    int producer, epoch;
    outbound out[PARTITIONS_MAX];
    bool asked; /* the request of the present API call is on its way */
    bool answered;
    bool committing;
    rd_kafka_resp_err_t abortable; /* the transaction can only be aborted */
    rd_kafka_resp_err_t fatal;
};

/* ---- rdkafka_common.c ------------------------------------------------------------------------ */

/* Handles that were made and not destroyed since rdkafka_begin. */
void rdkafka_begin(void);
int rdkafka_alive(void);

rd_kafka_error_t *new_error(rd_kafka_resp_err_t code, bool retriable, bool fatal);
void report_error(rd_kafka_t *rk, int code);
void report_delivery(rd_kafka_t *rk, message *of, rd_kafka_resp_err_t code, int64_t offset);
/* Waits for something to happen to the handle; false when it is past the deadline, or killed. */
bool wait_until(rd_kafka_t *rk, int64_t deadline);

/* ---- rdkafka_network.c ----------------------------------------------------------------------- */

typedef struct request request;
struct request {
    rd_kafka_t *from;
    /* Both may be called more than once: a request that got no answer is repeated, and the first
     * one may still arrive. `arrive` is the broker's: the client may be gone by then. `answer` is
     * the client's: it repeats the request, or sets `done`. */
    void (*arrive)(request *it);
    void (*answer)(request *it);
    rd_kafka_resp_err_t code; /* the broker's answer */
    int producer, epoch;
    partition *to;
    bool commit;
    message *batch[BATCH_MAX];
    size_t count;
    int64_t sequence;
    int64_t offset; /* answer: of the first record */
    bool done;
};

request *new_request(rd_kafka_t *from, void (*arrive)(request *), void (*answer)(request *));
void send_request(request *it);
/* After retry.backoff.ms, as librdkafka takes it. */
void retry_request(request *it);
void retry_request_in(request *it, int64_t delay_us);
bool is_retriable(rd_kafka_resp_err_t code);

/* Trouble on the network while it is not calm; of a thousand requests so many lose their
 * connection. */
extern bool network_is_calm;
extern unsigned network_losses;

#endif
