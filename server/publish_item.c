/* Prepared on an rpc thread, completed on the committer's, answered there or on a publisher's. */
#include "server/publish_item.h"

#include "server/status_details.h"

#include <stdio.h>

bytes publish_event_wire(bytes request) {
    enum { EVENT_FIELD = 1 };
    bytes body;
    unsigned count = 0;
    return codec_find_field(request, EVENT_FIELD, &body, &count) && count == 1 ? body : (bytes){0};
}

outcome publish_item_prepare(publish_item *item, ingest_service *service, intake_source *source,
                             Ingest__V1__AckMode ack, arena *memory) {
    item->service = service;
    item->path = source->path;
    item->waiter = (ack_waiter){0};
    item->wait_published = ack == INGEST__V1__ACK_MODE__ACK_PUBLISHED;
    item->request.next = NULL;
    item->result = intake_event(&service->rules, source, memory, &item->request, &item->why);
    if (item->result != ST_OK) ingest_count_refused(service, item->result);
    item->id = source->event->id;
    return item->result;
}

/* ---- completion ------------------------------------------------------------------------ */

static void published(ack_waiter *waiter, outcome result, const char *reason) {
    publish_item *item = (publish_item *)(void *)((char *)waiter - offsetof(publish_item, waiter));
    const unsigned long long sequence = item->request.sequence;
    item->result = result;
    if (result == ST_DEAD_LETTER)
        (void)fail(&item->why, result, "", "set aside as a dead letter, sequence %llu: %s",
                   sequence, reason);
    else if (result != ST_OK)
        (void)fail(&item->why, result, "",
                   "stored as sequence %llu and still to be published; do not send it as another "
                   "event",
                   sequence);
    item->finished(item);
}

static void refuse(publish_item *item) {
    const append_request *request = &item->request;
    item->result = request->result;
    if (request->result == ST_ID_CONFLICT) {
        char field[sizeof item->why.field];
        (void)snprintf(field, sizeof field, "%s.id", item->path);
        (void)fail(&item->why, request->result, field,
                   "\"%.256s\" was used by this source for an event with other content (sequence "
                   "%llu); use a new id",
                   item->id, (unsigned long long)request->sequence);
    } else {
        (void)fail(&item->why, request->result, "", "%s; nothing was stored, try again later",
                   outcome_text(request->result));
    }
    ingest_count_refused(item->service, item->result);
    item->finished(item);
}

static void stored(append_request *request) {
    publish_item *item = (publish_item *)(void *)request;
    item->result = request->result;
    if (request->result != ST_OK) {
        refuse(item);
    } else if (!item->wait_published) {
        item->finished(item);
    } else if (request->purged) {
        published(&item->waiter, ST_DEAD_LETTER, "purged");
    } else {
        item->waiter.dead = request->dead;
        item->waiter.route = request->route;
        item->waiter.sequence = request->sequence;
        item->waiter.done = published;
        ack_waiters_add(item->service->waiters, &item->waiter);
    }
}

outcome publish_items_submit(ingest_service *service, publish_item *first, failure *why) {
    for (append_request *request = &first->request; request; request = request->next)
        request->done = stored;
    const outcome result = committer_submit(service->store, &first->request);
    if (result == ST_OK) return ST_OK;
    ingest_count_refused(service, result);
    return fail(why, result, "", "%s; nothing was stored, try again later", outcome_text(result));
}

void publish_item_cancel(publish_item *item) {
    ack_waiters_cancel(item->service->waiters, &item->waiter);
}

/* ---- answers --------------------------------------------------------------------------- */

void publish_item_response(const publish_item *item, Ingest__V1__PublishResponse *response) {
    const char *route = store_route_name(item->service->store, item->request.route);
    ingest__v1__publish_response__init(response);
    response->id = (char *)(uintptr_t)item->id;
    response->sequence = item->request.sequence;
    response->duplicate = item->request.duplicate;
    response->store = item->service->store_text;
    response->route = (char *)(uintptr_t)(route ? route : "");
}

void publish_item_result(const publish_item *item, Ingest__V1__PublishResult *result,
                         Ingest__V1__PublishResponse *response, arena *memory) {
    ingest__v1__publish_result__init(result);
    if (item->result == ST_OK) {
        publish_item_response(item, response);
        result->outcome_case = INGEST__V1__PUBLISH_RESULT__OUTCOME_RESPONSE;
        result->response = response;
    } else {
        result->outcome_case = INGEST__V1__PUBLISH_RESULT__OUTCOME_ERROR;
        result->error =
            status_details_make(&item->why, ingest_retry_ms(item->result), &memory->allocator);
    }
}
