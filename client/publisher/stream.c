/*
 * Four batches are under way at most: the opening, one message out, one message in, the status.
 * Each has a tag; `pending` counts them. The end is told when the status is there and every tag is
 * back, so that no message that came before it is lost.
 */
#include "client/publisher/stream.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct stream {
    grpc_call *call;
    const stream_events *events;
    void *owner; /* NULL: dropped */
    unsigned *live;
    unsigned pending; /* tags that the core has */
    stream_tag opened, sent, received, ended;
    grpc_metadata authorization;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *incoming;
    grpc_status_code code;
    grpc_slice message;
};

#define STREAM_OF(tag, member) ((stream *)(void *)((char *)(tag)-offsetof(stream, member)))

static void start(stream *it, const grpc_op *ops, size_t count, stream_tag *tag) {
    /* Fails only for a batch that is against the rules: a fault in this file. */
    if (grpc_call_start_batch(it->call, ops, count, tag, NULL) != GRPC_CALL_OK) abort();
    it->pending++;
}

static void tell_end(stream *it) {
    bytes details = {0};
    for (size_t i = 0; i < it->trailing.count; i++) {
        const grpc_metadata *pair = &it->trailing.metadata[i];
        if (grpc_slice_str_cmp(pair->key, "grpc-status-details-bin") == 0)
            details = bytes_of(GRPC_SLICE_START_PTR(pair->value), GRPC_SLICE_LENGTH(pair->value));
    }
    refusal why;
    refusal_from_call(it->code,
                      bytes_of(GRPC_SLICE_START_PTR(it->message), GRPC_SLICE_LENGTH(it->message)),
                      details, &why);
    it->events->on_end(it->owner, &why);
}

/* A tag is back. */
static void settle(stream *it) {
    if (--it->pending > 0) return;
    if (it->owner) tell_end(it);
    if (it->incoming) grpc_byte_buffer_destroy(it->incoming);
    grpc_metadata_array_destroy(&it->initial);
    grpc_metadata_array_destroy(&it->trailing);
    grpc_slice_unref(it->authorization.value);
    grpc_slice_unref(it->message);
    grpc_call_unref(it->call);
    --*it->live;
    free(it);
}

static void on_opened(stream_tag *tag, bool ok) {
    stream *it = STREAM_OF(tag, opened);
    if (ok && it->owner) it->events->on_ready(it->owner);
    settle(it);
}

static void on_sent(stream_tag *tag, bool ok) {
    stream *it = STREAM_OF(tag, sent);
    if (ok && it->owner) it->events->on_ready(it->owner);
    settle(it);
}

static void on_ended(stream_tag *tag, bool ok) {
    (void)ok;
    settle(STREAM_OF(tag, ended));
}

static void receive(stream *it, bool first) {
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_RECV_MESSAGE;
    ops[0].data.recv_message.recv_message = &it->incoming;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &it->initial;
    start(it, ops, first ? 2 : 1, &it->received);
}

static void hand_over(stream *it) {
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, it->incoming)) abort();
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(it->incoming);
    it->incoming = NULL;
    it->events->on_message(it->owner,
                           bytes_of(GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice)));
    grpc_slice_unref(slice);
}

static void on_received(stream_tag *tag, bool ok) {
    stream *it = STREAM_OF(tag, received);
    if (ok && it->incoming && it->owner) {
        hand_over(it);
        if (it->owner) receive(it, false);
    }
    settle(it);
}

stream *stream_open(grpc_channel *channel, grpc_completion_queue *queue, const char *path,
                    const char *authorization, const stream_events *events, void *owner,
                    unsigned *live) {
    stream *it = calloc(1, sizeof *it);
    if (!it) abort();
    it->events = events;
    it->owner = owner;
    it->live = live;
    ++*live;
    it->opened.done = on_opened;
    it->sent.done = on_sent;
    it->received.done = on_received;
    it->ended.done = on_ended;
    it->message = grpc_empty_slice();
    it->authorization.key = grpc_slice_from_static_string("authorization");
    it->authorization.value = grpc_slice_from_copied_string(authorization ? authorization : "");
    grpc_metadata_array_init(&it->initial);
    grpc_metadata_array_init(&it->trailing);
    const grpc_slice method = grpc_slice_from_copied_string(path);
    it->call = grpc_channel_create_call(channel, NULL, 0, queue, method, NULL,
                                        gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    grpc_slice_unref(method);

    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    op.data.recv_status_on_client.trailing_metadata = &it->trailing;
    op.data.recv_status_on_client.status = &it->code;
    op.data.recv_status_on_client.status_details = &it->message;
    start(it, &op, 1, &it->ended);
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_INITIAL_METADATA;
    op.data.send_initial_metadata.count = authorization ? 1 : 0;
    op.data.send_initial_metadata.metadata = &it->authorization;
    start(it, &op, 1, &it->opened);
    receive(it, true);
    return it;
}

void stream_send(stream *it, grpc_slice message, bool more, bool last) {
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&message, 1);
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_MESSAGE;
    ops[0].flags = more ? GRPC_WRITE_BUFFER_HINT : 0;
    ops[0].data.send_message.send_message = buffer;
    ops[1].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    start(it, ops, last ? 2 : 1, &it->sent);
    grpc_byte_buffer_destroy(buffer);
}

void stream_drop(stream *it) {
    it->owner = NULL;
    (void)grpc_call_cancel(it->call, NULL);
}
