/* Reflection, both versions, over the descriptor set of this very program. */
#include <setjmp.h>
#include <stdarg.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "rpc_client.h"
#include "server/codec.h"
#include "server/reflection_service.h"

#include <cmocka.h> /* last: it has a macro `fail` */

typedef Grpc__Reflection__V1__ServerReflectionRequest request_type;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_type;
#define ASK(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define GOT(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

typedef struct fixture {
    reflection_service *reflection;
    rpc_server *server;
    client client;
    rpc_method methods[REFLECTION_METHODS];
    client_call call;
} fixture;

static const char *const SERVICES[] = {"ingest.v1.IngestService", "grpc.health.v1.Health",
                                       "not.in.the.Set"};

static int setup(void **state) {
    fixture *all = calloc(1, sizeof *all);
    const rpc_options options = {.address = "127.0.0.1:0",
                                 .threads = 1,
                                 .max_message_bytes = 1 << 20,
                                 .max_metadata_bytes = 16 << 10,
                                 .max_concurrent_streams = 100,
                                 .max_calls = 100,
                                 .handshake_timeout_ms = 10000,
                                 .stream_window = 4};
    failure why;
    if (reflection_new(bytes_of(ingest_descriptor_set, ingest_descriptor_set_size), SERVICES, 3,
                       &all->reflection, &why) != ST_OK)
        return 1;
    size_t count = reflection_methods(all->reflection, all->methods);
    if (rpc_server_start(&options, all->methods, count, &all->server, &why) != ST_OK) return 1;
    all->client = client_open_port(rpc_server_port(all->server));
    *state = all;
    return 0;
}

static int teardown(void **state) {
    fixture *all = *state;
    rpc_server_drain(all->server, 5000);
    rpc_server_free(all->server);
    client_close(&all->client);
    reflection_free(all->reflection);
    free(all);
    return 0;
}

static void begin(fixture *all, const char *package) {
    char path[96];
    (void)snprintf(path, sizeof path, "/%s.ServerReflection/ServerReflectionInfo", package);
    call_start(&all->call, &all->client, path, 30000, NULL, NULL);
}

static void end(fixture *all) {
    call_half_close(&all->call);
    (void)client_wait(&all->client, &all->call.send_tag);
    assert_null(call_receive(&all->call));
    assert_int_equal(call_status(&all->call), 0);
    call_free(&all->call);
}

static response_type *ask(fixture *all, int what, const char *text) {
    request_type request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    request.host = (char *)"here";
    request.message_request_case = what;
    request.file_by_filename = (char *)text; /* all the text fields share their place */
    uint8_t packed[1024];
    size_t size = grpc__reflection__v1__server_reflection_request__pack(&request, packed);
    call_send_raw(&all->call, bytes_of(packed, size), false);
    assert_true(client_wait(&all->client, &all->call.send_tag));
    call_ask(&all->call);
    (void)client_wait(&all->client, &all->call.receive_tag);
    assert_non_null(all->call.received);
    grpc_byte_buffer_reader reader;
    assert_true(grpc_byte_buffer_reader_init(&reader, all->call.received));
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    response_type *response = grpc__reflection__v1__server_reflection_response__unpack(
        NULL, GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(all->call.received);
    all->call.received = NULL;
    assert_non_null(response);
    assert_string_equal(response->valid_host, "here");
    assert_int_equal((int)response->original_request->message_request_case, what);
    return response;
}

static void release(response_type *response) {
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
}

static void expect_error(fixture *all, int what, const char *text, int code) {
    response_type *response = ask(all, what, text);
    assert_int_equal((int)response->message_response_case, (int)GOT(ERROR_RESPONSE));
    assert_int_equal(response->error_response->error_code, code);
    release(response);
}

/* Expects a file called `name` first, and `count` in all. */
static void expect_files(fixture *all, int what, const char *text, const char *name, size_t count) {
    response_type *response = ask(all, what, text);
    assert_int_equal((int)response->message_response_case, (int)GOT(FILE_DESCRIPTOR_RESPONSE));
    const Grpc__Reflection__V1__FileDescriptorResponse *files = response->file_descriptor_response;
    assert_int_equal(files->n_file_descriptor_proto, count);
    bytes first =
        bytes_of(files->file_descriptor_proto[0].data, files->file_descriptor_proto[0].len);
    bytes body;
    unsigned occurs;
    assert_true(codec_find_field(first, 1, &body, &occurs));
    assert_true(bytes_equal(body, bytes_of_string(name)));
    release(response);
}

static void ask_all(fixture *all, const char *package) {
    begin(all, package);
    response_type *response = ask(all, ASK(LIST_SERVICES), "");
    assert_int_equal((int)response->message_response_case, (int)GOT(LIST_SERVICES_RESPONSE));
    assert_int_equal(response->list_services_response->n_service, 2);
    assert_string_equal(response->list_services_response->service[0]->name, SERVICES[0]);
    assert_string_equal(response->list_services_response->service[1]->name, SERVICES[1]);
    release(response);

    const int symbol = ASK(FILE_CONTAINING_SYMBOL), file = ASK(FILE_BY_FILENAME);
    expect_files(all, symbol, "ingest.v1.Event", "ingest/v1/events.proto", 3);
    expect_files(all, symbol, "ingest.v1.Event.AttributesEntry", "ingest/v1/events.proto", 3);
    expect_files(all, symbol, "ingest.v1.AckMode", "ingest/v1/ingest_service.proto", 6);
    expect_files(all, symbol, "ingest.v1.IngestService", "ingest/v1/ingest_service.proto", 6);
    expect_files(all, symbol, "ingest.v1.IngestService.Publish", "ingest/v1/ingest_service.proto",
                 6);
    expect_files(all, symbol, "grpc.health.v1.HealthCheckResponse.ServingStatus",
                 "grpc/health/v1/health.proto", 1);
    expect_files(all, file, "google/protobuf/struct.proto", "google/protobuf/struct.proto", 1);
    expect_error(all, symbol, "ingest.v1.Nothing", GRPC_STATUS_NOT_FOUND);
    expect_error(all, symbol, "", GRPC_STATUS_NOT_FOUND);
    expect_error(all, file, "nothing.proto", GRPC_STATUS_NOT_FOUND);
    expect_error(all, ASK(ALL_EXTENSION_NUMBERS_OF_TYPE), "x.Y", GRPC_STATUS_NOT_FOUND);
    expect_error(all, GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET, "",
                 GRPC_STATUS_INVALID_ARGUMENT);
    response = ask(all, ASK(ALL_EXTENSION_NUMBERS_OF_TYPE), "ingest.v1.Event");
    assert_int_equal((int)response->message_response_case,
                     (int)GOT(ALL_EXTENSION_NUMBERS_RESPONSE));
    release(response);
    end(all);
}

static void test_v1(void **state) { ask_all(*state, "grpc.reflection.v1"); }

static void test_v1alpha(void **state) { ask_all(*state, "grpc.reflection.v1alpha"); }

static void test_bad_request(void **state) {
    fixture *all = *state;
    begin(all, "grpc.reflection.v1");
    call_send_raw(&all->call, bytes_of("\x22\x05\xff", 3), false);
    assert_true(client_wait(&all->client, &all->call.send_tag));
    assert_null(call_receive(&all->call));
    assert_int_equal(call_status(&all->call), GRPC_STATUS_INVALID_ARGUMENT);
    call_free(&all->call);
}

static void test_bad_descriptor_set(void **state) {
    (void)state;
    reflection_service *reflection;
    failure why;
    for (size_t len = 0; len < ingest_descriptor_set_size; len += 97) {
        uint8_t *cut = malloc(len + 1);
        memcpy(cut, ingest_descriptor_set, len);
        if (reflection_new(bytes_of(cut, len), SERVICES, 3, &reflection, &why) == ST_OK)
            reflection_free(reflection); /* cut between two files */
        free(cut);
    }
    assert_int_equal(reflection_new(bytes_of("\x0a\x05", 2), SERVICES, 3, &reflection, &why),
                     ST_CORRUPT);
    assert_null(reflection);
}

#define WITH_REFLECTION(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_REFLECTION(test_v1),
        WITH_REFLECTION(test_v1alpha),
        WITH_REFLECTION(test_bad_request),
        cmocka_unit_test(test_bad_descriptor_set),
    };
    return cmocka_run_group_tests_name("reflection", tests, NULL, NULL);
}
