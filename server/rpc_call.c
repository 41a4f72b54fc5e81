/*
 * One call, from the request for it ("armed") to its end.
 *
 * Arrival, on the queue's thread: arm a successor, then hand over the first message, or start to
 * read the stream.
 *
 * Writing. Any thread may write; `write_step` is the only one to change `writing`, under the
 * call's mutex; whoever made the step starts its batch, after releasing the mutex. At most
 * one batch that sends is out at a time. Empty entries are broken contracts and end the process.
 *
 *   state \ event  SEND      END       SENT_MORE  SENT_ALL  STATUS_SENT
 *   W_IDLE         SENDING*  ENDING+
 *   W_SENDING      SENDING   LAST      SENDING*   IDLE
 *   W_LAST                             LAST*      ENDING+
 *   W_ENDING                                                ENDED
 *   W_ENDED
 *                  * the oldest queued message goes out    + the status goes out
 *   SEND: rpc_send. END: rpc_reply, rpc_fail. SENT_*: a message is on the wire, with more queued
 *   or none. A client that is gone makes every batch come back at once, failed: no other path.
 *
 * Reading (RPC_BIDI), under the mutex too: R_IDLE -> R_READING when the window has room (messages
 * delivered and not done, and messages queued to the client, both below stream_window);
 * R_READING -> R_IDLE with a message, -> R_CLOSED at the half-close, after a failure, or when the
 * handler was told to end. A handler's thread may start a read; the tag comes to the queue's.
 *
 * The close, RECV_CLOSE_ON_SERVER, comes back when the call is over or the client gone. A call that
 * is watched, as every stream is, has it in a batch of its own; for the others it goes with the
 * status, which spares a batch and its way through the queue.
 *
 * Freeing. `refs` counts the tags still to come: the status, which comes to every call that
 * arrived, plus the close of a watched call and, at times, a read and a drain notice. (A message
 * being sent needs none: the status follows it.) The last one frees, always on the queue's thread.
 */
#include <assert.h>
#include <grpc/byte_buffer_reader.h>
#include <limits.h>
#include <stdlib.h>

#include "server/rpc_internal.h"
#include "server/status_details.h"

enum {
    ARENA_BYTES = 3072, /* of each call, in the same allocation */
};

typedef enum write_state { W_IDLE, W_SENDING, W_LAST, W_ENDING, W_ENDED, W_STATES } write_state;
typedef enum write_event {
    E_SEND,
    E_END,
    E_SENT_MORE,
    E_SENT_ALL,
    E_STATUS_SENT,
    E_EVENTS
} write_event;
typedef enum read_state { R_IDLE, R_READING, R_CLOSED } read_state;

struct rpc_call {
    /* Set when the call is made, kept when it is used again. */
    rpc_queue *queue;
    rpc_tag on_new, on_close, on_read, on_sent, on_status_sent, on_drain;
    pthread_mutex_t mutex;
    rpc_call *next; /* free list; or, for a live stream, queue->streams */

    /* The core's, filled at arrival. */
    size_t index;                 /* of the method; method_count: unknown */
    const rpc_method *method;     /* NULL when unknown */
    grpc_call *core;              /* owned */
    gpr_timespec deadline;        /* on the monotonic clock */
    grpc_metadata_array metadata; /* owned */
    grpc_call_details details;    /* owned; of unknown methods only */
    grpc_byte_buffer *payload;    /* owned; what RECV_MESSAGE wrote */
    int cancelled;                /* what RECV_CLOSE_ON_SERVER wrote */

    void *state; /* the handler's */
    _Atomic uint32_t refs;

    /* Queue's thread only. */
    bool told;           /* on_cancel was called: no callback follows */
    rpc_call **previous; /* what points at us in queue->streams; NULL when not in it */

    bool watched; /* constant once another thread knows the call */

    /* Under the mutex. */
    write_state writing;
    read_state reading;
    bool headers_sent;
    bool has_message;         /* `out` holds a message for the next batch */
    grpc_byte_buffer out;     /* the message being sent, one slice */
    grpc_slice_buffer outbox; /* packed messages behind it, one slice each */
    grpc_slice *inbox;        /* ring of messages delivered and not done */
    uint32_t inbox_size, inbox_head, inbox_count;
    grpc_slice first; /* the ring of calls with one message */

    /* The status; written by the END step, read by the batch. */
    int code;
    grpc_slice message;
    grpc_metadata trailer;
    size_t trailer_count; /* 0 or 1 */

    arena memory; /* begins in first_block */
    _Alignas(16) uint8_t first_block[ARENA_BYTES];
};

/* ---- states -------------------------------------------------------------------------------- */

static const int WRITE_STEPS[W_STATES][E_EVENTS] = {
    /*              SEND       END       SENT_MORE  SENT_ALL  STATUS_SENT */
    [W_IDLE] = {W_SENDING, W_ENDING, -1, -1, -1},
    [W_SENDING] = {W_SENDING, W_LAST, W_SENDING, W_IDLE, -1},
    [W_LAST] = {-1, -1, W_LAST, W_ENDING, -1},
    [W_ENDING] = {-1, -1, -1, -1, W_ENDED},
    [W_ENDED] = {-1, -1, -1, -1, -1},
};

/* The mutex is held. Returns the state before. */
static write_state write_step(rpc_call *call, write_event event) {
    write_state before = call->writing;
    int next = WRITE_STEPS[before][event];
    if (next < 0) rpc_die("a call was used after its handler had ended it");
    call->writing = (write_state)next;
    return before;
}

/* Whether the handler still has the call; the mutex is held. */
static bool is_open(const rpc_call *call) { return call->writing < W_LAST; }

static bool is_stream(const rpc_call *call) {
    return call->method && call->method->kind != RPC_UNARY;
}

static uint32_t max_window(const rpc_call *call) {
    return call->queue->server->options.stream_window;
}

/* ---- batches ------------------------------------------------------------------------------- */

static void start_batch(grpc_call *core, const grpc_op *ops, size_t count, rpc_tag *tag) {
    grpc_call_error error = grpc_call_start_batch(core, ops, count, tag, NULL);
    if (error != GRPC_CALL_OK) rpc_die(grpc_call_error_to_string(error));
}

static void hold(rpc_call *call) {
    atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
}

static grpc_op recv_close(rpc_call *call) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    op.data.recv_close_on_server.cancelled = &call->cancelled;
    return op;
}

/* Adds what goes before anything else, and the message in `out`. The mutex is held. */
static size_t add_message_ops(rpc_call *call, grpc_op *ops) {
    size_t count = 0;
    if (!call->headers_sent) {
        call->headers_sent = true;
        ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    }
    if (call->has_message) {
        call->has_message = false;
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count].flags = call->outbox.count ? GRPC_WRITE_BUFFER_HINT : 0; /* more follow */
        ops[count++].data.send_message.send_message = &call->out;
    }
    return count;
}

/* After a step to W_SENDING or W_LAST: the message in `out` goes. Releases the mutex. */
static void send_and_unlock(rpc_call *call) {
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    size_t count = add_message_ops(call, ops);
    grpc_call *core = call->core;
    pthread_mutex_unlock(&call->mutex);
    start_batch(core, ops, count, &call->on_sent);
}

/* After a step to W_ENDING. Releases the mutex. From here on the queue's thread may free the call:
 * other threads must not touch it any more. */
static void status_and_unlock(rpc_call *call) {
    grpc_op ops[4];
    memset(ops, 0, sizeof ops);
    size_t count = add_message_ops(call, ops);
    if (!call->watched) ops[count++] = recv_close(call);
    grpc_op *status = &ops[count++];
    status->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    status->data.send_status_from_server.status = (grpc_status_code)call->code;
    status->data.send_status_from_server.status_details = &call->message;
    status->data.send_status_from_server.trailing_metadata_count = call->trailer_count;
    status->data.send_status_from_server.trailing_metadata = &call->trailer;
    grpc_call *core = call->core;
    pthread_mutex_unlock(&call->mutex);
    start_batch(core, ops, count, &call->on_status_sent);
}

static void put_out(rpc_call *call, grpc_slice slice) {
    grpc_slice_buffer_add_indexed(&call->out.data.raw.slice_buffer, slice);
    call->has_message = true;
}

/* ---- making, arming, freeing ---------------------------------------------------------------- */

static void on_new(void *of, bool ok);
static void on_close(void *of, bool ok);
static void on_read(void *of, bool ok);
static void on_sent(void *of, bool ok);
static void on_status_sent(void *of, bool ok);
static void on_drain(void *of, bool ok);

static rpc_call *call_new(rpc_queue *queue) {
    rpc_call *call = malloc(sizeof *call);
    if (!call) rpc_die("out of memory");
    memset(call, 0, offsetof(rpc_call, first_block));
    call->queue = queue;
    call->on_new = (rpc_tag){.run = on_new, .of = call};
    call->on_close = (rpc_tag){.run = on_close, .of = call};
    call->on_read = (rpc_tag){.run = on_read, .of = call};
    call->on_sent = (rpc_tag){.run = on_sent, .of = call};
    call->on_status_sent = (rpc_tag){.run = on_status_sent, .of = call};
    call->on_drain = (rpc_tag){.run = on_drain, .of = call};
    pthread_mutex_init(&call->mutex, NULL);
    call->out.type = GRPC_BB_RAW;
    grpc_slice_buffer_init(&call->out.data.raw.slice_buffer);
    grpc_slice_buffer_init(&call->outbox);
    return call;
}

static void call_delete(rpc_call *call) {
    grpc_slice_buffer_destroy(&call->out.data.raw.slice_buffer);
    grpc_slice_buffer_destroy(&call->outbox);
    pthread_mutex_destroy(&call->mutex);
    free(call);
}

static rpc_call *call_take(rpc_queue *queue) {
    rpc_call *call = queue->free_calls;
    if (!call) return call_new(queue);
    queue->free_calls = call->next;
    queue->free_count--;
    return call;
}

static void call_give_back(rpc_call *call) {
    rpc_queue *queue = call->queue;
    if (queue->free_count >= RPC_FREE_CALLS) {
        call_delete(call);
        return;
    }
    call->next = queue->free_calls;
    queue->free_calls = call;
    queue->free_count++;
}

void rpc_call_free_all(rpc_queue *queue) {
    while (queue->free_calls)
        call_delete(call_take(queue));
}

void rpc_call_arm(rpc_queue *queue, size_t method) {
    const rpc_server *server = queue->server;
    rpc_call *call = call_take(queue);
    call->index = method;
    grpc_metadata_array_init(&call->metadata);
    queue->outstanding++;
    grpc_call_error error;
    if (method == server->method_count) {
        call->method = NULL;
        grpc_call_details_init(&call->details);
        error = grpc_server_request_call(server->core, &call->core, &call->details, &call->metadata,
                                         queue->core, queue->core, &call->on_new);
    } else {
        call->method = &server->methods[method];
        grpc_byte_buffer **payload = call->method->kind == RPC_BIDI ? NULL : &call->payload;
        error = grpc_server_request_registered_call(
            server->core, server->registered[method], &call->core, &call->deadline, &call->metadata,
            payload, queue->core, queue->core, &call->on_new);
    }
    if (error != GRPC_CALL_OK) rpc_die(grpc_call_error_to_string(error));
}

/* The oldest message that was delivered goes. The mutex is held, or the call is over. */
static void drop_oldest(rpc_call *call) {
    grpc_slice_unref(call->inbox[call->inbox_head]);
    call->inbox_head = (call->inbox_head + 1) % call->inbox_size;
    call->inbox_count--;
}

/* Makes `call` ready for the next; of a live call or one whose request failed. */
static void call_release(rpc_call *call) {
    rpc_queue *queue = call->queue;
    while (call->inbox_count)
        drop_oldest(call);
    arena_free(&call->memory);
    if (call->payload) grpc_byte_buffer_destroy(call->payload);
    call->payload = NULL;
    if (!call->method) grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    if (call->core) grpc_call_unref(call->core);
    call->core = NULL;
    call_give_back(call);
    if (--queue->outstanding == 0) rpc_queue_idle(queue); /* only a draining queue gets there */
}

static void bump(_Atomic uint64_t *counter) { /* this thread is the only writer */
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + 1, memory_order_relaxed);
}

/* There is room for another. */
static void stream_ended(rpc_queue *queue) {
    queue->live_streams--;
    if (queue->held_back_count == 0 ||
        atomic_load_explicit(&queue->server->draining, memory_order_acquire))
        return;
    size_t method = 0;
    while (queue->held_back[method] == 0)
        method++;
    queue->held_back[method]--;
    queue->held_back_count--;
    rpc_call_arm(queue, method);
}

static void call_end(rpc_call *call) {
    int code = call->cancelled ? GRPC_STATUS_CANCELLED : call->code;
    bump(&call->queue->counters[call->index].by_code[code]);
    grpc_slice_unref(call->message);
    if (call->trailer_count) grpc_slice_unref(call->trailer.value);
    grpc_slice_buffer_reset_and_unref(&call->out.data.raw.slice_buffer);
    grpc_slice_buffer_reset_and_unref(&call->outbox);
    atomic_fetch_sub_explicit(&call->queue->server->live_calls, 1, memory_order_relaxed);
    if (is_stream(call)) stream_ended(call->queue);
    call_release(call);
}

/* A tag came back. Queue's thread. */
static void drop(rpc_call *call) {
    if (atomic_fetch_sub_explicit(&call->refs, 1, memory_order_acq_rel) == 1) call_end(call);
}

/* ---- live streams, for drains ---------------------------------------------------------------- */

/* False when the server is draining: a stream that began now would be missed. */
static bool streams_add(rpc_call *call) {
    rpc_queue *queue = call->queue;
    pthread_mutex_lock(&queue->streams_mutex);
    bool serve = !atomic_load(&queue->server->draining);
    if (serve) {
        call->next = queue->streams;
        if (call->next) call->next->previous = &call->next;
        call->previous = &queue->streams;
        queue->streams = call;
    }
    pthread_mutex_unlock(&queue->streams_mutex);
    return serve;
}

static void streams_remove(rpc_call *call) {
    if (!call->previous) return;
    pthread_mutex_lock(&call->queue->streams_mutex);
    *call->previous = call->next;
    if (call->next) call->next->previous = call->previous;
    call->previous = NULL;
    pthread_mutex_unlock(&call->queue->streams_mutex);
}

/* An empty batch comes back at once, on the call's own queue: that is how the notice gets there.
 * A call in the list has its status tag still to come, so that it can be held. */
void rpc_call_drain_streams(rpc_queue *queue) {
    pthread_mutex_lock(&queue->streams_mutex);
    for (rpc_call *call = queue->streams; call; call = call->next) {
        hold(call);
        start_batch(call->core, NULL, 0, &call->on_drain);
    }
    pthread_mutex_unlock(&queue->streams_mutex);
}

/* ---- arrival -------------------------------------------------------------------------------- */

/* Into one slice: the core's own when there is one, which is the rule for small messages. */
static grpc_slice take_slice(grpc_byte_buffer *payload) {
    grpc_slice_buffer *slices = &payload->data.raw.slice_buffer;
    grpc_slice slice;
    if (slices->count == 1) {
        slice = grpc_slice_buffer_take_first(slices);
    } else {
        grpc_byte_buffer_reader reader;
        if (!grpc_byte_buffer_reader_init(&reader, payload)) rpc_die("unreadable message");
        slice = grpc_byte_buffer_reader_readall(&reader);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(payload);
    return slice;
}

/* The mutex is held, or nobody else knows the call yet. The ring does not move, so that the bytes
 * of a slice that holds them itself stay where they are. */
static bytes inbox_put(rpc_call *call, grpc_byte_buffer *payload) {
    assert(call->inbox_count < call->inbox_size);
    grpc_slice *slot = &call->inbox[(call->inbox_head + call->inbox_count) % call->inbox_size];
    *slot = take_slice(payload);
    call->inbox_count++;
    return bytes_of(GRPC_SLICE_START_PTR(*slot), GRPC_SLICE_LENGTH(*slot));
}

/* Starts a read when there is room. Any thread that may use the call. */
static void read_more(rpc_call *call) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &call->payload;

    pthread_mutex_lock(&call->mutex);
    bool start = call->reading == R_IDLE && is_open(call) && call->inbox_count < call->inbox_size &&
                 call->outbox.count < call->inbox_size;
    if (start) {
        call->reading = R_READING;
        hold(call);
    }
    grpc_call *core = call->core;
    pthread_mutex_unlock(&call->mutex);
    if (start) start_batch(core, &op, 1, &call->on_read);
}

static void call_begin(rpc_call *call) {
    const rpc_method *method = call->method;
    call->state = NULL;
    call->cancelled = 0;
    call->told = call->watched = false;
    call->previous = NULL;
    call->writing = W_IDLE;
    call->reading = method && method->kind == RPC_BIDI ? R_IDLE : R_CLOSED;
    call->headers_sent = call->has_message = false;
    call->code = 0;
    call->trailer_count = 0;
    arena_init(&call->memory, call->first_block, sizeof call->first_block);
    call->inbox = &call->first;
    call->inbox_size = 1;
    call->inbox_head = call->inbox_count = 0;
    if (call->reading == R_IDLE) {
        call->inbox_size = max_window(call);
        call->inbox = rpc_alloc(call, call->inbox_size * sizeof *call->inbox);
    }
    if (!method) call->deadline = call->details.deadline;
    atomic_store_explicit(&call->refs, 1, memory_order_relaxed); /* the status */
}

static void refuse(rpc_call *call, outcome code, const char *reason) {
    failure why;
    (void)fail(&why, code, "", "%s", reason);
    rpc_fail_with(call, &why, outcome_retry(code) ? RPC_RETRY_MS : 0);
}

/* As HTTP/2 counts it (RFC 9113, 6.5.2). The core tells clients the limit, but takes more than that
 * from one that does not listen. */
static size_t metadata_size(const rpc_call *call) {
    enum { ENTRY_OVERHEAD = 32 };
    size_t size = 0;
    for (size_t i = 0; i < call->metadata.count; i++)
        size += GRPC_SLICE_LENGTH(call->metadata.metadata[i].key) +
                GRPC_SLICE_LENGTH(call->metadata.metadata[i].value) + ENTRY_OVERHEAD;
    return size;
}

static void deliver_first(rpc_call *call) {
    grpc_byte_buffer *payload = call->payload;
    call->payload = NULL;
    if (!payload) { /* too large (the core has answered), cancelled, or really none */
        if (grpc_call_failed_before_recv_message(call->core))
            rpc_fail(call, GRPC_STATUS_CANCELLED, "no message arrived", bytes_of(NULL, 0));
        else
            refuse(call, ST_UNIMPLEMENTED, "this method takes exactly one message; none was sent");
        return;
    }
    call->method->on_message(call, inbox_put(call, payload));
}

/* One like this one may come. A queue with streams enough leaves the next ones to an extra queue.
 */
static void rearm(const rpc_call *call) {
    rpc_queue *queue = call->queue;
    if (atomic_load_explicit(&queue->server->draining, memory_order_acquire)) return;
    if (!is_stream(call) || queue->extra || queue->live_streams < RPC_SHARED_STREAMS) {
        rpc_call_arm(queue, call->index);
    } else {
        queue->held_back[call->index]++;
        queue->held_back_count++;
    }
}

static void on_new(void *of, bool ok) {
    rpc_call *call = of;
    rpc_queue *queue = call->queue;
    rpc_server *server = queue->server;
    if (!ok) { /* the server shuts down */
        call_release(call);
        return;
    }
    if (is_stream(call)) queue->live_streams++;
    rearm(call);
    call_begin(call);
    bump(&queue->counters[call->index].started);
    uint64_t others = atomic_fetch_add_explicit(&server->live_calls, 1, memory_order_relaxed);
    if (is_stream(call)) rpc_watch(call);

    if (!call->method)
        refuse(call, ST_UNIMPLEMENTED, "unknown method");
    else if (others >= server->options.max_calls)
        refuse(call, ST_OVERLOADED, "too many calls in flight");
    else if (metadata_size(call) > server->options.max_metadata_bytes)
        refuse(call, ST_INVALID, "the request's metadata is too large");
    else if (is_stream(call) && !streams_add(call))
        refuse(call, ST_STOPPING, "shutting down");
    else if (call->method->kind == RPC_BIDI)
        read_more(call);
    else
        deliver_first(call);
}

/* ---- tags ----------------------------------------------------------------------------------- */

/* Tells the handler, once, that it should end the call. */
static void tell_cancel(rpc_call *call) {
    pthread_mutex_lock(&call->mutex);
    bool tell = !call->told && is_open(call);
    call->told = true;
    if (call->reading == R_IDLE) call->reading = R_CLOSED;
    pthread_mutex_unlock(&call->mutex);
    if (tell && call->method->on_cancel) call->method->on_cancel(call);
}

static void on_close(void *of, bool ok) {
    (void)ok;
    rpc_call *call = of;
    if (call->cancelled) tell_cancel(call);
    drop(call);
}

static void on_drain(void *of, bool ok) {
    (void)ok;
    rpc_call *call = of;
    tell_cancel(call);
    drop(call);
}

static void on_read(void *of, bool ok) {
    rpc_call *call = of;
    grpc_byte_buffer *payload = call->payload;
    call->payload = NULL;
    bytes message = bytes_of(NULL, 0);

    pthread_mutex_lock(&call->mutex);
    bool deliver = is_open(call) && !call->told;
    call->reading = payload && deliver ? R_IDLE : R_CLOSED;
    if (payload && deliver) message = inbox_put(call, payload);
    pthread_mutex_unlock(&call->mutex);

    if (deliver && payload) {
        call->method->on_message(call, message);
        read_more(call);
    } else if (deliver && ok && !grpc_call_failed_before_recv_message(call->core)) {
        call->method->on_half_close(call);
    } else if (payload) {
        grpc_byte_buffer_destroy(payload);
    }
    drop(call);
}

static void on_sent(void *of, bool ok) {
    rpc_call *call = of;
    pthread_mutex_lock(&call->mutex);
    grpc_slice_buffer_reset_and_unref(&call->out.data.raw.slice_buffer);
    if (!ok) grpc_slice_buffer_reset_and_unref(&call->outbox); /* the client is gone */
    bool more = call->outbox.count > 0;
    if (more) put_out(call, grpc_slice_buffer_take_first(&call->outbox));
    write_step(call, more ? E_SENT_MORE : E_SENT_ALL);
    if (more) {
        send_and_unlock(call);
    } else if (call->writing == W_ENDING) {
        status_and_unlock(call);
    } else {
        pthread_mutex_unlock(&call->mutex);
        if (call->method->on_sent && !call->told) call->method->on_sent(call);
    }
    read_more(call); /* the outbox may have held it up */
}

static void on_status_sent(void *of, bool ok) {
    rpc_call *call = of;
    streams_remove(call);
    pthread_mutex_lock(&call->mutex);
    write_step(call, E_STATUS_SENT);
    pthread_mutex_unlock(&call->mutex);
    if (!ok) call->cancelled = true;
    drop(call);
}

/* ---- for handlers ---------------------------------------------------------------------------- */

void *rpc_service(const rpc_call *call) { return call->method->service; }
void rpc_set_state(rpc_call *call, void *state) { call->state = state; }
void *rpc_state(const rpc_call *call) { return call->state; }
arena *rpc_arena(rpc_call *call) { return &call->memory; }
void *rpc_alloc(rpc_call *call, size_t size) { return arena_alloc(&call->memory, size); }

bytes rpc_metadata(const rpc_call *call, const char *name) {
    const bytes wanted = bytes_of_string(name);
    for (size_t i = 0; i < call->metadata.count; i++) {
        const grpc_metadata *entry = &call->metadata.metadata[i];
        bytes key = bytes_of(GRPC_SLICE_START_PTR(entry->key), GRPC_SLICE_LENGTH(entry->key));
        if (bytes_equal(key, wanted))
            return bytes_of(GRPC_SLICE_START_PTR(entry->value), GRPC_SLICE_LENGTH(entry->value));
    }
    return bytes_of(NULL, 0);
}

int64_t rpc_deadline_ms(const rpc_call *call) {
    const gpr_timespec deadline = call->deadline;
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return INT64_MAX;
    gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    return left.tv_sec * 1000 + left.tv_nsec / 1000000;
}

/* Small messages fit into the slice itself: no allocation. */
static grpc_slice pack(const ProtobufCMessage *message) {
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
    size_t size = protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    if (size != GRPC_SLICE_LENGTH(slice)) rpc_die("a message changed while it was packed");
    return slice;
}

void rpc_watch(rpc_call *call) {
    if (call->watched) return;
    call->watched = true;
    hold(call);
    grpc_op op = recv_close(call);
    start_batch(call->core, &op, 1, &call->on_close);
}

void rpc_reply(rpc_call *call, const ProtobufCMessage *message) {
    if (is_stream(call)) rpc_die("rpc_reply on a stream");
    grpc_slice slice = pack(message);
    pthread_mutex_lock(&call->mutex);
    write_step(call, E_END);
    put_out(call, slice);
    call->message = grpc_empty_slice();
    status_and_unlock(call);
}

void rpc_fail(rpc_call *call, int grpc_code, const char *message, bytes details) {
    pthread_mutex_lock(&call->mutex);
    write_state before = write_step(call, E_END);
    call->code = grpc_code >= 0 && grpc_code < RPC_CODES ? grpc_code : GRPC_STATUS_UNKNOWN;
    call->message = message ? grpc_slice_from_copied_string(message) : grpc_empty_slice();
    if (details.len) {
        call->trailer.key = grpc_slice_from_static_string("grpc-status-details-bin");
        call->trailer.value =
            grpc_slice_from_copied_buffer((const char *)details.data, details.len);
        call->trailer_count = 1;
    }
    if (before == W_IDLE)
        status_and_unlock(call);
    else /* it follows the last message */
        pthread_mutex_unlock(&call->mutex);
}

void rpc_send(rpc_call *call, const ProtobufCMessage *message) {
    if (!is_stream(call)) rpc_die("rpc_send on a unary call");
    grpc_slice slice = pack(message);
    pthread_mutex_lock(&call->mutex);
    if (write_step(call, E_SEND) == W_IDLE) {
        put_out(call, slice);
        send_and_unlock(call);
    } else {
        grpc_slice_buffer_add_indexed(&call->outbox, slice);
        pthread_mutex_unlock(&call->mutex);
    }
}

uint32_t rpc_send_queue(const rpc_call *call) {
    rpc_call *mine = (rpc_call *)call;
    pthread_mutex_lock(&mine->mutex);
    uint32_t queued = (uint32_t)mine->outbox.count + (mine->writing == W_SENDING);
    pthread_mutex_unlock(&mine->mutex);
    return queued;
}

void rpc_message_done(rpc_call *call, uint32_t count_done) {
    pthread_mutex_lock(&call->mutex);
    if (count_done > call->inbox_count) rpc_die("rpc_message_done for more than was delivered");
    while (count_done--)
        drop_oldest(call);
    pthread_mutex_unlock(&call->mutex);
    read_more(call);
}
