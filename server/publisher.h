/*
 * publisher: carries one route's events from the store to Kafka, exactly once and in order.
 * One thread and one transactional producer per route; a route that cannot be written waits alone.
 *
 *   publisher.{h,c}        the thread: ties the decisions to the store and to Kafka
 *   publisher_machine.{h,c} the decisions: a table-driven state machine without threads, clock, I/O
 *   kafka_sink.{h,c}       librdkafka: producer, transactions, settling; no decisions
 *   position.{h,c}         the position record's encoding
 *   kafka_topics.{h,c}     topics are created and checked at start
 */
#ifndef INGEST_SERVER_PUBLISHER_H
#define INGEST_SERVER_PUBLISHER_H

#include "server/config.h"
#include "storage/catalogue.h"
#include "storage/event_store.h"

typedef struct publisher publisher;

typedef enum publisher_state {
    PUBLISHER_SETTLING, /* finding out where Kafka says the route stands */
    PUBLISHER_RUNNING,
    PUBLISHER_BLOCKED, /* the route cannot be written; tries again by itself */
    PUBLISHER_HALTED,  /* waits for an operator; last_error names the way out */
    PUBLISHER_STOPPED,
} publisher_state;

typedef struct publisher_options {
    event_store *store;
    uint32_t route;       /* its number in the store */
    const config *config; /* outlives the publisher */
    const route_config *settings;
    const catalogue *catalogue;
    /* The settled position moved: all up to `sequence` is in Kafka or dead. Publisher's thread;
     * must not block. */
    void (*on_position)(void *arg, uint32_t route, uint64_t sequence);
    /* The event was set aside. Called before on_position passes it. */
    void (*on_dead)(void *arg, uint32_t route, uint64_t sequence, const char *reason);
    void *arg;
} publisher_options;

/* Starts the thread and returns at once: Kafka may be away. */
MUST_CHECK outcome publisher_start(const publisher_options *options, publisher **out, failure *why);
/* Asks it to finish the open transaction and end; does not wait. */
void publisher_stop(publisher *it);
/* Waits for the end, gives up (leaving the doubt to the next start) after `grace_ms`, frees. */
void publisher_join(publisher *it, int64_t grace_ms);

typedef struct publisher_status {
    publisher_state state;
    char last_error[512]; /* "" when there was none */
    int64_t last_error_ms;
    uint64_t restarts[4]; /* producers replaced, by publisher_restart_reason */
    uint64_t transactions;
    uint64_t aborted;
    uint64_t transaction_us_sum;
    uint64_t transaction_us_buckets[24]; /* bucket i: below 2^i us */
    bool kafka_reachable;
} publisher_status;

typedef enum publisher_restart_reason {
    RESTART_DOUBT,  /* a commit whose outcome is unknown */
    RESTART_ABORT,  /* after an aborted transaction */
    RESTART_FENCED, /* another instance, or a pause */
    RESTART_FATAL,  /* librdkafka gave up */
} publisher_restart_reason;

void publisher_status_get(publisher *it, publisher_status *status);

#endif
