/*
 * retry: what a refusal means for an event, and how long to wait before another attempt. Pure.
 */
#ifndef INGEST_CLIENT_RETRY_H
#define INGEST_CLIENT_RETRY_H

#include "client/publisher/refusal.h"
#include "ingest/publisher.h"

/* Whether the event is on the server's disk after it was refused. */
typedef enum stored { STORED_NO, STORED_MAYBE, STORED_YES } stored;

typedef struct verdict {
    ingest_status status; /* when it is final; when not, of an event whose time is over */
    bool again;           /* send it again */
    stored stored;
} verdict;

/* Of a result in the stream, or of the status that ended a stream. */
verdict retry_judge(const refusal *why);

typedef struct backoff {
    uint32_t first_ms;
    uint32_t last_ms;
    uint64_t random; /* state of the jitter; not 0 */
} backoff;

/* The pause after `failures` (1, 2...) in a row: doubling, between half of it and all of it, so
 * that many clients do not come back as one. Not below what the server told (0: nothing), which
 * gets a quarter more of jitter. */
uint32_t backoff_pause_ms(backoff *it, uint32_t failures, uint32_t told_ms);

#endif
