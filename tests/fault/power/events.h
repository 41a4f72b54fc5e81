/*
 * events: what the event with a given number looks like. All of it follows from the number, so that
 * whatever is read back can be judged without having been kept.
 */
#ifndef INGEST_TESTS_EVENTS_H
#define INGEST_TESTS_EVENTS_H

/* Ours first: nothing of the tests here. */
#include "storage/committer.h"

enum { EVENT_ROUTES = 3, EVENT_BODY_MAX = 72 * 1024 };

extern const char *const event_routes[EVENT_ROUTES];

typedef struct event_memory { /* what a request borrows from */
    char id[32];
    char source[400];
    char key[32];
    uint8_t body[EVENT_BODY_MAX];
} event_memory;

uint64_t event_mix(uint64_t number); /* a hash */
uint32_t event_route(uint64_t number);
bool event_remembered(uint64_t number); /* false: as if the server had made its id */
/* Fills all of the request but `next` and done(). */
void event_fill(append_request *request, event_memory *memory, uint64_t number);
/* Whether the record is exactly that of the number in its id, which is stored. */
MUST_CHECK bool event_matches(const event_record *record, uint64_t *number);

#endif
