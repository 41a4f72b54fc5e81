/*
 * record: what the outbox keeps of one event, and its bytes on disk. This file and record.c are
 * the on-disk format of events; FORMAT_VERSION says how to change it.
 */
#ifndef INGEST_STORAGE_RECORD_H
#define INGEST_STORAGE_RECORD_H

#include "storage/bytes.h"
#include "storage/status.h"

typedef enum record_kind {
    RECORD_EVENT = 1,
    /* The event of this sequence went to the dead letters: keeps the outbox dense, so that a gap
     * always means damage. Only the numbers below are kept. */
    RECORD_MOVED = 2,
    /* The event of this sequence is lost: a repair found it unreadable, and an operator accepted
     * that. Kept like RECORD_MOVED. */
    RECORD_LOST = 3,
} record_kind;

typedef struct event_record {
    record_kind kind;
    /* Set by the committer, ignored in a request. */
    uint64_t sequence;         /* dense per route, from 1; in the key, not in the value */
    uint64_t cumulative_bytes; /* encoded size of this record and all before it on the route */
    int64_t accepted_ms;       /* wall clock */
    /* Set by whoever appends. */
    bytes id;
    bytes source;
    bytes key;
    bytes type; /* transaction or informative name */
    int64_t time_seconds;
    int32_t time_nanos;
    bool transaction;    /* false: informative */
    uint32_t operations; /* number of operations; 0 for an informative event */
    bytes traceparent;   /* W3C trace context of the request; may be empty */
    bytes tracestate;
    bytes event; /* encoded ingest.v1.Event with id, key and time filled in */
} event_record;

/* Size of the value that record_encode writes. */
size_t record_encoded_size(const event_record *record);
/* Writes exactly record_encoded_size bytes: version byte, CRC32C, fields. */
void record_encode(const event_record *record, uint8_t *out);
/* The decoded fields borrow from `value`. ST_CORRUPT names what is wrong. */
MUST_CHECK outcome record_decode(uint64_t sequence, bytes value, event_record *record,
                                 failure *why);

#endif
