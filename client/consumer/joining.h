/*
 * joining: when a commit may be sent while the group is rebalanced.
 *
 * A broker answers the requests of one connection one after the other, and JoinGroup only when all
 * members have joined, in a new generation. So a commit that goes out behind a JoinGroup comes in
 * the name of a generation that has passed, and librdkafka (2.0) then takes all partitions for
 * lost, although most would have stayed. One that goes out before it is fine.
 *
 * librdkafka tells where it is in joining ("join state") by a line of its debug log for "cgrp", on
 * its main thread as the state changes, and nowhere else. It joins again because of an answer, to a
 * heartbeat or of metadata. An interceptor hears of those before the main thread gets them: from
 * then on no commit is asked for, until that thread has answered a question of ours and so is past
 * them; then the state is known.
 */
#ifndef INGEST_CLIENT_JOINING_H
#define INGEST_CLIENT_JOINING_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdbool.h>

typedef struct joining {
    pthread_mutex_t lock;
    int wake;     /* written to when a commit may go again */
    bool unsure;  /* an answer came that may make the client join */
    bool joining; /* by the join state */
    bool steady;  /* the same: neither joining nor about to hand over or take over */
} joining;

void joining_init(joining *it, int wake);
void joining_destroy(joining *it);
/* Any client that is made of `conf` is watched. `it` outlives it. */
void joining_watch(joining *it, rd_kafka_conf_t *conf);
/* A line of librdkafka's log. Its main thread. */
void joining_hear(joining *it, const char *facility, const char *text);

/* For the driver. True: a commit may be asked for, and joining_leave is to be called behind that.
 * False: there will be a wake-up. */
bool joining_enter(joining *it, rd_kafka_t *rk);
void joining_leave(joining *it);
/* Whether the group is not being rebalanced as far as we know. librdkafka 2.0.2 must not be closed
 * while it is: it may hang, or end the process by an assertion of its sticky assignor. */
bool joining_at_rest(joining *it);

#endif
