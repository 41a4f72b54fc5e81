/* http: requests over a real socket, as bytes. */
#include "server/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

static http_server *server;
static int handled;

static int ready(void *arg, text_buffer *body) {
    handled++;
    text_format(body, "%s\n", (const char *)arg);
    return 200;
}

static int unready(void *arg, text_buffer *body) {
    (void)arg;
    (void)body;
    return 503;
}

static int large(void *arg, text_buffer *body) {
    (void)arg;
    for (int i = 0; i < 100000; i++)
        text_format(body, "line %05d\n", i);
    return 200;
}

static const http_route ROUTES[] = {
    {"/live", HTTP_TEXT, ready, "fine"},
    {"/ready", HTTP_TEXT, unready, NULL},
    {"/metrics", HTTP_PROMETHEUS, large, NULL},
};
#define ROUTE_COUNT (sizeof ROUTES / sizeof *ROUTES)

static int begin(void **state) {
    (void)state;
    failure why;
    handled = 0;
    return http_server_start("127.0.0.1:0", ROUTES, ROUTE_COUNT, &server, &why) == ST_OK ? 0 : -1;
}

static int end(void **state) {
    (void)state;
    http_server_stop(server);
    return 0;
}

static int connect_to(const http_server *to) {
    struct sockaddr_in name = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)http_server_port(to)),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
    return fd;
}

/* All that the server says to `request` until it closes. */
static const char *ask(const char *request) {
    static char answer[2 << 20];
    int fd = connect_to(server);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    size_t len = 0;
    ssize_t got;
    while ((got = read(fd, answer + len, sizeof answer - 1 - len)) > 0)
        len += (size_t)got;
    answer[len] = '\0';
    close(fd);
    return answer;
}

static void assert_status(const char *answer, int status) {
    if (atoi(answer + strlen("HTTP/1.1 ")) != status) fail_msg("%.200s", answer);
}

#define CLOSE " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void get_and_head(void **state) {
    (void)state;
    const char *answer = ask("GET /live" CLOSE);
    assert_status(answer, 200);
    assert_non_null(strstr(answer, "Content-Type: text/plain; charset=utf-8\r\n"));
    assert_non_null(strstr(answer, "Content-Length: 5\r\n"));
    assert_non_null(strstr(answer, "\r\n\r\nfine\n"));
    assert_status(ask("GET /live?verbose=1" CLOSE), 200);

    answer = ask("HEAD /live" CLOSE);
    assert_status(answer, 200);
    assert_non_null(strstr(answer, "Content-Length: 5\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");

    answer = ask("GET /ready" CLOSE);
    assert_status(answer, 503);
    answer = ask("GET /metrics" CLOSE);
    assert_non_null(strstr(answer, "version=0.0.4"));
    assert_int_equal(strlen(strstr(answer, "\r\n\r\n") + 4), 1100000);
}

static void what_is_refused(void **state) {
    (void)state;
    assert_status(ask("GET /other" CLOSE), 404);
    assert_status(ask("GET /live/" CLOSE), 404);
    assert_status(ask("POST /other" CLOSE), 404);
    const char *answer = ask("POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                             "Connection: close\r\n\r\nabc");
    assert_status(answer, 405);
    assert_non_null(strstr(answer, "Allow: GET, HEAD\r\n"));
    assert_status(ask("DELETE /live" CLOSE), 405);
    assert_int_equal(handled, 0);
    assert_status(ask("GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                      "Connection: close\r\n\r\nabc"),
                  200);
}

static void a_connection_is_kept(void **state) {
    (void)state;
    int fd = connect_to(server);
    for (int i = 0; i < 3; i++) {
        static const char REQUEST[] = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
        char answer[1024] = "";
        size_t len = 0;
        assert_int_equal(write(fd, REQUEST, sizeof REQUEST - 1), sizeof REQUEST - 1);
        while (!strstr(answer, "\r\n\r\nfine\n")) {
            ssize_t got = read(fd, answer + len, sizeof answer - 1 - len);
            assert_true(got > 0);
            answer[len += (size_t)got] = '\0';
        }
    }
    close(fd);
}

static void connections_are_bounded(void **state) {
    (void)state;
    int idle[100];
    for (int i = 0; i < 100; i++)
        idle[i] = connect_to(server);
    for (int i = 0; i < 100; i++)
        close(idle[i]);
    usleep(50000);
    assert_status(ask("GET /live" CLOSE), 200);
}

static void addresses(void **state) {
    (void)state;
    static const char *const BAD[] = {"", "localhost", "unix:/x", "256.0.0.1:x", "[::1:80"};
    http_server *other;
    failure why;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        assert_int_equal(http_server_start(BAD[i], ROUTES, ROUTE_COUNT, &other, &why), ST_INVALID);
        assert_string_equal(why.field, "http.address");
    }
    char taken[32];
    (void)snprintf(taken, sizeof taken, "127.0.0.1:%d", http_server_port(server));
    assert_int_equal(http_server_start(taken, ROUTES, ROUTE_COUNT, &other, &why), ST_INVALID);
    assert_non_null(strstr(why.reason, "Address already in use"));

    assert_int_equal(http_server_start("localhost:0", ROUTES, ROUTE_COUNT, &other, &why), ST_OK);
    assert_true(http_server_port(other) > 0);
    http_server_stop(other);
    if (http_server_start("[::1]:0", ROUTES, ROUTE_COUNT, &other, &why) == ST_OK) { /* if any */
        assert_true(http_server_port(other) > 0);
        http_server_stop(other);
    }
    http_server_stop(NULL);
}

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        cmocka_unit_test_setup_teardown(get_and_head, begin, end),
        cmocka_unit_test_setup_teardown(what_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(a_connection_is_kept, begin, end),
        cmocka_unit_test_setup_teardown(connections_are_bounded, begin, end),
        cmocka_unit_test_setup_teardown(addresses, begin, end),
    };
    return cmocka_run_group_tests_name("http", TESTS, NULL, NULL);
}
