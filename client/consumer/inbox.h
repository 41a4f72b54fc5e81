/*
 * inbox: what the control thread asks of the driver's. One request at a time; whoever asks waits
 * for the answer.
 */
#ifndef INGEST_CLIENT_INBOX_H
#define INGEST_CLIENT_INBOX_H

#include <pthread.h>

#include "client/consumer/control.h"

typedef struct inbox_request {
    control_change change;
    const uint64_t *numbers;
    size_t count;
    uint64_t done;
    outcome result;
    failure why;
} inbox_request;

typedef struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    inbox_request *request; /* not taken, or not answered yet */
    bool taken;
    bool open; /* somebody will answer */
    int wake;
} inbox;

void inbox_init(inbox *it, int wake);
void inbox_destroy(inbox *it);

/* For control_hooks; `arg` is the inbox. ST_STOPPING while it is closed. */
outcome inbox_ask(void *arg, control_change change, const uint64_t *numbers, size_t count,
                  uint64_t *done, failure *why);

/* ---- the driver's side */

/* Closing answers what waits. */
void inbox_open(inbox *it, bool open);
/* NULL: there is none. */
inbox_request *inbox_take(inbox *it);
/* The one that was taken: what it holds is the answer. */
void inbox_answer(inbox *it);

#endif
