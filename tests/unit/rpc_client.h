/*
 * A small blocking client on the C core, for tests of the server runtime. One completion queue of
 * the pluck kind: start batches, then wait for each.
 */
#ifndef INGEST_TESTS_RPC_CLIENT_H
#define INGEST_TESTS_RPC_CLIENT_H

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/health/v1/health.pb-c.h"
#include "storage/bytes.h"

typedef struct client {
    grpc_channel *channel;
    grpc_completion_queue *queue;
} client;

typedef struct client_call {
    client *of;
    grpc_call *core;
    grpc_metadata_array initial, trailing;
    grpc_status_code code;
    grpc_slice message;
    grpc_byte_buffer *sent, *received;
    char status_tag, send_tag, receive_tag; /* only their addresses matter */
} client_call;

static inline client client_open(const char *target) {
    grpc_init();
    grpc_arg args[] = {
        /* A subchannel pool of its own, so that each client is a connection. */
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
         .value.integer = 1},
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_RETRIES, .value.integer = 0},
    };
    grpc_channel_args all = {.num_args = sizeof args / sizeof *args, .args = args};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    client made = {.channel = grpc_channel_create(target, credentials, &all),
                   .queue = grpc_completion_queue_create_for_pluck(NULL)};
    grpc_channel_credentials_release(credentials);
    return made;
}

static inline client client_open_port(int port) {
    char target[64];
    (void)snprintf(target, sizeof target, "127.0.0.1:%d", port);
    return client_open(target);
}

static inline void client_close(client *of) {
    grpc_channel_destroy(of->channel);
    grpc_completion_queue_shutdown(of->queue);
    grpc_completion_queue_destroy(of->queue);
    grpc_shutdown();
}

static inline gpr_timespec client_in_ms(int64_t ms) {
    return ms < 0
               ? gpr_inf_future(GPR_CLOCK_REALTIME)
               : gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

/* True when the batch of `tag` went well. A test that waits 60 s has failed. */
static inline bool client_wait(client *of, void *tag) {
    grpc_event event = grpc_completion_queue_pluck(of->queue, tag, client_in_ms(60000), NULL);
    if (event.type != GRPC_OP_COMPLETE) abort();
    return event.success != 0;
}

static inline void client_batch(client_call *call, const grpc_op *ops, size_t count, void *tag) {
    if (grpc_call_start_batch(call->core, ops, count, tag, NULL) != GRPC_CALL_OK) abort();
}

/* Sends the metadata (one pair, or NULL) and asks for the status. */
static inline void call_start(client_call *call, client *of, const char *path, int64_t deadline_ms,
                              const char *key, const char *value) {
    memset(call, 0, sizeof *call);
    call->of = of;
    call->message = grpc_empty_slice();
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    grpc_slice method = grpc_slice_from_copied_string(path);
    call->core = grpc_channel_create_call(of->channel, NULL, 0, of->queue, method, NULL,
                                          client_in_ms(deadline_ms), NULL);
    grpc_slice_unref(method);
    grpc_metadata pair;
    memset(&pair, 0, sizeof pair);
    grpc_op ops[3];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (key) {
        pair.key = grpc_slice_from_static_string(key);
        pair.value = grpc_slice_from_static_string(value);
        ops[0].data.send_initial_metadata.count = 1;
        ops[0].data.send_initial_metadata.metadata = &pair;
    }
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
    ops[2].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[2].data.recv_status_on_client.trailing_metadata = &call->trailing;
    ops[2].data.recv_status_on_client.status = &call->code;
    ops[2].data.recv_status_on_client.status_details = &call->message;
    client_batch(call, ops, 3, &call->status_tag);
}

/* Wire bytes; starts only, wait for send_tag. `last`: with the half-close. */
static inline void call_send_raw(client_call *call, bytes wire, bool last) {
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)wire.data, wire.len);
    if (call->sent) grpc_byte_buffer_destroy(call->sent);
    call->sent = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_MESSAGE;
    ops[0].data.send_message.send_message = call->sent;
    ops[1].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    client_batch(call, ops, last ? 2 : 1, &call->send_tag);
}

/* The toys talk in health check requests: one string. */
static inline void call_send(client_call *call, const char *text, bool last) {
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)text;
    size_t size = grpc__health__v1__health_check_request__get_packed_size(&request);
    uint8_t *packed = malloc(size + 1);
    if (!packed) abort();
    (void)grpc__health__v1__health_check_request__pack(&request, packed);
    call_send_raw(call, bytes_of(packed, size), last);
    free(packed);
}

static inline void call_half_close(client_call *call) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    client_batch(call, &op, 1, &call->send_tag);
}

static inline void call_ask(client_call *call) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &call->received;
    client_batch(call, &op, 1, &call->receive_tag);
}

/* The message that was asked for, to be freed; NULL: no more. */
static inline char *call_answer(client_call *call) {
    (void)client_wait(call->of, &call->receive_tag);
    if (!call->received) return NULL;
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, call->received)) abort();
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(call->received);
    call->received = NULL;
    Grpc__Health__V1__HealthCheckRequest *request = grpc__health__v1__health_check_request__unpack(
        NULL, GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
    grpc_slice_unref(slice);
    if (!request) abort();
    char *text = strdup(request->service);
    grpc__health__v1__health_check_request__free_unpacked(request, NULL);
    return text;
}

static inline char *call_receive(client_call *call) {
    call_ask(call);
    return call_answer(call);
}

/* Waits for the end. */
static inline grpc_status_code call_status(client_call *call) {
    (void)client_wait(call->of, &call->status_tag);
    return call->code;
}

static inline bytes call_trailer(const client_call *call, const char *key) {
    for (size_t i = 0; i < call->trailing.count; i++) {
        const grpc_metadata *pair = &call->trailing.metadata[i];
        if (grpc_slice_str_cmp(pair->key, key) == 0)
            return bytes_of(GRPC_SLICE_START_PTR(pair->value), GRPC_SLICE_LENGTH(pair->value));
    }
    return bytes_of(NULL, 0);
}

static inline void call_free(client_call *call) {
    if (call->sent) grpc_byte_buffer_destroy(call->sent);
    if (call->received) grpc_byte_buffer_destroy(call->received);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_slice_unref(call->message);
    grpc_call_unref(call->core);
}

/* A whole unary call; the answer (to be freed) or NULL, and the code. */
static inline char *call_unary(client *of, const char *path, const char *text, int64_t deadline_ms,
                               grpc_status_code *code) {
    client_call call;
    call_start(&call, of, path, deadline_ms, NULL, NULL);
    call_send(&call, text, true);
    (void)client_wait(of, &call.send_tag);
    char *answer = call_receive(&call);
    *code = call_status(&call);
    call_free(&call);
    return answer;
}

#endif
