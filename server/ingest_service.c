/*
 * Publish, PublishBatch and GetEventStatus. Handlers run on rpc threads and do not block; an
 * answer that needs the disk is given on the committer's thread, one that needs Kafka on a
 * publisher's.
 */
#include "server/ingest_service.h"

#include "server/proto_time.h"
#include "server/publish_item.h"
#include "server/status_details.h"
#include "storage/clock.h"

#include <stdio.h>

enum { RETRY_BUSY_MS = 200, RETRY_FULL_MS = 5000, RETRY_STOPPING_MS = 1000 };

uint32_t ingest_retry_ms(outcome result) {
    switch (result) {
    case ST_OVERLOADED:
    case ST_NO_MEMORY:
        return RETRY_BUSY_MS;
    case ST_BACKLOG_FULL:
    case ST_DISK_FULL:
    case ST_DEAD_FULL:
        return RETRY_FULL_MS;
    case ST_STOPPING:
    case ST_UNAVAILABLE:
        return RETRY_STOPPING_MS;
    default:
        return 0;
    }
}

void ingest_count_refused(ingest_service *service, outcome result) {
    atomic_fetch_add_explicit(&service->refused[result], 1, memory_order_relaxed);
}

static void refuse_call(rpc_call *call, const failure *why) {
    rpc_fail_with(call, why, ingest_retry_ms(why->code));
}

/* Checks and decodes a request; NULL after having refused the call. */
static void *decode(rpc_call *call, const ProtobufCMessageDescriptor *type, bytes message) {
    failure why;
    const outcome result = codec_check(type, message, INGEST_CODEC_LIMITS, &why);
    if (result == ST_OK) return codec_unpack(type, message, &rpc_arena(call)->allocator);
    ingest_count_refused(rpc_service(call), result);
    refuse_call(call, &why);
    return NULL;
}

/* ---- Publish --------------------------------------------------------------------------- */

typedef struct publish_call {
    publish_item item; /* first: finished() casts back */
    rpc_call *call;
    int64_t began_us;
} publish_call;

static void publish_finished(publish_item *item) {
    publish_call *it = (publish_call *)(void *)item;
    if (item->result != ST_OK) {
        refuse_call(it->call, &item->why);
        return;
    }
    histogram_observe(&item->service->ack_duration, clock_monotonic_us() - it->began_us);
    Ingest__V1__PublishResponse response;
    publish_item_response(item, &response);
    rpc_reply(it->call, &response.base);
}

static void publish(rpc_call *call, bytes message) {
    const int64_t began_us = clock_monotonic_us();
    ingest_service *service = rpc_service(call);
    Ingest__V1__PublishRequest *request =
        decode(call, &ingest__v1__publish_request__descriptor, message);
    if (!request) return;
    failure why;
    if (!request->event) {
        (void)fail(&why, ST_INVALID, "event", "is required");
        ingest_count_refused(service, ST_INVALID);
        refuse_call(call, &why);
        return;
    }
    publish_call *it = rpc_alloc(call, sizeof *it);
    it->call = call;
    it->began_us = began_us;
    it->item.finished = publish_finished;
    intake_source source = {.event = request->event,
                            .wire = publish_event_wire(message),
                            .path = "event",
                            .traceparent = rpc_metadata(call, "traceparent"),
                            .tracestate = rpc_metadata(call, "tracestate")};
    if (publish_item_prepare(&it->item, service, &source, request->ack, rpc_arena(call)) != ST_OK) {
        refuse_call(call, &it->item.why);
        return;
    }
    rpc_set_state(call, &it->item);
    if (it->item.wait_published) rpc_watch(call);
    if (publish_items_submit(service, &it->item, &why) != ST_OK) refuse_call(call, &why);
}

static void publish_cancelled(rpc_call *call) {
    publish_item *item = rpc_state(call);
    if (item) publish_item_cancel(item);
}

/* ---- PublishBatch ---------------------------------------------------------------------- */

typedef struct batch_call batch_call;

typedef struct batch_item {
    publish_item item; /* first: finished() casts back */
    batch_call *batch;
    char path[32]; /* "events[3]" */
} batch_item;

struct batch_call {
    rpc_call *call;
    int64_t began_us;
    size_t count;
    batch_item *items;
    _Atomic size_t open; /* items to be answered, and one for the handler while it runs */
};

static void batch_reply(batch_call *it) {
    arena *memory = rpc_arena(it->call);
    ingest_service *service = rpc_service(it->call);
    Ingest__V1__PublishBatchResponse response = INGEST__V1__PUBLISH_BATCH_RESPONSE__INIT;
    Ingest__V1__PublishResult *results = arena_alloc(memory, it->count * sizeof *results);
    Ingest__V1__PublishResponse *responses = arena_alloc(memory, it->count * sizeof *responses);
    response.n_results = it->count;
    response.results = arena_alloc(memory, it->count * sizeof(Ingest__V1__PublishResult *));
    for (size_t i = 0; i < it->count; i++) {
        publish_item_result(&it->items[i].item, &results[i], &responses[i], memory);
        response.results[i] = &results[i];
    }
    histogram_observe(&service->ack_duration, clock_monotonic_us() - it->began_us);
    rpc_reply(it->call, &response.base);
}

static void batch_item_closed(batch_call *it) {
    if (atomic_fetch_sub(&it->open, 1) == 1) batch_reply(it);
}

static void batch_item_finished(publish_item *item) {
    batch_item_closed(((batch_item *)(void *)item)->batch);
}

/* Prepares all items; returns the chain of those that are to be submitted. */
static publish_item *batch_prepare(batch_call *it, const Ingest__V1__PublishBatchRequest *request) {
    ingest_service *service = rpc_service(it->call);
    const bytes traceparent = rpc_metadata(it->call, "traceparent");
    const bytes tracestate = rpc_metadata(it->call, "tracestate");
    publish_item *first = NULL, *last = NULL;
    for (size_t i = 0; i < it->count; i++) {
        batch_item *one = &it->items[i];
        publish_item *item = &one->item;
        one->batch = it;
        (void)snprintf(one->path, sizeof one->path, "events[%zu]", i);
        item->finished = batch_item_finished;
        intake_source source = {.event = request->events[i],
                                .path = one->path,
                                .traceparent = traceparent,
                                .tracestate = tracestate};
        if (publish_item_prepare(item, service, &source, request->ack, rpc_arena(it->call)) !=
            ST_OK) {
            atomic_fetch_sub(&it->open, 1);
            continue;
        }
        if (last)
            last->request.next = &item->request;
        else
            first = item;
        last = item;
    }
    return first;
}

static outcome check_batch(const ingest_service *service,
                           const Ingest__V1__PublishBatchRequest *request, failure *why) {
    const uint64_t most = service->rules.config->limits.max_batch_events;
    if (request->n_events == 0)
        return fail(why, ST_INVALID, "events", "is empty; a batch needs at least one event");
    if (request->n_events > most)
        return fail(why, ST_TOO_LARGE, "events",
                    "has %zu events, limits.max_batch_events allows %llu; send several batches",
                    request->n_events, (unsigned long long)most);
    return ST_OK;
}

static void publish_batch(rpc_call *call, bytes message) {
    const int64_t began_us = clock_monotonic_us();
    ingest_service *service = rpc_service(call);
    Ingest__V1__PublishBatchRequest *request =
        decode(call, &ingest__v1__publish_batch_request__descriptor, message);
    if (!request) return;
    failure why;
    if (check_batch(service, request, &why) != ST_OK) {
        ingest_count_refused(service, why.code);
        refuse_call(call, &why);
        return;
    }
    batch_call *it = rpc_alloc(call, sizeof *it);
    it->call = call;
    it->began_us = began_us;
    it->count = request->n_events;
    it->items = rpc_alloc(call, it->count * sizeof *it->items);
    atomic_init(&it->open, it->count + 1);
    publish_item *first = batch_prepare(it, request);
    rpc_set_state(call, it);
    if (first && first->wait_published) rpc_watch(call);
    if (first && publish_items_submit(service, first, &why) != ST_OK) {
        refuse_call(call, &why); /* none was taken, so no item will finish any more */
        return;
    }
    batch_item_closed(it);
}

static void batch_cancelled(rpc_call *call) {
    batch_call *it = rpc_state(call);
    for (size_t i = 0; it && i < it->count; i++)
        publish_item_cancel(&it->items[i].item);
}

/* ---- GetEventStatus -------------------------------------------------------------------- */

/* An id entry and, when it is dead, its letter. A letter that left between the two readings has
 * changed the entry, which is then read again. */
static outcome find_event(event_store *store, const Ingest__V1__GetEventStatusRequest *request,
                          id_entry *entry, dead_letter *letter, failure *why) {
    enum { TRIES = 3 };
    outcome result = ST_NOT_FOUND;
    for (int i = 0; i < TRIES && result == ST_NOT_FOUND; i++) {
        result = store_lookup(store, bytes_of_string(request->source), bytes_of_string(request->id),
                              entry, why);
        if (result != ST_OK || !entry->dead) return result;
        result = store_dead_get(store, entry->route, entry->sequence, letter, why);
    }
    return result == ST_NOT_FOUND ? fail(why, ST_CORRUPT, "", "its dead letter is missing")
                                  : result;
}

static Ingest__V1__EventState event_state(event_store *store, const id_entry *entry) {
    route_stats stats;
    if (entry->dead) return INGEST__V1__EVENT_STATE__EVENT_STATE_DEAD;
    if (entry->purged) return INGEST__V1__EVENT_STATE__EVENT_STATE_PURGED;
    store_stats(store, entry->route, &stats);
    return entry->sequence <= stats.position ? INGEST__V1__EVENT_STATE__EVENT_STATE_PUBLISHED
                                             : INGEST__V1__EVENT_STATE__EVENT_STATE_PENDING;
}

static void reply_status(rpc_call *call, const id_entry *entry, const dead_letter *letter) {
    ingest_service *service = rpc_service(call);
    Ingest__V1__GetEventStatusResponse response = INGEST__V1__GET_EVENT_STATUS_RESPONSE__INIT;
    Google__Protobuf__Timestamp accepted_at, dead_at;
    proto_timestamp(&accepted_at, entry->accepted_ms);
    response.state = event_state(service->store, entry);
    response.route = (char *)(uintptr_t)store_route_name(service->store, entry->route);
    response.sequence = entry->sequence;
    response.accepted_at = &accepted_at;
    response.store = service->store_text;
    if (entry->dead) {
        proto_timestamp(&dead_at, letter->last_attempt_ms);
        response.dead_at = &dead_at;
        response.reason = (char *)(uintptr_t)letter->reason;
    }
    rpc_reply(call, &response.base);
}

static void get_event_status(rpc_call *call, bytes message) {
    ingest_service *service = rpc_service(call);
    Ingest__V1__GetEventStatusRequest *request =
        decode(call, &ingest__v1__get_event_status_request__descriptor, message);
    if (!request) return;
    failure why;
    outcome result = ST_OK;
    if (!request->source[0] || !request->id[0])
        result = fail(&why, ST_INVALID, request->source[0] ? "id" : "source",
                      "is required; an event is named by its source and id");
    id_entry entry;
    dead_letter letter = {0};
    if (result == ST_OK) result = find_event(service->store, request, &entry, &letter, &why);
    if (result == ST_OK) {
        reply_status(call, &entry, &letter);
        dead_letter_free(&letter);
    } else if (result == ST_NOT_FOUND) {
        Ingest__V1__GetEventStatusResponse response = INGEST__V1__GET_EVENT_STATUS_RESPONSE__INIT;
        response.state = INGEST__V1__EVENT_STATE__EVENT_STATE_UNKNOWN;
        response.store = service->store_text;
        rpc_reply(call, &response.base);
    } else {
        refuse_call(call, &why);
    }
}

/* ---- the table ------------------------------------------------------------------------- */

void ingest_methods(ingest_service *service, rpc_method out[INGEST_METHOD_COUNT]) {
    out[0] = (rpc_method){.path = "/ingest.v1.IngestService/Publish",
                          .kind = RPC_UNARY,
                          .on_message = publish,
                          .on_cancel = publish_cancelled};
    out[1] = (rpc_method){.path = "/ingest.v1.IngestService/PublishBatch",
                          .kind = RPC_UNARY,
                          .on_message = publish_batch,
                          .on_cancel = batch_cancelled};
    out[2] = (rpc_method){.path = "/ingest.v1.IngestService/PublishStream",
                          .kind = RPC_BIDI,
                          .on_message = publish_stream_message,
                          .on_half_close = publish_stream_half_close,
                          .on_cancel = publish_stream_cancel,
                          .on_sent = publish_stream_sent};
    out[3] = (rpc_method){.path = "/ingest.v1.IngestService/GetEventStatus",
                          .kind = RPC_UNARY,
                          .on_message = get_event_status};
    for (size_t i = 0; i < INGEST_METHOD_COUNT; i++)
        out[i].service = service;
}
