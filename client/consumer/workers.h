/*
 * workers: the threads that run handlers. Jobs go in by one queue and come back, with a verdict, by
 * another; both are as long as there are jobs, which the windows bound. A job that is here is read
 * by its worker alone. Every function is for the driver's thread.
 */
#ifndef INGEST_CLIENT_WORKERS_H
#define INGEST_CLIENT_WORKERS_H

#include "client/consumer/job.h"

typedef struct workers workers;

/* `wake`: written to (eventfd) when a job has come back and none was there. NULL: no threads. */
workers *workers_start(uint32_t count, int wake);
/* A list by `next`; job_next_effect was called for each. */
void workers_run(workers *it, job *first, job *last);
/* Takes back, by `next`, those that no worker has begun; NULL: none. */
job *workers_recall(workers *it);
/* All that have come back, by `next`, or NULL. */
job *workers_done(workers *it);
/* Waits until the handlers that run have returned; what has not begun is dropped: workers_done
 * gives none of it. NULL is fine. */
void workers_stop(workers *it);

#endif
