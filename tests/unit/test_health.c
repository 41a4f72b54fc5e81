/* grpc.health.v1 as clients and probes use it. */
#include <grpc/byte_buffer_reader.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include "rpc_client.h"
#include "server/health_service.h"

#include <cmocka.h> /* last: it has a macro `fail` */

enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3, ENDED = -1 };

typedef struct fixture {
    health_service *health;
    rpc_server *server;
    client client;
    rpc_method methods[HEALTH_METHODS];
} fixture;

static int setup(void **state) {
    fixture *all = calloc(1, sizeof *all);
    all->health = health_new();
    const rpc_options options = {.address = "127.0.0.1:0",
                                 .threads = 2,
                                 .max_message_bytes = 1 << 20,
                                 .max_metadata_bytes = 16 << 10,
                                 .max_concurrent_streams = 1000,
                                 .max_calls = 1000,
                                 .handshake_timeout_ms = 10000,
                                 .stream_window = 1};
    failure why;
    size_t count = health_methods(all->health, all->methods);
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
    health_free(all->health);
    free(all);
    return 0;
}

/* The next state of a watch, or the answer to a check; ENDED when there is none. */
static int next_status(client_call *call) {
    call_ask(call);
    (void)client_wait(call->of, &call->receive_tag);
    if (!call->received) return ENDED;
    grpc_byte_buffer_reader reader; /* two bytes may come in two slices */
    assert_true(grpc_byte_buffer_reader_init(&reader, call->received));
    grpc_slice body = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    Grpc__Health__V1__HealthCheckResponse *response =
        grpc__health__v1__health_check_response__unpack(NULL, GRPC_SLICE_LENGTH(body),
                                                        GRPC_SLICE_START_PTR(body));
    grpc_slice_unref(body);
    assert_non_null(response);
    int status = (int)response->status;
    grpc__health__v1__health_check_response__free_unpacked(response, NULL);
    grpc_byte_buffer_destroy(call->received);
    call->received = NULL;
    return status;
}

static void start_call(client_call *call, fixture *all, const char *method, const char *name) {
    char path[64];
    (void)snprintf(path, sizeof path, "/grpc.health.v1.Health/%s", method);
    call_start(call, &all->client, path, 30000, NULL, NULL);
    call_send(call, name, true);
    (void)client_wait(&all->client, &call->send_tag);
}

static int check(fixture *all, const char *name, grpc_status_code *code) {
    client_call call;
    start_call(&call, all, "Check", name);
    int status = next_status(&call);
    *code = call_status(&call);
    call_free(&call);
    return status;
}

static void test_check(void **state) {
    fixture *all = *state;
    grpc_status_code code;
    assert_int_equal(check(all, "", &code), ENDED);
    assert_int_equal(code, GRPC_STATUS_NOT_FOUND);
    health_set(all->health, "", true);
    health_set(all->health, "some.Service", false);
    assert_int_equal(check(all, "", &code), SERVING);
    assert_int_equal(code, GRPC_STATUS_OK);
    assert_int_equal(check(all, "some.Service", &code), NOT_SERVING);
    assert_int_equal(check(all, "other.Service", &code), ENDED);
    assert_int_equal(code, GRPC_STATUS_NOT_FOUND);
    health_shutdown(all->health);
    health_set(all->health, "", true); /* too late */
    assert_int_equal(check(all, "", &code), NOT_SERVING);

    char name[HEALTH_NAME_MAX + 1];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(check(all, name, &code), ENDED);
    assert_int_equal(code, GRPC_STATUS_INVALID_ARGUMENT);
}

static void test_watch(void **state) {
    fixture *all = *state;
    client_call call;
    start_call(&call, all, "Watch", "some.Service");
    assert_int_equal(next_status(&call), SERVICE_UNKNOWN);
    health_set(all->health, "some.Service", false);
    assert_int_equal(next_status(&call), NOT_SERVING);
    health_set(all->health, "some.Service", false); /* no change, no message */
    health_set(all->health, "another.Service", true);
    health_set(all->health, "some.Service", true);
    assert_int_equal(next_status(&call), SERVING);
    health_shutdown(all->health);
    assert_int_equal(next_status(&call), NOT_SERVING);
    rpc_server_drain(all->server, 10000); /* ends it; the grace is not used up */
    assert_int_equal(next_status(&call), ENDED);
    assert_int_equal(call_status(&call), GRPC_STATUS_UNAVAILABLE);
    call_free(&call);
}

/* A watcher that sleeps through many changes is told the last one, and few of the others. */
static void test_watch_gets_the_latest(void **state) {
    fixture *all = *state;
    health_set(all->health, "", false);
    client_call call;
    start_call(&call, all, "Watch", "");
    int last = next_status(&call);
    assert_int_equal(last, NOT_SERVING);
    for (int i = 0; i < 100000; i++)
        health_set(all->health, "", i % 2 == 0);
    health_set(all->health, "end", true); /* nothing to this watcher */
    health_shutdown(all->health);         /* the state is NOT_SERVING already */
    rpc_server_drain(all->server, 10000); /* ends the watch behind what was queued */
    int told = 0;
    for (int status; (status = next_status(&call)) != ENDED; last = status, told++)
        assert_int_not_equal(status, last);
    assert_int_equal(last, NOT_SERVING);
    assert_true(told < 100000);
    assert_int_equal(call_status(&call), GRPC_STATUS_UNAVAILABLE);
    call_free(&call);
}

static void test_watchers_are_bounded(void **state) {
    fixture *all = *state;
    enum { CALLS = HEALTH_WATCHERS_MAX + 1 };
    client_call *calls = calloc(CALLS, sizeof *calls);
    for (int i = 0; i < CALLS; i++) {
        start_call(&calls[i], all, "Watch", "x");
        if (i < HEALTH_WATCHERS_MAX) assert_int_equal(next_status(&calls[i]), SERVICE_UNKNOWN);
    }
    assert_int_equal(call_status(&calls[CALLS - 1]), GRPC_STATUS_RESOURCE_EXHAUSTED);
    for (int i = 0; i < CALLS - 1; i++) {
        (void)grpc_call_cancel(calls[i].core, NULL);
        (void)call_status(&calls[i]);
    }
    for (int i = 0; i < CALLS; i++)
        call_free(&calls[i]);
    for (int i = 0; i < 10000 && rpc_server_calls(all->server); i++)
        usleep(1000);
    start_call(&calls[0], all, "Watch", "x"); /* there is room again */
    assert_int_equal(next_status(&calls[0]), SERVICE_UNKNOWN);
    (void)grpc_call_cancel(calls[0].core, NULL);
    (void)call_status(&calls[0]);
    call_free(&calls[0]);
    free(calls);
}

static void *toggle(void *argument) {
    health_service *health = argument;
    for (int i = 0; i < 3000; i++)
        health_set(health, "x", i % 2);
    return NULL;
}

/* Watches come and go while states change. */
static void test_races(void **state) {
    fixture *all = *state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, toggle, all->health), 0);
    for (int i = 0; i < 100; i++) {
        client_call call;
        start_call(&call, all, "Watch", "x");
        if (i % 2) (void)next_status(&call);
        (void)grpc_call_cancel(call.core, NULL);
        (void)call_status(&call);
        call_free(&call);
    }
    pthread_join(thread, NULL);
}

#define WITH_HEALTH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_HEALTH(test_check),
        WITH_HEALTH(test_watch),
        WITH_HEALTH(test_watch_gets_the_latest),
        WITH_HEALTH(test_watchers_are_bounded),
        WITH_HEALTH(test_races),
    };
    return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
