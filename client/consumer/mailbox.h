/*
 * mailbox: what the control thread asks of the driver's. One request at a time; whoever asks waits
 * for the answer.
 */
#ifndef INGEST_CLIENT_MAILBOX_H
#define INGEST_CLIENT_MAILBOX_H

#include <pthread.h>

#include "client/consumer/control.h"

typedef struct mailbox_request {
    control_change change;
    const uint64_t *numbers;
    size_t count;
    uint64_t done;
    outcome result;
    failure why;
} mailbox_request;

typedef struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    mailbox_request *request; /* not taken, or not answered yet */
    bool taken;
    bool open; /* somebody will answer */
    int wake;
} mailbox;

void mailbox_init(mailbox *it, int wake);
void mailbox_destroy(mailbox *it);

/* For control_hooks; `arg` is the mailbox. ST_STOPPING while it is closed. */
outcome mailbox_ask(void *arg, control_change change, const uint64_t *numbers, size_t count,
                    uint64_t *done, failure *why);

/* ---- the driver's side */

/* Closing answers what waits. */
void mailbox_open(mailbox *it, bool open);
/* NULL: there is none. */
mailbox_request *mailbox_take(mailbox *it);
/* The one that was taken: what it holds is the answer. */
void mailbox_answer(mailbox *it);

#endif
