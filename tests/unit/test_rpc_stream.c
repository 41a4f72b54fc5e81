/* Streams: order, windows, half-close, cancel; and draining, which concerns them most. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <time.h>

#include "rpc_toys.h"

static int64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void say(client_call *call, int number) {
    char text[16];
    (void)snprintf(text, sizeof text, "%d", number);
    call_send(call, text, false);
    assert_true(client_wait(call->of, &call->send_tag));
}

static void expect(client_call *call, int number) {
    char *answer = call_receive(call);
    assert_non_null(answer);
    assert_int_equal(atoi(answer), number);
    free(answer);
}

static void test_chat_in_order(void **state) {
    toys *all = *state;
    client_call call;
    call_start(&call, &all->client, "/toy/Chat", -1, NULL, NULL);
    for (int i = 0; i < 2000; i++) {
        say(&call, i);
        if (i >= 5) expect(&call, i - 5);
    }
    call_half_close(&call);
    assert_true(client_wait(&all->client, &call.send_tag));
    for (int i = 1995; i < 2000; i++)
        expect(&call, i);
    assert_null(call_receive(&call));
    assert_int_equal(call_status(&call), 0);
    call_free(&call);
    toy_await_calls(all, 0);
    assert_int_equal(all->half_closes, 1);
    assert_int_equal(all->cancels, 0);
}

/* A slow handler: never more than the window in its hands. */
static void test_chat_window(void **state) {
    toys *all = *state;
    all->delay_us = 200;
    client_call call;
    call_start(&call, &all->client, "/toy/Chat", -1, NULL, NULL);
    for (int i = 0; i < 300; i++)
        say(&call, i); /* small: the connection holds them */
    call_half_close(&call);
    assert_true(client_wait(&all->client, &call.send_tag));
    for (int i = 0; i < 300; i++)
        expect(&call, i);
    assert_null(call_receive(&call));
    assert_int_equal(call_status(&call), 0);
    call_free(&call);
    assert_true(all->most_in_hand <= toys_options().stream_window);
}

/* A client that sends and never reads: the runtime stops reading it. */
static void test_chat_client_does_not_read(void **state) {
    toys *all = *state;
    client_call call;
    char *text = malloc(20001);
    memset(text, 'm', 20000);
    text[20000] = '\0';
    call_start(&call, &all->client, "/toy/Chat", -1, NULL, NULL);
    for (int i = 0;; i++) {
        call_send(&call, text, false);
        grpc_event event = grpc_completion_queue_pluck(all->client.queue, &call.send_tag,
                                                       client_in_ms(1000), NULL);
        if (event.type == GRPC_QUEUE_TIMEOUT) break;
        assert_true(i < 10000); /* 200 MB: nobody stops us */
    }
    uint32_t window = toys_options().stream_window;
    assert_true(all->most_queued <= 2 * window + 1);
    (void)grpc_call_cancel(call.core, NULL);
    (void)client_wait(&all->client, &call.send_tag);
    assert_int_equal(call_status(&call), GRPC_STATUS_CANCELLED);
    call_free(&call);
    free(text);
    toy_await_calls(all, 0);
    assert_int_equal(all->cancels, 1);
}

static void test_chat_empty(void **state) {
    toys *all = *state;
    client_call call;
    call_start(&call, &all->client, "/toy/Chat", -1, NULL, NULL);
    call_half_close(&call);
    assert_true(client_wait(&all->client, &call.send_tag));
    assert_null(call_receive(&call));
    assert_int_equal(call_status(&call), 0);
    call_free(&call);
    assert_int_equal(all->messages, 0);
}

static void test_chat_handler_ends(void **state) {
    toys *all = *state;
    client_call call;
    call_start(&call, &all->client, "/toy/Chat", -1, NULL, NULL);
    for (int i = 0; i < 5; i++)
        say(&call, i);
    call_send(&call, "stop", false);
    assert_true(client_wait(&all->client, &call.send_tag));
    for (int i = 0; i < 5; i++)
        expect(&call, i); /* all that was sent before arrives */
    assert_null(call_receive(&call));
    assert_int_equal(call_status(&call), GRPC_STATUS_ABORTED);
    assert_int_equal(grpc_slice_str_cmp(call.message, "as you wish"), 0);
    call_free(&call);
    toy_await_calls(all, 0);
    assert_int_equal(all->half_closes, 0);
}

/* The handler has messages in hand when the client goes: it answers them and ends the call. */
static void test_chat_cancelled(void **state) {
    toys *all = *state;
    toys_hold(all, true);
    client_call call;
    call_start(&call, &all->client, "/toy/Chat", -1, NULL, NULL);
    for (int i = 0; i < 6; i++)
        say(&call, i);
    toy_await(&all->messages, 6);
    (void)grpc_call_cancel(call.core, NULL);
    assert_int_equal(call_status(&call), GRPC_STATUS_CANCELLED);
    call_free(&call);
    toy_await(&all->cancels, 1);
    assert_int_equal(rpc_server_calls(all->server), 1);
    toys_hold(all, false);
    toy_await_calls(all, 0);
    assert_int_equal(all->answered, 6);
    assert_int_equal(all->cancels, 1);
    assert_int_equal(all->half_closes, 0);
}

static void test_chat_cancel_races(void **state) {
    toys *all = *state;
    for (int i = 0; i < 200; i++) {
        client_call call;
        call_start(&call, &all->client, "/toy/Chat", -1, NULL, NULL);
        for (int n = 0; n < i % 8; n++)
            say(&call, n);
        if (i % 2) usleep((useconds_t)i);
        (void)grpc_call_cancel(call.core, NULL);
        (void)call_status(&call);
        call_free(&call);
    }
    toy_await_calls(all, 0);
}

static void test_count(void **state) {
    toys *all = *state;
    client_call call;
    call_start(&call, &all->client, "/toy/Count", -1, NULL, NULL);
    call_send(&call, "1000", true);
    for (int i = 0; i < 1000; i++)
        expect(&call, i);
    assert_null(call_receive(&call));
    assert_int_equal(call_status(&call), 0);
    (void)client_wait(&all->client, &call.send_tag);
    call_free(&call);
    toy_await_calls(all, 0);
    assert_int_equal(all->cancels, 0);
}

/* ---- drain --------------------------------------------------------------------------------- */

static void *drain_main(void *argument) {
    toys *all = argument;
    rpc_server_drain(all->server, 2000);
    return NULL;
}

/* A unary call in flight gets its answer; new ones are refused. */
static void test_drain_waits(void **state) {
    toys *all = *state;
    toys_hold(all, true);
    client_call call;
    call_start(&call, &all->client, "/toy/Hold", -1, NULL, NULL);
    call_send(&call, "x", true);
    toy_await(&all->messages, 1);
    pthread_t drain;
    assert_int_equal(pthread_create(&drain, NULL, drain_main, all), 0);
    usleep(200000);
    toys_hold(all, false);
    free(call_receive(&call));
    assert_int_equal(call_status(&call), 0);
    (void)client_wait(&all->client, &call.send_tag);
    call_free(&call);
    pthread_join(drain, NULL);
    assert_int_equal(all->cancels, 0);
    grpc_status_code code;
    assert_null(call_unary(&all->client, "/toy/Echo", "x", 2000, &code));
    assert_int_equal(code, GRPC_STATUS_UNAVAILABLE);
}

/* One that is not answered within the grace is cancelled; the handler still ends it. */
static void test_drain_cancels(void **state) {
    toys *all = *state;
    toys_hold(all, true);
    client_call call;
    call_start(&call, &all->client, "/toy/Hold", -1, NULL, NULL);
    call_send(&call, "x", true);
    toy_await(&all->messages, 1);
    pthread_t drain;
    int64_t start = now_ms();
    assert_int_equal(pthread_create(&drain, NULL, drain_main, all), 0);
    toy_await(&all->cancels, 1);
    assert_true(now_ms() - start >= 1900);
    toys_hold(all, false);
    pthread_join(drain, NULL);
    assert_true(call_status(&call) != 0);
    (void)client_wait(&all->client, &call.send_tag);
    call_free(&call);
}

/* Streams that would never end are told at once, and nothing waits for the grace. */
static void test_drain_ends_streams(void **state) {
    toys *all = *state;
    client_call count, chat, idle;
    call_start(&count, &all->client, "/toy/Count", -1, NULL, NULL);
    call_send(&count, "forever", true);
    call_start(&chat, &all->client, "/toy/Chat", -1, NULL, NULL);
    say(&chat, 1);
    expect(&chat, 1);
    call_start(&idle, &all->client, "/toy/Chat", -1, NULL, NULL);
    toy_await_calls(all, 3);
    int64_t start = now_ms();
    rpc_server_drain(all->server, 20000);
    assert_true(now_ms() - start < 5000);
    assert_int_equal(call_status(&count), GRPC_STATUS_UNAVAILABLE);
    assert_int_equal(grpc_slice_str_cmp(count.message, "drained"), 0);
    assert_int_equal(call_status(&chat), 0);
    assert_int_equal(call_status(&idle), 0);
    assert_int_equal(all->cancels, 3);
    (void)client_wait(&all->client, &count.send_tag);
    call_free(&count);
    call_free(&chat);
    call_free(&idle);
}

/* A connection that never says a word does not hold it up (but it does rpc_server_free). */
static void test_drain_half_open_connection(void **state) {
    toys *all = *state;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)rpc_server_port(all->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    usleep(100000);
    int64_t start = now_ms();
    rpc_server_drain(all->server, 20000);
    assert_true(now_ms() - start < 5000);
    close(fd);
}

static void test_drain_at_once(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        const rpc_options options = toys_options();
        toys *all = toys_start(&options);
        if (i % 2) {
            grpc_status_code code;
            free(call_unary(&all->client, "/toy/Echo", "x", -1, &code));
        }
        toys_stop(all);
    }
}

/* Load while the server goes down: every call ends, whichever way. */
static void test_drain_under_load(void **state) {
    toys *all = *state;
    enum { CALLS = 400 };
    client_call *calls = calloc(CALLS, sizeof *calls);
    static const char *const PATHS[] = {"/toy/Echo", "/toy/Hold", "/toy/Chat"};
    pthread_t drain;
    for (int i = 0; i < CALLS; i++) {
        if (i == CALLS / 2) assert_int_equal(pthread_create(&drain, NULL, drain_main, all), 0);
        call_start(&calls[i], &all->client, PATHS[i % 3], 20000, NULL, NULL);
        call_send(&calls[i], "x", i % 3 != 2);
    }
    for (int i = 0; i < CALLS; i++) {
        for (char *answer; (answer = call_receive(&calls[i]));)
            free(answer);
        (void)call_status(&calls[i]);
        (void)client_wait(&all->client, &calls[i].send_tag);
        call_free(&calls[i]);
    }
    pthread_join(drain, NULL);
    assert_int_equal(rpc_server_calls(all->server), 0);
    free(calls);
}

#define WITH_TOYS(test) cmocka_unit_test_setup_teardown(test, toys_setup, toys_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_TOYS(test_chat_in_order),
        WITH_TOYS(test_chat_window),
        WITH_TOYS(test_chat_client_does_not_read),
        WITH_TOYS(test_chat_empty),
        WITH_TOYS(test_chat_handler_ends),
        WITH_TOYS(test_chat_cancelled),
        WITH_TOYS(test_chat_cancel_races),
        WITH_TOYS(test_count),
        WITH_TOYS(test_drain_waits),
        WITH_TOYS(test_drain_cancels),
        WITH_TOYS(test_drain_ends_streams),
        WITH_TOYS(test_drain_half_open_connection),
        cmocka_unit_test(test_drain_at_once),
        WITH_TOYS(test_drain_under_load),
    };
    return cmocka_run_group_tests_name("rpc streams", tests, NULL, NULL);
}
