/* What the publisher needs of an event beyond ingest/event.h. */
#ifndef INGEST_CLIENT_EVENT_H
#define INGEST_CLIENT_EVENT_H

#include "ingest/event.h"
#include "ingest/v1/events.pb-c.h"
#include "storage/status.h"

/* The event as it will be sent. Valid until it is changed or freed. */
const Ingest__V1__Event *event_message(const ingest_event *event);
/* Its remembered error, or what the server would refuse. ST_OK: it may be sent. Does not change it.
 */
MUST_CHECK outcome event_ready(const ingest_event *event, const ingest_catalogue *catalogue,
                               failure *why);

#endif
