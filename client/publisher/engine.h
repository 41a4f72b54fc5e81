/*
 * engine: the publisher's own thread seen from inside: what was taken, which replicas there are,
 * what goes where, when and how often. That thread only, so there are no locks; nothing blocks.
 */
#ifndef INGEST_CLIENT_ENGINE_H
#define INGEST_CLIENT_ENGINE_H

#include "client/publisher/replica.h"

typedef struct engine engine;

typedef struct engine_counts {
    uint64_t published, failed, retried, moved; /* events, since the start */
    uint32_t replicas, replicas_ready;
} engine_counts;

typedef struct engine_options {
    uint32_t window;
    uint32_t timeout_ms;
    /* An event's fate; its callback is for the other side to call. `size` bytes leave the window.
     */
    void (*on_result)(void *of, const ingest_result *result, ingest_callback callback, void *arg,
                      size_t size);
    /* A replica was lost: the addresses may be out of date. */
    void (*on_lost)(void *of);
    void (*log)(void *of, const char *line);
    void *of;
} engine_options;

/* `settings`: of the replicas, without owner; outlives the engine. */
engine *engine_new(const engine_options *options, replica_settings *settings);
void engine_free(engine *it); /* all events are answered */

/* Takes over an event: it will be answered by its deadline. */
void engine_admit(engine *it, delivery *event);
/* The addresses of the target, as they are now. */
void engine_set_endpoints(engine *it, const endpoint *all, size_t count);
/* They could not be found out; those that were known stay. */
void engine_no_addresses(engine *it, const char *why);
/* What is due by now. */
void engine_run(engine *it);
/* When to run again; INT64_MAX: never. Monotonic. */
int64_t engine_due_ms(const engine *it);
/* Ticket of the oldest unanswered event; UINT64_MAX: there is none. */
uint64_t engine_oldest(const engine *it);
engine_counts engine_count(const engine *it);
/* Answers all events with INGEST_CLOSED and drops the connections. */
void engine_close(engine *it);

#endif
