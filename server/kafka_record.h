/*
 * kafka_record: turns a stored event into the Kafka records of its route: value format, whole or
 * split, headers (CloudEvents Kafka binding, https://github.com/cloudevents/spec, and ours).
 * Pure; any thread.
 */
#ifndef INGEST_SERVER_KAFKA_RECORD_H
#define INGEST_SERVER_KAFKA_RECORD_H

#include "ingest/v1/events.pb-c.h"
#include "server/config.h"
#include "storage/catalogue.h"
#include "storage/event_store.h"

#define KAFKA_RECORD_HEADERS_MAX 16

typedef struct kafka_header {
    const char *name;
    bytes value;
} kafka_header;

typedef struct kafka_record {
    const char *topic;
    bytes key;
    bytes value;
    kafka_header headers[KAFKA_RECORD_HEADERS_MAX];
    size_t header_count;
} kafka_record;

/* Scratch memory, kept from event to event: about twice the largest event's needs. Zero-initialise;
 * one thread at a time. */
typedef struct kafka_record_buffer {
    struct kafka_record_chunk *chunks; /* owned; newest first */
    kafka_record *records;             /* owned */
    size_t record_capacity;
    bool exhausted; /* memory ran out since the last reset */
} kafka_record_buffer;

/*
 * The records of one event, in order: one, or for a transaction with LAYOUT_SPLIT one for each
 * operation. They borrow from `record`, `route`, `all` and `buffer`, until the next call. A
 * protobuf value of a whole event is record->event itself, neither copied nor decoded.
 * ST_CORRUPT when record->event has to be decoded and cannot be; ST_NO_MEMORY.
 */
MUST_CHECK outcome kafka_record_make(const event_record *record, const route_config *route,
                                     const catalogue *all, const uuid *store,
                                     kafka_record_buffer *buffer, const kafka_record **records,
                                     size_t *count, failure *why);
void kafka_record_buffer_free(kafka_record_buffer *buffer);

/*
 * Upper bound, as the broker counts (record batch v2: key, value, headers, lengths, batch header),
 * of the largest record that the event will become on this route, without compression; for the
 * check at the door. Over by less than 160 bytes. `decoded` is record->event decoded. No sequence
 * is needed; takes time proportional to the event's size.
 */
size_t kafka_record_max_size(const event_record *record, const Ingest__V1__Event *decoded,
                             const route_config *route);

#endif
