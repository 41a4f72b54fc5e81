/*
 * driver: the state of a consumer, and the loop that moves it. All of it belongs to the thread that
 * is in ingest_consumer_run, but for what is marked otherwise. One turn of the loop:
 *
 *   rebalances (partitions.c), records (reading.c), verdicts and what is durable (running.c),
 *   failed events (failures.c), requests from outside (mailbox.c), one commit (committing.c)
 *
 * A function that meets something that ends the consumer notes it by driver_end, and the loop ends
 * behind the turn.
 */
#ifndef INGEST_CLIENT_DRIVER_H
#define INGEST_CLIENT_DRIVER_H

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

#include "client/consumer/control.h"
#include "client/consumer/groups.h"
#include "client/consumer/identities.h"
#include "client/consumer/joining.h"
#include "client/consumer/mailbox.h"
#include "client/consumer/retries.h"
#include "client/consumer/settings.h"
#include "client/consumer/window.h"
#include "client/consumer/workers.h"

enum {
    HANDOVER_MS = 5000,     /* for handlers that run when their partition goes */
    COMMIT_MS = 60000,      /* librdkafka gives a commit up sooner */
    GROUP_MS = 300000,      /* that a torn group is waited for, with all partitions at their ends */
    TURN_MS = 100,          /* at least so often all is looked after */
    STORE_JOBS_MOST = 256,  /* from the store of failed events, under way at once */
    RETRY_LEASE_MS = 60000, /* for such a one, then its record is due again */
    ALARMS = INGEST_ALARM_KAFKA + 1,
};

/* One partition that is ours. Assigned again it is another one: so what comes of an older
 * assignment finds nobody. */
typedef struct partition {
    struct partition *next;
    char *topic; /* owned by the consumer's list of topics: jobs outlive their partition */
    int32_t number;
    uint32_t id; /* for identities */
    rd_kafka_queue_t *queue;
    window window;
    progress found;    /* at the assignment */
    moves moves;       /* to our store, and of others that have not come back */
    int64_t committed; /* at the assignment: what is before it, is read for its identities only */
    bool dirty;        /* there is something to commit */
    bool ending;       /* going: nothing begins any more */
    bool at_end;       /* all was read, some time ago */
    bool more;         /* its queue was left alone for want of room */
    bool stalled;      /* the alarm was raised */
} partition;

/* Counters that any thread may read. */
typedef struct counters {
    _Atomic uint64_t events_done, events_skipped, effects_done, effects_failed, commits, rebalances;
    _Atomic uint64_t records, read_bytes, lag, identities, bytes;
    _Atomic int64_t identity_oldest_ms;
    _Atomic uint64_t alarms[ALARMS];
    _Atomic uint32_t partitions, paused, in_flight, groups;
} counters;

struct ingest_consumer {
    /* from open to close */
    settings settings;
    effects *effects;
    retries retries;
    struct handlers *handlers;
    failed_store *store;
    int wake; /* eventfd: there is something to do */
    rd_kafka_t *rk;
    bool stuck; /* rk does not come to its end, and is not waited for */
    control *control;
    joining joining;      /* librdkafka's threads, too */
    mailbox mailbox;      /* any thread */
    counters counters;    /* any thread */
    atomic_bool stopping; /* any thread */
    _Atomic uint32_t grace_ms;
    atomic_bool ran;
    pthread_mutex_t log_lock;
    int64_t log_second_ms;
    unsigned log_lines;
    char **topics; /* names as partitions have them; see topic_name */
    size_t topic_count;

    /* while it runs */
    workers *workers;
    rd_kafka_queue_t *events;  /* librdkafka's: rebalances, errors */
    rd_kafka_queue_t *commits; /* answers to commits */
    partition *partitions;
    uint32_t partition_ids;
    identities *identities;
    groups *groups;
    keys keys;
    job *start_first, *start_last; /* go to the workers at the end of the turn */
    uint32_t running;              /* jobs that workers have */
    uint64_t bytes;                /* of all jobs */
    job_list lists[JOB_STATES];
    uint64_t store_numbers[STORE_JOBS_MOST]; /* of jobs that came from the store; 0: free */
    bool committing;
    uint64_t commit_number;  /* of the last that was sent */
    uint64_t commit_durable; /* the last that was acknowledged, with all before it */
    int64_t commit_sent_ms, commit_not_before_ms;
    bool store_changed;    /* something is staged */
    bool store_full;       /* the alarm was raised */
    bool doubtful;         /* see failures_settle */
    int64_t retry_wall_ms; /* when the store may have one that is due */
    int64_t second_ms;
    failure end; /* why it ends; ST_OK: it does not */
};

typedef struct ingest_consumer consumer;

/* ---- driver.c */
outcome driver_run(consumer *it, failure *why);
void driver_end(consumer *it, outcome code, const char *field, const char *format, ...)
    PRINTF_LIKE(4, 5);
bool driver_ended(const consumer *it);
/* Everything but reading and rebalances: what goes on while a partition is handed over, too. */
void driver_work(consumer *it);
/* Sleeps until there is something to do, at most so long. */
void driver_sleep(consumer *it, int64_t ms);
void driver_log(consumer *it, const char *format, ...) PRINTF_LIKE(2, 3);
void driver_alarm(consumer *it, ingest_alarm what, const char *format, ...) PRINTF_LIKE(3, 4);

/* ---- kafka.c */
outcome kafka_open(consumer *it, failure *why);
/* Raises the alarm, ends the consumer, or is a line in the log. */
void kafka_error(consumer *it, rd_kafka_resp_err_t code, const char *text);
/* A name that lasts as long as the consumer. */
char *kafka_topic_name(consumer *it, const char *name);

/* ---- partitions.c */
void partitions_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                          rd_kafka_topic_partition_list_t *list, void *arg);
partition *partitions_find(const consumer *it, const char *topic, int32_t number);
/* Its next records were deleted: goes on with the first that there is. */
void partitions_rewind(consumer *it, partition *of);
/* At the end: what is still there. */
void partitions_free(consumer *it);

/* ---- reading.c */
void reading_turn(consumer *it);
/* Whether there is room now where there was none. */
bool reading_can_go_on(const consumer *it);
void reading_give_up_groups(consumer *it, int64_t now_ms);

/* ---- running.c */
/* A job that was just made: counts from now on. */
void running_adopt(consumer *it, job *one);
/* Moves it from the list of its old state to that of the new one. */
void running_set_state(consumer *it, job *one, job_state state);
/* A whole event, or what is none: goes to the end of its key. */
void running_add(consumer *it, job *one);
/* To the workers, if it is at the front of its key and there is room. */
void running_start(consumer *it, job *one);
/* Verdicts, and waits that are over. */
void running_turn(consumer *it, int64_t now_ms);
/* What was started goes to the workers. */
void running_flush(consumer *it);
/* Whatever no worker has begun is started again, if it still may. */
void running_recall(consumer *it);
/* Everything up to commit_durable. */
void running_recorded(consumer *it);
/* All records of the event are done; it ends when that is committed. */
void running_finish(consumer *it, job *one);
/* The next of its key need not wait for it any more. */
void running_pass(consumer *it, job *one);
/* It is over: the next of its key may begin. Frees it. */
void running_end(consumer *it, job *one);
/* Its partition is gone. */
void running_drop(consumer *it, job *one);

/* ---- committing.c */
void committing_turn(consumer *it, int64_t now_ms);
/* Takes the answer, if it is there. */
void committing_serve(consumer *it);

/* ---- failures.c */
outcome failures_open(consumer *it, failure *why);
/* An attempt failed, or it is no event: to the store, or to wait. */
void failures_failed(consumer *it, job *one);
/* One more effect is done, of a job that came from the store. */
void failures_progress(consumer *it, job *one);
/* What is staged is written, and goes on; then what is due is tried again. */
void failures_turn(consumer *it);
void failures_write(consumer *it);
/* The record of one that went to the store is committed as done. */
void failures_moved(consumer *it, const job *one);
/* It is not ours any more: what the store has of it may have to go. */
void failures_forget(consumer *it, const job *one);
/* Asks Kafka for the events that were on their way to the store when we, or a process before us,
 * lost sight of them. Blocks for some seconds at most; false: there was no answer. Before a
 * partition is taken over, or it is too late. */
bool failures_settle(consumer *it);

/* ---- retrying.c */
void retrying_turn(consumer *it);
void retrying_change(consumer *it, mailbox_request *request);
/* The store's slot of a job that came from there. */
void retrying_release(consumer *it, const job *one);

/* ---- exposition.c: the public functions of figures */

#endif
