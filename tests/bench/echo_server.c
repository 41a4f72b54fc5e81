/*
 * The floor that the runtime is measured against: a unary method on the bare C core, an empty
 * handler, a fixed answer; and a stream that counts what it is sent, and answers so many empty
 * results whenever the last answer has gone. Two queues, two threads, nothing of ours.
 *
 *   echo_server 127.0.0.1:50060
 *   h2load -n 500000 -c 16 -m 64 -H 'content-type: application/grpc' -H 'te: trailers' \
 *     -d body.bin http://127.0.0.1:50060/ingest.v1.IngestService/Publish
 */
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUES = 2, ARMED = 128, STREAMS_ARMED = 8, RESULTS_MOST = 4096 };

typedef enum tag_kind {
    TAG_NEW,
    TAG_CLOSE,
    TAG_STATUS,
    TAG_OPENED, /* of a stream, and what follows */
    TAG_READ,
    TAG_SENT,
    TAG_ENDED
} tag_kind;

typedef struct echo_call echo_call;
typedef struct echo_tag {
    tag_kind kind;
    echo_call *call;
} echo_tag;

struct echo_call {
    echo_tag on_new, on_close, on_status, on_read, on_sent;
    grpc_call *core;
    grpc_metadata_array metadata;
    grpc_byte_buffer *request, *reply;
    gpr_timespec deadline;
    int cancelled, tags_left;
    /* of a stream */
    size_t unanswered;
    bool sending, half_closed;
};

static grpc_server *server;
static void *method, *stream_method;
static const char REPLY[] = "\x0a\x24"
                            "0192f0c1-2345-7abc-8def-0123456789ab"
                            "\x10\x2a";

static void arm(grpc_completion_queue *queue) {
    echo_call *call = calloc(1, sizeof *call);
    if (!call) abort();
    call->on_new = (echo_tag){TAG_NEW, call};
    call->on_close = (echo_tag){TAG_CLOSE, call};
    call->on_status = (echo_tag){TAG_STATUS, call};
    grpc_metadata_array_init(&call->metadata);
    grpc_server_request_registered_call(server, method, &call->core, &call->deadline,
                                        &call->metadata, &call->request, queue, queue,
                                        &call->on_new);
}

static void answer(echo_call *call) {
    grpc_op close, ops[3];
    memset(&close, 0, sizeof close);
    memset(ops, 0, sizeof ops);
    call->tags_left = 2;
    close.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    close.data.recv_close_on_server.cancelled = &call->cancelled;
    grpc_call_start_batch(call->core, &close, 1, &call->on_close, NULL);

    grpc_slice slice = grpc_slice_from_static_buffer(REPLY, sizeof REPLY - 1);
    call->reply = grpc_raw_byte_buffer_create(&slice, 1);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = call->reply;
    ops[2].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    grpc_call_start_batch(call->core, ops, 3, &call->on_status, NULL);
}

static void finish(echo_call *call) {
    if (call->request) grpc_byte_buffer_destroy(call->request);
    if (call->reply) grpc_byte_buffer_destroy(call->reply);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_unref(call->core);
    free(call);
}

/* ---- streams: a call belongs to one queue, and that to one thread -----------------------------
 */

static void arm_stream(grpc_completion_queue *queue) {
    echo_call *call = calloc(1, sizeof *call);
    if (!call) abort();
    call->on_new = (echo_tag){TAG_OPENED, call};
    call->on_read = (echo_tag){TAG_READ, call};
    call->on_sent = (echo_tag){TAG_SENT, call};
    call->on_status = (echo_tag){TAG_ENDED, call};
    grpc_metadata_array_init(&call->metadata);
    grpc_server_request_registered_call(server, stream_method, &call->core, &call->deadline,
                                        &call->metadata, NULL, queue, queue, &call->on_new);
}

static void start(echo_call *call, const grpc_op *ops, size_t count, echo_tag *tag) {
    if (grpc_call_start_batch(call->core, ops, count, tag, NULL) != GRPC_CALL_OK) abort();
}

static void read_next(echo_call *call) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &call->request;
    start(call, &op, 1, &call->on_read);
}

static void send_headers(echo_call *call) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_INITIAL_METADATA;
    call->sending = true;
    start(call, &op, 1, &call->on_sent);
}

/* Whatever is to be sent next, if anything. */
static void send_next(echo_call *call) {
    static const char RESULT[] = {'\x0a', '\x02', '\x0a', '\x00'};
    grpc_op op;
    memset(&op, 0, sizeof op);
    if (call->sending || !(call->unanswered || call->half_closed)) return;
    call->sending = true;
    if (!call->unanswered) {
        op.op = GRPC_OP_SEND_STATUS_FROM_SERVER;
        start(call, &op, 1, &call->on_status);
        return;
    }
    size_t count = call->unanswered < RESULTS_MOST ? call->unanswered : RESULTS_MOST;
    grpc_slice slice = grpc_slice_malloc(count * sizeof RESULT);
    for (size_t i = 0; i < count; i++)
        memcpy(GRPC_SLICE_START_PTR(slice) + i * sizeof RESULT, RESULT, sizeof RESULT);
    call->unanswered -= count;
    call->reply = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    op.op = GRPC_OP_SEND_MESSAGE;
    op.data.send_message.send_message = call->reply;
    start(call, &op, 1, &call->on_sent);
}

static void on_stream(echo_tag *tag) {
    echo_call *call = tag->call;
    switch (tag->kind) {
    case TAG_OPENED:
        send_headers(call);
        read_next(call);
        return;
    case TAG_READ:
        call->half_closed = !call->request;
        call->unanswered += !call->half_closed;
        if (call->request) grpc_byte_buffer_destroy(call->request);
        call->request = NULL;
        send_next(call);
        if (!call->half_closed) read_next(call);
        return;
    case TAG_SENT:
        if (call->reply) grpc_byte_buffer_destroy(call->reply);
        call->reply = NULL;
        call->sending = false;
        send_next(call);
        return;
    default:
        finish(call);
    }
}

static void *serve(void *argument) {
    grpc_completion_queue *queue = argument;
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (event.type != GRPC_OP_COMPLETE) return NULL;
        echo_tag *tag = event.tag;
        if (tag->kind == TAG_NEW) {
            arm(queue);
            answer(tag->call);
        } else if (tag->kind >= TAG_OPENED) {
            if (tag->kind == TAG_OPENED) arm_stream(queue);
            on_stream(tag);
        } else if (--tag->call->tags_left == 0) {
            finish(tag->call);
        }
    }
}

int main(int argc, char **argv) {
    grpc_completion_queue *queues[QUEUES];
    pthread_t threads[QUEUES];
    grpc_arg off[] = {/* the second for speed: a floor has to be as low as it can be */
                      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ALLOW_REUSEPORT},
                      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_CHANNELZ}};
    grpc_channel_args args = {.num_args = 2, .args = off};
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:50060";

    grpc_init();
    server = grpc_server_create(&args, NULL);
    for (int i = 0; i < QUEUES; i++) {
        queues[i] = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server, queues[i], NULL);
    }
    method = grpc_server_register_method(server, "/ingest.v1.IngestService/Publish", NULL,
                                         GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    stream_method = grpc_server_register_method(server, "/ingest.v1.IngestService/PublishStream",
                                                NULL, GRPC_SRM_PAYLOAD_NONE, 0);
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(server, address, credentials);
    grpc_server_credentials_release(credentials);
    if (port == 0) return 1;
    grpc_server_start(server);
    for (int i = 0; i < QUEUES; i++) {
        for (int n = 0; n < ARMED; n++)
            arm(queues[i]);
        for (int n = 0; n < STREAMS_ARMED; n++)
            arm_stream(queues[i]);
        if (pthread_create(&threads[i], NULL, serve, queues[i]) != 0) return 1;
    }
    (void)printf("%d\n", port);
    (void)fflush(stdout);
    for (int i = 0; i < QUEUES; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
