/* What the publisher needs of an event beyond ingest/event.h. */
#ifndef INGEST_CLIENT_EVENT_H
#define INGEST_CLIENT_EVENT_H

#include "ingest/event.h"
#include "ingest/v1/events.pb-c.h"
#include "server/arena.h"
#include "storage/status.h"

/* The event as it will be sent. Valid until it is changed or freed. */
const Ingest__V1__Event *event_message(const ingest_event *event);
/* Its remembered error, or what the server would refuse. ST_OK: it may be sent. Does not change it.
 */
MUST_CHECK outcome event_ready(const ingest_event *event, const ingest_catalogue *catalogue,
                               failure *why);

/* From a JSON value that is in memory already, and outlives the event. */
ingest_event *event_from_value(const Google__Protobuf__Value *value);
/* Whether an id was given, instead of the one that it was made with. */
bool event_has_own_id(const ingest_event *event);
void event_set_source(ingest_event *event, const char *source);

/* ---- for ingest_event_from_json ---------------------------------------------------------- */

/* Remembers what is wrong with `field`, unless something was before. */
void event_complain(ingest_event *event, const char *field, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* Of the transaction or the informative; the entity of the latter. NULL: as it was. */
void event_set_name(ingest_event *event, const char *name);
void event_set_entity(ingest_event *event, const char *entity_id);
/* When it happened, since 1970; 0 to 999,999,999 ns. */
void event_set_time(ingest_event *event, int64_t seconds, int32_t nanos);
/* Replaces what was set. Borrowed: it must be in memory that the event adopts. */
void event_operation_struct(ingest_operation *op, const Google__Protobuf__Struct *data);
/* Takes over all that was allocated from it; to be called once. */
void event_adopt(ingest_event *event, const arena *memory);

#endif
