/* The gRPC C core, blocking: a channel, a completion queue, one batch for a call. */
#include "client/ingestctl/connection.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <stdlib.h>
#include <string.h>

#include "client/publisher/options.h"
#include "client/publisher/refusal.h"

enum { TIMEOUT_MS = 30000, MAX_MESSAGE_BYTES = 64 << 20 };

const command_option CONNECTION_OPTIONS[] = {
    {"server", "HOST:PORT", "default INGEST_SERVER, then localhost:50051; unix:/path too"},
    {"timeout", "MS", "of a call, or of an event with its retries; default 30000"},
    {"tls", NULL, "TLS, with the system's certificates"},
    {"ca", "FILE", "TLS, with these certificates (PEM) of whom to believe"},
    {"cert", "FILE", "our certificate, for mutual TLS"},
    {"key", "FILE", "its key"},
    {"server-name", "NAME", "expected in the server's certificate"},
    {"token-file", "FILE", "a bearer token, sent with each call"},
    {0},
};

struct connection {
    const arguments *given;
    uint32_t timeout_ms;
    opened_options options;
    grpc_channel *channel;
    grpc_completion_queue *queue;
};

/* The first line; false: said on stderr. */
static bool read_token(const arguments *given, const char *path, const char **token) {
    static char line[8192];
    FILE *file = fopen(path, "re");
    const bool read = file && fgets(line, sizeof line, file);
    if (file) (void)fclose(file);
    if (!read) return complain(given, 0, "--token-file: cannot read %s", path);
    line[strcspn(line, "\r\n")] = '\0';
    *token = line;
    return true;
}

bool connection_options(const arguments *given, ingest_publisher_options *out) {
    uint64_t timeout_ms;
    ingest_publisher_options_init(out);
    const char *server = argument(given, "server");
    if (!server) server = getenv("INGEST_SERVER");
    out->target = server && *server ? server : "localhost:50051";
    if (!argument_number(given, "timeout", TIMEOUT_MS, 1, 24 * 3600 * 1000, &timeout_ms))
        return false;
    out->timeout_ms = (uint32_t)timeout_ms;
    out->tls = flag(given, "tls");
    out->ca_file = argument(given, "ca");
    out->certificate_file = argument(given, "cert");
    out->key_file = argument(given, "key");
    out->server_name = argument(given, "server-name");
    const char *token_file = argument(given, "token-file");
    return !token_file || read_token(given, token_file, &out->token);
}

connection *connection_open(const arguments *given) {
    ingest_publisher_options options;
    char why[512];
    if (!connection_options(given, &options)) return NULL;
    connection *it = calloc(1, sizeof *it);
    if (!it) abort();
    it->given = given;
    it->timeout_ms = options.timeout_ms;
    grpc_init();
    if (!options_open(&options, &it->options, why, sizeof why)) {
        (void)complain(given, 0, "%s", why);
        grpc_shutdown();
        free(it);
        return NULL;
    }
    grpc_arg args[] = {
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
         .value.integer = MAX_MESSAGE_BYTES},
        {.type = GRPC_ARG_STRING,
         .key = (char *)(uintptr_t)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
         .value.string = (char *)(uintptr_t)options.server_name},
    };
    const grpc_channel_args all = {.num_args = options.server_name ? 2 : 1, .args = args};
    it->channel = grpc_channel_create(options.target, it->options.credentials, &all);
    it->queue = grpc_completion_queue_create_for_pluck(NULL);
    return it;
}

void connection_close(connection *it) {
    if (!it) return;
    grpc_channel_destroy(it->channel);
    grpc_completion_queue_shutdown(it->queue);
    grpc_completion_queue_destroy(it->queue);
    options_close(&it->options);
    grpc_shutdown();
    free(it);
}

/* ---- a call -------------------------------------------------------------------------------- */

typedef struct answer {
    grpc_byte_buffer *message;
    grpc_status_code code;
    grpc_slice text;
    grpc_metadata_array head, tail;
} answer;

static int exit_code_of_call(grpc_status_code code) {
    switch (code) {
    case GRPC_STATUS_UNAVAILABLE:
    case GRPC_STATUS_DEADLINE_EXCEEDED:
    case GRPC_STATUS_CANCELLED:
        return EX_UNAVAILABLE;
    case GRPC_STATUS_NOT_FOUND:
        return EX_NOINPUT;
    case GRPC_STATUS_RESOURCE_EXHAUSTED:
        return EX_TEMPFAIL;
    case GRPC_STATUS_UNAUTHENTICATED:
    case GRPC_STATUS_PERMISSION_DENIED:
        return EX_NOPERM;
    case GRPC_STATUS_INVALID_ARGUMENT:
    case GRPC_STATUS_FAILED_PRECONDITION:
    case GRPC_STATUS_ALREADY_EXISTS:
    case GRPC_STATUS_OUT_OF_RANGE:
        return EX_DATAERR;
    case GRPC_STATUS_UNIMPLEMENTED:
        return EX_PROTOCOL;
    default:
        return EX_SOFTWARE;
    }
}

int exit_code_of(ingest_status status) {
    switch (status) {
    case INGEST_OK:
        return EX_OK;
    case INGEST_INVALID:
    case INGEST_CONFLICT:
    case INGEST_DEAD:
        return EX_DATAERR;
    case INGEST_DENIED:
        return EX_NOPERM;
    case INGEST_UNSUPPORTED:
        return EX_PROTOCOL;
    case INGEST_FAILED:
        return EX_SOFTWARE;
    default:
        return EX_UNAVAILABLE;
    }
}

static bytes bytes_of_slice(const grpc_slice *slice) {
    return bytes_of(GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
}

static int say_refused(const connection *it, const answer *got) {
    bytes details = bytes_of(NULL, 0);
    for (size_t i = 0; i < got->tail.count; i++)
        if (grpc_slice_str_cmp(got->tail.metadata[i].key, "grpc-status-details-bin") == 0)
            details = bytes_of_slice(&got->tail.metadata[i].value);
    refusal why;
    refusal_from_call((int)got->code, bytes_of_slice(&got->text), details, &why);
    char again[64] = "";
    if (why.retry_ms)
        (void)snprintf(again, sizeof again, "; try again in %.1f s", (double)why.retry_ms / 1000);
    return complain(it->given, exit_code_of_call(got->code), "%s%s%s%s%s%s", why.message,
                    why.reason[0] ? " (" : "", why.reason, why.reason[0] ? ")" : "", again,
                    got->code == GRPC_STATUS_UNIMPLEMENTED ? "; an older server, or none of ours"
                                                           : "");
}

static ProtobufCMessage *unpack(grpc_byte_buffer *from, const ProtobufCMessageDescriptor *type) {
    grpc_byte_buffer_reader reader;
    if (!from || !grpc_byte_buffer_reader_init(&reader, from)) return NULL;
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    ProtobufCMessage *message =
        protobuf_c_message_unpack(type, NULL, GRPC_SLICE_LENGTH(all), GRPC_SLICE_START_PTR(all));
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    return message;
}

static void exchange(connection *it, grpc_call *call, grpc_slice request, answer *got) {
    grpc_byte_buffer *out = grpc_raw_byte_buffer_create(&request, 1);
    grpc_metadata token = {.key = grpc_slice_from_static_string("authorization")};
    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (it->options.authorization) {
        token.value = grpc_slice_from_static_string(it->options.authorization);
        ops[0].data.send_initial_metadata.count = 1;
        ops[0].data.send_initial_metadata.metadata = &token;
    }
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = out;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &got->head;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &got->message;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &got->tail;
    ops[5].data.recv_status_on_client.status = &got->code;
    ops[5].data.recv_status_on_client.status_details = &got->text;
    if (grpc_call_start_batch(call, ops, 6, got, NULL) != GRPC_CALL_OK) abort();
    (void)grpc_completion_queue_pluck(it->queue, got, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    grpc_byte_buffer_destroy(out);
}

int connection_call(connection *it, const char *path, const ProtobufCMessage *request,
                    const ProtobufCMessageDescriptor *type, ProtobufCMessage **response) {
    answer got = {.text = grpc_empty_slice()};
    grpc_metadata_array_init(&got.head);
    grpc_metadata_array_init(&got.tail);
    const gpr_timespec deadline = gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis((int64_t)it->timeout_ms, GPR_TIMESPAN));
    grpc_call *call =
        grpc_channel_create_call(it->channel, NULL, GRPC_PROPAGATE_DEFAULTS, it->queue,
                                 grpc_slice_from_static_string(path), NULL, deadline, NULL);
    grpc_slice packed = grpc_slice_malloc(protobuf_c_message_get_packed_size(request));
    (void)protobuf_c_message_pack(request, GRPC_SLICE_START_PTR(packed));
    exchange(it, call, packed, &got);

    int code = EX_OK;
    *response = NULL;
    if (got.code != GRPC_STATUS_OK)
        code = say_refused(it, &got);
    else if (!(*response = unpack(got.message, type)))
        code = complain(it->given, EX_SOFTWARE, "the server's answer cannot be read");
    grpc_slice_unref(packed);
    grpc_slice_unref(got.text);
    if (got.message) grpc_byte_buffer_destroy(got.message);
    grpc_metadata_array_destroy(&got.head);
    grpc_metadata_array_destroy(&got.tail);
    grpc_call_unref(call);
    return code;
}
