/*
 * publish_item: one event on its way through the server: taken in, appended, perhaps awaited until
 * it is published, answered. Publish has one, a batch many, a stream a window of them.
 */
#ifndef INGEST_SERVER_PUBLISH_ITEM_H
#define INGEST_SERVER_PUBLISH_ITEM_H

#include "ingest/v1/ingest_service.pb-c.h"
#include "server/ack_waiters.h"
#include "server/event_intake.h"
#include "server/ingest_service.h"

typedef struct publish_item publish_item;

struct publish_item {
    append_request request; /* first: the committer's callback casts back */
    ack_waiter waiter;
    ingest_service *service;
    const char *id;   /* the event's; lasts as long as the item */
    const char *path; /* the event's field path */
    bool wait_published;
    outcome result;
    failure why; /* when result is not ST_OK */
    /* Called once the answer is known; any thread; must not block; may free the item. */
    void (*finished)(publish_item *item);
};

/* The event's own bytes within an encoded PublishRequest; empty when they are not in one piece. */
bytes publish_event_wire(bytes request);

/* Checks the event and prepares the append. On failure result and why are set; the item is then
 * to be answered, not submitted. Everything in `source` must last until the item is finished. */
MUST_CHECK outcome publish_item_prepare(publish_item *item, ingest_service *service,
                                        intake_source *source, Ingest__V1__AckMode ack,
                                        arena *memory);
/* Submits prepared items, linked through request.next; none is taken when it is not ST_OK. */
MUST_CHECK outcome publish_items_submit(ingest_service *service, publish_item *first, failure *why);
/* The caller is gone: an item that waits for Kafka finishes soon. */
void publish_item_cancel(publish_item *item);

/* Fills the response of an item with result ST_OK; borrows from it. */
void publish_item_response(const publish_item *item, Ingest__V1__PublishResponse *response);
/* Fills the result of any finished item; `response` and `memory` hold its parts. */
void publish_item_result(const publish_item *item, Ingest__V1__PublishResult *result,
                         Ingest__V1__PublishResponse *response, arena *memory);

#endif
