/*
 * event_json: an ingest.v1.Event as canonical protobuf JSON
 * (https://protobuf.dev/programming-guides/json/). Pure; any thread.
 *
 * The event must have passed validation: finite numbers, no empty Value, valid UTF-8, times in
 * range, no key twice in a map.
 */
#ifndef INGEST_SERVER_EVENT_JSON_H
#define INGEST_SERVER_EVENT_JSON_H

#include "ingest/v1/events.pb-c.h"
#include "storage/bytes.h"

/* Writes at most `capacity` bytes to `out` (NULL with 0: only measures) and returns the full size.
 * No NUL is added. */
size_t event_json_write(const Ingest__V1__Event *event, char *out, size_t capacity);
/* The same for a value that is no event: {"opaque":"BASE64"}. */
size_t event_json_write_opaque(bytes value, char *out, size_t capacity);
/* The same for an operation's data alone; NULL: null. */
size_t event_json_write_data(const Google__Protobuf__Struct *data, char *out, size_t capacity);

#endif
