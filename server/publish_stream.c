/*
 * PublishStream: events in, results out in the order sent. A stream holds at most
 * limits.stream_window events; while they are all under way the runtime reads no further, which is
 * the client's back-pressure.
 *
 * Messages arrive on one rpc thread at a time; items finish on any thread, in any order; the lock
 * orders the answers. While an answer is on its way to the wire further results gather, and go as
 * one message. The stream ends when the client has half-closed or gone and every item is answered.
 * An event that finds the commit queue full is refused like any other failure: the client sees
 * RESOURCE_EXHAUSTED in its place.
 */
#include <pthread.h>
#include <stdlib.h>

#include "server/publish_item.h"
#include "server/status_details.h"

enum { ITEM_MEMORY_BYTES = 1024, RESULTS_A_MESSAGE = 128 };

typedef struct publish_stream publish_stream;

typedef struct stream_item {
    publish_item item; /* first: finished() casts back */
    publish_stream *stream;
    bool answerable;
    arena memory; /* of the request; taken back when it is answered */
    char first_block[ITEM_MEMORY_BYTES];
} stream_item;

/* In the call's own memory: a callback that comes late still finds the lock. */
struct publish_stream {
    rpc_call *call;
    ingest_service *service;
    bytes traceparent, tracestate;
    uint32_t window;
    pthread_mutex_t lock; /* over all below */
    stream_item **slots;  /* owned ring of `window`; each made when first needed */
    uint64_t first;       /* the oldest that is not answered */
    uint64_t next;        /* the next to be taken in */
    bool closed;          /* no more events come: half-closed, gone, or the server drains */
    bool cut;             /* closed before the client had half-closed */
    bool cancelling;      /* on_cancel walks the slots: it must not end under it */
    bool over;            /* ended: the slots are gone */
};

static publish_stream *stream_begin(rpc_call *call) {
    ingest_service *service = rpc_service(call);
    publish_stream *it = rpc_alloc(call, sizeof *it);
    memset(it, 0, sizeof *it);
    it->window = (uint32_t)service->rules.config->limits.stream_window;
    it->slots = calloc(it->window, sizeof(stream_item *));
    if (!it->slots) abort();
    it->call = call;
    it->service = service;
    it->traceparent = rpc_metadata(call, "traceparent");
    it->tracestate = rpc_metadata(call, "tracestate");
    pthread_mutex_init(&it->lock, NULL);
    rpc_set_state(call, it);
    return it;
}

static publish_stream *stream_of(rpc_call *call) {
    publish_stream *it = rpc_state(call);
    return it ? it : stream_begin(call);
}

static void free_slots(publish_stream *it) {
    for (uint32_t i = 0; i < it->window; i++)
        free(it->slots[i]);
    free(it->slots);
    it->slots = NULL;
}

/* ---- answers --------------------------------------------------------------------------- */

/* Sends the next few results, if they are there, as one message. Lock held. */
static uint32_t send_some(publish_stream *it) {
    Ingest__V1__PublishResult results[RESULTS_A_MESSAGE], *pointers[RESULTS_A_MESSAGE];
    Ingest__V1__PublishResponse responses[RESULTS_A_MESSAGE];
    uint32_t count = 0;
    while (count < RESULTS_A_MESSAGE && it->first + count < it->next) {
        stream_item *one = it->slots[(it->first + count) % it->window];
        if (!one->answerable) break;
        publish_item_result(&one->item, &results[count], &responses[count], &one->memory);
        pointers[count] = &results[count];
        count++;
    }
    if (count == 0) return 0;
    Ingest__V1__PublishStreamResponse message = INGEST__V1__PUBLISH_STREAM_RESPONSE__INIT;
    message.n_results = count;
    message.results = pointers;
    rpc_send(it->call, &message.base);
    for (uint32_t i = 0; i < count; i++)
        arena_free(&it->slots[(it->first + i) % it->window]->memory);
    it->first += count;
    return count;
}

/* Every event is answered and none will come: ends the call, and with it the stream's memory. */
static void end(publish_stream *it, bool cut) {
    failure why = {.code = ST_OK};
    if (cut)
        (void)fail(&why, ST_STOPPING, "",
                   "the stream ended early; events without a result may not be stored, send them "
                   "again with the same ids");
    free_slots(it);
    rpc_fail_with(it->call, &why, ingest_retry_ms(why.code));
}

/* Answers what can be answered, lets go of the lock and, when this was all, ends the stream. */
static void settle_and_unlock(publish_stream *it) {
    uint32_t answered = 0;
    const bool last_words = it->closed; /* nothing is gained by waiting */
    while (!it->over && (last_words || rpc_send_queue(it->call) == 0)) {
        const uint32_t count = send_some(it);
        if (count == 0) break;
        answered += count;
    }
    const bool ends = !it->over && it->closed && it->first == it->next && !it->cancelling;
    const bool cut = it->cut;
    if (ends)
        it->over = true;
    else if (answered > 0)
        rpc_message_done(it->call, answered);
    pthread_mutex_unlock(&it->lock);
    if (ends) end(it, cut);
}

static void stream_item_finished(publish_item *item) {
    stream_item *one = (stream_item *)(void *)item;
    publish_stream *it = one->stream;
    pthread_mutex_lock(&it->lock);
    one->answerable = true;
    settle_and_unlock(it);
}

/* ---- events ---------------------------------------------------------------------------- */

static stream_item *next_slot(publish_stream *it) {
    pthread_mutex_lock(&it->lock);
    stream_item **slot = &it->slots[it->next % it->window];
    if (!*slot && !(*slot = malloc(sizeof **slot))) abort();
    stream_item *one = *slot;
    one->stream = it;
    one->answerable = false;
    one->item.waiter = (ack_waiter){0};
    one->item.service = it->service;
    one->item.finished = stream_item_finished;
    arena_init(&one->memory, one->first_block, sizeof one->first_block);
    it->next++;
    pthread_mutex_unlock(&it->lock);
    return one;
}

static outcome take_in(publish_stream *it, stream_item *one, bytes message) {
    publish_item *item = &one->item;
    const ProtobufCMessageDescriptor *type = &ingest__v1__publish_request__descriptor;
    outcome result = codec_check(type, message, INGEST_CODEC_LIMITS, &item->why);
    if (result != ST_OK) return result;
    Ingest__V1__PublishRequest *request = codec_unpack(type, message, &one->memory.allocator);
    if (!request->event) return fail(&item->why, ST_INVALID, "event", "is required");
    intake_source source = {.event = request->event,
                            .wire = publish_event_wire(message),
                            .path = "event",
                            .traceparent = it->traceparent,
                            .tracestate = it->tracestate};
    result = publish_item_prepare(item, it->service, &source, request->ack, &one->memory);
    if (result == ST_OK) result = publish_items_submit(it->service, item, &item->why);
    return result;
}

void publish_stream_message(rpc_call *call, bytes message) {
    publish_stream *it = stream_of(call);
    stream_item *one = next_slot(it);
    const outcome result = take_in(it, one, message);
    if (result == ST_OK) return; /* `one` may be answered already */
    one->item.result = result;
    stream_item_finished(&one->item);
}

void publish_stream_half_close(rpc_call *call) {
    publish_stream *it = stream_of(call);
    pthread_mutex_lock(&it->lock);
    it->closed = true;
    settle_and_unlock(it);
}

void publish_stream_sent(rpc_call *call) {
    publish_stream *it = stream_of(call);
    pthread_mutex_lock(&it->lock);
    settle_and_unlock(it);
}

/* The client is gone, or the server drains: what is on its way is finished, waiting is cut short.
 */
void publish_stream_cancel(rpc_call *call) {
    publish_stream *it = stream_of(call);
    pthread_mutex_lock(&it->lock);
    const uint64_t first = it->first, next = it->over ? first : it->next;
    it->cut = !it->closed;
    it->closed = true;
    it->cancelling = true;
    pthread_mutex_unlock(&it->lock);
    for (uint64_t i = first; i < next; i++)
        publish_item_cancel(&it->slots[i % it->window]->item);
    pthread_mutex_lock(&it->lock);
    it->cancelling = false;
    settle_and_unlock(it);
}
