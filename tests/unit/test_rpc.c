/* Unary calls: the answer, and all the ways in which there is none. */
#include <arpa/inet.h>
#include <sys/socket.h>

#include "rpc_toys.h"

/* ---- answers ------------------------------------------------------------------------------- */

static void test_echo(void **state) {
    toys *all = *state;
    static const size_t SIZES[] = {0, 1, 20, 21, 22, 300, 10000, 500000};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        char *text = malloc(SIZES[i] + 1);
        memset(text, 'a' + (int)i, SIZES[i]);
        text[SIZES[i]] = '\0';
        grpc_status_code code;
        char *answer = call_unary(&all->client, "/toy/Echo", text, -1, &code);
        assert_int_equal(code, 0);
        assert_string_equal(answer, text);
        free(answer);
        free(text);
    }
    toy_await_calls(all, 0);
    rpc_method_stats stats;
    rpc_server_stats(all->server, TOY_ECHO, &stats);
    assert_int_equal(stats.started, sizeof SIZES / sizeof *SIZES);
    assert_int_equal(stats.by_code[0], sizeof SIZES / sizeof *SIZES);
}

static void test_facts(void **state) {
    toys *all = *state;
    client_call call;
    for (int64_t deadline_ms = -1; deadline_ms <= 30000; deadline_ms += 30001) {
        call_start(&call, &all->client, "/toy/Facts", deadline_ms, "x-test", "abc");
        call_send(&call, "", true);
        char *answer = call_receive(&call);
        assert_int_equal(call_status(&call), 0);
        (void)client_wait(&all->client, &call.send_tag);
        assert_memory_equal(answer, "abc|", 4);
        long long left = atoll(answer + 4);
        if (deadline_ms < 0)
            assert_true(left == INT64_MAX);
        else
            assert_true(left > 20000 && left <= 31000);
        free(answer);
        call_free(&call);
    }
}

enum { PARALLEL = 1500 };

static void run_parallel(toys *all, const char *path) {
    client_call *calls = calloc(PARALLEL, sizeof *calls);
    char text[32];
    for (int i = 0; i < PARALLEL; i++) {
        (void)snprintf(text, sizeof text, "number %d", i);
        call_start(&calls[i], &all->client, path, -1, NULL, NULL);
        call_send(&calls[i], text, true);
        call_ask(&calls[i]);
    }
    toys_hold(all, false);
    for (int i = 0; i < PARALLEL; i++) {
        (void)snprintf(text, sizeof text, "number %d", i);
        char *answer = call_answer(&calls[i]);
        assert_non_null(answer);
        assert_string_equal(answer, text);
        assert_int_equal(call_status(&calls[i]), 0);
        (void)client_wait(&all->client, &calls[i].send_tag);
        free(answer);
        call_free(&calls[i]);
    }
    free(calls);
    toy_await_calls(all, 0);
}

static void test_parallel(void **state) { run_parallel(*state, "/toy/Echo"); }

static void test_parallel_from_another_thread(void **state) {
    toys_hold(*state, true);
    run_parallel(*state, "/toy/Hold");
}

/* ---- the client goes ------------------------------------------------------------------------ */

static void go_early(toys *all, int64_t deadline_ms, grpc_status_code expected) {
    client_call call;
    toys_hold(all, true);
    call_start(&call, &all->client, "/toy/Hold", deadline_ms, NULL, NULL);
    call_send(&call, "late", true);
    (void)client_wait(&all->client, &call.send_tag);
    toy_await(&all->messages, 1);
    if (deadline_ms < 0) (void)grpc_call_cancel(call.core, NULL);
    assert_int_equal(call_status(&call), expected);
    call_free(&call);
    toy_await(&all->cancels, 1);
    assert_int_equal(rpc_server_calls(all->server), 1); /* still the handler's */
    toys_hold(all, false);
    toy_await(&all->answered, 1);
    toy_await_calls(all, 0);
    assert_int_equal(all->cancels, 1);
    rpc_method_stats stats;
    rpc_server_stats(all->server, TOY_HOLD, &stats);
    assert_int_equal(stats.by_code[GRPC_STATUS_CANCELLED], 1);
}

static void test_cancel_before_reply(void **state) { go_early(*state, -1, GRPC_STATUS_CANCELLED); }

static void test_deadline_before_reply(void **state) {
    go_early(*state, 200, GRPC_STATUS_DEADLINE_EXCEEDED);
}

static void test_deadline_of_1_ms(void **state) {
    toys *all = *state;
    for (int i = 0; i < 200; i++) {
        grpc_status_code code;
        free(call_unary(&all->client, "/toy/Hold", "late", 1, &code));
        assert_true(code == GRPC_STATUS_DEADLINE_EXCEEDED || code == GRPC_STATUS_OK);
    }
    toy_await_calls(all, 0);
}

static void test_cancel_races_with_reply(void **state) {
    toys *all = *state;
    for (int i = 0; i < 500; i++) {
        client_call call;
        call_start(&call, &all->client, "/toy/Hold", -1, NULL, NULL);
        call_send(&call, "race", true);
        (void)client_wait(&all->client, &call.send_tag);
        if (i % 3) usleep((useconds_t)(i % 150));
        (void)grpc_call_cancel(call.core, NULL);
        (void)call_status(&call);
        call_free(&call);
    }
    toy_await_calls(all, 0);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void test_too_large(void **state) {
    toys *all = *state;
    char *text = malloc((2 << 20) + 1);
    memset(text, 'x', 2 << 20);
    text[2 << 20] = '\0';
    grpc_status_code code;
    assert_null(call_unary(&all->client, "/toy/Echo", text, -1, &code));
    assert_int_equal(code, GRPC_STATUS_RESOURCE_EXHAUSTED);
    free(text);
    toy_await_calls(all, 0);
}

static void test_unknown_method(void **state) {
    toys *all = *state;
    for (int i = 0; i < 100; i++) { /* more than are armed */
        grpc_status_code code;
        assert_null(call_unary(&all->client, "/toy/Nothing", "x", 10000, &code));
        assert_int_equal(code, GRPC_STATUS_UNIMPLEMENTED);
    }
    toy_await_calls(all, 0);
}

static void test_no_message(void **state) {
    toys *all = *state;
    client_call call;
    call_start(&call, &all->client, "/toy/Echo", 10000, NULL, NULL);
    call_half_close(&call);
    assert_null(call_receive(&call));
    assert_int_equal(call_status(&call), GRPC_STATUS_UNIMPLEMENTED);
    (void)client_wait(&all->client, &call.send_tag);
    call_free(&call);
    toy_await_calls(all, 0);
}

static void test_compressed_is_refused(void **state) {
    toys *all = *state;
    client_call call;
    char text[4000] = "";
    memset(text, 'z', sizeof text - 1);
    call_start(&call, &all->client, "/toy/Echo", 10000, "grpc-internal-encoding-request", "gzip");
    call_send(&call, text, true);
    free(call_receive(&call));
    assert_int_equal(call_status(&call), GRPC_STATUS_UNIMPLEMENTED);
    (void)client_wait(&all->client, &call.send_tag);
    call_free(&call);
    toy_await_calls(all, 0);
}

static bool contains(bytes in, const char *text) {
    return in.len && memmem(in.data, in.len, text, strlen(text)) != NULL;
}

static void test_max_calls(void **state) {
    (void)state;
    rpc_options options = toys_options();
    options.max_calls = 3;
    toys *all = toys_start(&options);
    toys_hold(all, true);
    client_call calls[4];
    for (int i = 0; i < 4; i++) {
        call_start(&calls[i], &all->client, "/toy/Hold", 30000, NULL, NULL);
        call_send(&calls[i], "x", true);
        (void)client_wait(&all->client, &calls[i].send_tag);
        if (i < 3) toy_await(&all->messages, (uint32_t)i + 1);
    }
    assert_int_equal(call_status(&calls[3]), GRPC_STATUS_RESOURCE_EXHAUSTED);
    bytes details = call_trailer(&calls[3], "grpc-status-details-bin");
    assert_true(contains(details, "google.rpc.RetryInfo"));
    assert_true(contains(details, "OVERLOADED"));
    toys_hold(all, false);
    for (int i = 0; i < 3; i++) {
        free(call_receive(&calls[i]));
        assert_int_equal(call_status(&calls[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        call_free(&calls[i]);
    toy_await_calls(all, 0);
    toys_stop(all);
}

/* ---- connections ----------------------------------------------------------------------------- */

static int tcp_connect(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static void assert_serves(toys *all) {
    grpc_status_code code;
    char *answer = call_unary(&all->client, "/toy/Echo", "still there", 30000, &code);
    assert_int_equal(code, 0);
    assert_string_equal(answer, "still there");
    free(answer);
    toy_await_calls(all, 0);
}

static void test_random_bytes(void **state) {
    toys *all = *state;
    static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    unsigned seed = 7;
    for (int i = 0; i < 200; i++) {
        int fd = tcp_connect(rpc_server_port(all->server));
        assert_true(fd >= 0);
        uint8_t noise[512];
        for (size_t n = 0; n < sizeof noise; n++)
            noise[n] = (uint8_t)rand_r(&seed);
        if (i % 2) (void)send(fd, PREFACE, sizeof PREFACE - 1, MSG_NOSIGNAL);
        (void)send(fd, noise, (size_t)rand_r(&seed) % sizeof noise, MSG_NOSIGNAL);
        close(fd);
    }
    assert_serves(all);
}

/* A good request, cut after every byte. */
static void test_truncated_frames(void **state) {
    toys *all = *state;
    static const uint8_t REQUEST[] =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        /* HEADERS, END_HEADERS, stream 1: :method POST, :scheme http, :path, te, content-type */
        "\x00\x00\x3e\x01\x04\x00\x00\x00\x01"
        "\x83\x86\x44\x09/toy/Echo\x41\x09localhost"
        "\x40\x02te\x08trailers\x5f\x10"
        "application/grpc\x00\x00\x00\x00"
        /* DATA, END_STREAM: length-prefixed message "a" */
        "\x00\x00\x08\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x03\x0a\x01"
        "a";
    for (size_t len = 0; len < sizeof REQUEST; len++) {
        int fd = tcp_connect(rpc_server_port(all->server));
        assert_true(fd >= 0);
        (void)send(fd, REQUEST, len, MSG_NOSIGNAL);
        close(fd);
    }
    assert_serves(all);
}

static void test_connections_opened_and_dropped(void **state) {
    toys *all = *state;
    for (int i = 0; i < 2000; i++) {
        int fd = tcp_connect(rpc_server_port(all->server));
        assert_true(fd >= 0);
        close(fd);
    }
    assert_serves(all);
}

static void test_clients_dropped_with_calls(void **state) {
    toys *all = *state;
    toys_hold(all, true);
    for (uint32_t i = 0; i < 20; i++) {
        client one = client_open_port(rpc_server_port(all->server));
        client_call call;
        call_start(&call, &one, "/toy/Hold", -1, NULL, NULL);
        call_send(&call, "x", true);
        (void)client_wait(&one, &call.send_tag);
        toy_await(&all->messages, i + 1);
        (void)grpc_call_cancel(call.core, NULL);
        (void)call_status(&call);
        call_free(&call);
        client_close(&one);
    }
    toy_await(&all->cancels, 20);
    toys_hold(all, false);
    toy_await_calls(all, 0);
    assert_serves(all);
}

/* ---- start ----------------------------------------------------------------------------------- */

static void test_port_in_use(void **state) {
    toys *all = *state;
    char address[64];
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(all->server));
    rpc_options options = toys_options();
    options.address = address;
    rpc_server *second = NULL;
    failure why;
    assert_int_equal(rpc_server_start(&options, all->methods, 1, &second, &why), ST_INVALID);
    assert_string_equal(why.field, "listen.address");
    assert_null(second);
}

static void test_bad_method_table(void **state) {
    toys *all = *state;
    rpc_method twice[2] = {all->methods[0], all->methods[0]};
    rpc_method stream = all->methods[TOY_COUNT];
    stream.on_cancel = NULL;
    rpc_options options = toys_options();
    rpc_server *server = NULL;
    failure why;
    assert_int_equal(rpc_server_start(&options, twice, 2, &server, &why), ST_INTERNAL);
    assert_int_equal(rpc_server_start(&options, &stream, 1, &server, &why), ST_INTERNAL);
    assert_null(server);
}

static void test_unix_socket(void **state) {
    (void)state;
    char address[64];
    (void)snprintf(address, sizeof address, "unix:/tmp/test_rpc.%d.sock", (int)getpid());
    rpc_options options = toys_options();
    options.address = address;
    toys *all = toys_start(&options);
    assert_int_equal(rpc_server_port(all->server), 0);
    assert_serves(all);
    toys_stop(all);
}

#define WITH_TOYS(test) cmocka_unit_test_setup_teardown(test, toys_setup, toys_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_TOYS(test_echo),
        WITH_TOYS(test_facts),
        WITH_TOYS(test_parallel),
        WITH_TOYS(test_parallel_from_another_thread),
        WITH_TOYS(test_cancel_before_reply),
        WITH_TOYS(test_deadline_before_reply),
        WITH_TOYS(test_deadline_of_1_ms),
        WITH_TOYS(test_cancel_races_with_reply),
        WITH_TOYS(test_too_large),
        WITH_TOYS(test_unknown_method),
        WITH_TOYS(test_no_message),
        WITH_TOYS(test_compressed_is_refused),
        cmocka_unit_test(test_max_calls),
        WITH_TOYS(test_random_bytes),
        WITH_TOYS(test_truncated_frames),
        WITH_TOYS(test_connections_opened_and_dropped),
        WITH_TOYS(test_clients_dropped_with_calls),
        WITH_TOYS(test_port_in_use),
        WITH_TOYS(test_bad_method_table),
        cmocka_unit_test(test_unix_socket),
    };
    return cmocka_run_group_tests_name("rpc", tests, NULL, NULL);
}
