/*
 * event_intake: from a received event to the request that appends it: checks it, chooses its route,
 * fills in what the sender left out. Pure but for the clock and the random source; any thread.
 */
#ifndef INGEST_SERVER_EVENT_INTAKE_H
#define INGEST_SERVER_EVENT_INTAKE_H

#include "ingest/v1/events.pb-c.h"
#include "server/arena.h"
#include "server/config.h"
#include "storage/catalogue.h"
#include "storage/committer.h"

/* What an event is held against. Immutable. */
typedef struct intake {
    const config *config;
    const catalogue *catalogue;
    uint32_t store_routes[STORE_ROUTES_MAX]; /* config's route index -> number in the store */
} intake;

/* ST_INVALID when the catalogue names a route that the configuration does not have. */
MUST_CHECK outcome intake_check_routes(const intake *rules, failure *why);

typedef struct intake_source {
    Ingest__V1__Event *event; /* decoded, wire already checked; id, key and time are filled in */
    bytes wire;               /* its encoding; empty: it is packed anew */
    const char *path;         /* such as "event" */
    bytes traceparent, tracestate;
} intake_source;

/*
 * Fills route, record, remember and fingerprint of `request`. The record borrows from `source` and
 * `memory`, which must last until the request is done.
 */
MUST_CHECK outcome intake_event(const intake *rules, intake_source *source, arena *memory,
                                append_request *request, failure *why);

/* The configured route of a number in the store; NULL when it is not configured any more. */
const route_config *intake_route(const intake *rules, uint32_t store_route);

#endif
