/*
 * loader: events against a server, by HTTP/2 itself, so that little of the machine goes to the
 * client. Closed loop; every event has an id of its own; every answer is looked at. One thread.
 *
 *   loader HOST:PORT unary|batch|stream CONNECTIONS IN_FLIGHT EVENTS EVENT_FILE [BATCH]
 *   loader HOST:PORT idle CONNECTIONS STREAMS
 *
 * EVENT_FILE holds an encoded Event; where ID_MARK stands in it, each event gets its id. IN_FLIGHT
 * counts calls a connection (unary, batch), or events unanswered on its one stream. Prints a line
 * of JSON; the latency of an event is that of its call, or from its sending to its result. Idle:
 * streams that are open and send nothing; says "open" when they are, and holds them until its input
 * ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client/ingestctl/latency.h"

enum { PREFIX = 5, ID_SIZE = 36, READ_SIZE = 256 << 10, WINDOW = 1 << 30, REPLY_MAX = 1 << 20 };

static const char ID_MARK[] = "00000000-0000-7000-8000-000000000000";

typedef enum method { UNARY, BATCH, STREAM, IDLE } method;
static const char *const PATHS[] = {
    [UNARY] = "/ingest.v1.IngestService/Publish",
    [BATCH] = "/ingest.v1.IngestService/PublishBatch",
    [STREAM] = "/ingest.v1.IngestService/PublishStream",
    [IDLE] = "/ingest.v1.IngestService/PublishStream",
};

typedef struct connection connection;

typedef struct request { /* a call; its buffers are used again by the next */
    connection *on;
    uint8_t *message; /* with prefix */
    size_t size, sent;
    int64_t began_us;
    bool ok; /* grpc-status 0 was seen */
    uint8_t *reply;
    size_t reply_size;
    /* STREAM */
    int64_t *sent_us; /* ring of IN_FLIGHT */
    uint64_t events, answered;
    bool starved;
} request;

struct connection {
    int socket;
    nghttp2_session *session;
    request *requests;
    bool writing; /* EPOLLOUT is asked for */
};

static method kind;
static size_t in_flight, batch = 1;
static uint64_t wanted, begun, done, failed;
static uint8_t *model; /* a message with its prefix, the ids still to be set */
static size_t model_size;
static size_t *id_at; /* in the model; `batch` of them, or none */
static size_t id_count;
static latency times;
static int poll_fd;

static void die(const char *what) {
    (void)fprintf(stderr, "loader: %s\n", what);
    exit(1);
}

static int64_t now_us(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void answered(bool ok, int64_t since_us, uint64_t events) {
    done += events;
    if (!ok) failed += events;
    latency_add(&times, (uint64_t)(now_us() - since_us), events);
}

/* ---- messages ------------------------------------------------------------------------------ */

/* As UUIDv7 (RFC 9562): milliseconds, then random bits. */
static void write_id(uint8_t *out) {
    static uint64_t state;
    if (!state && getrandom(&state, sizeof state, 0) != sizeof state) die("no random bits");
    uint64_t mixed = (state += 0x9E3779B97F4A7C15); /* splitmix64 */
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB;
    mixed ^= mixed >> 31;
    struct timespec time;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &time);
    uint64_t ms = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
    static const char HEX[] = "0123456789abcdef";
    char digits[30]; /* all but the version and the variant */
    for (int i = 11; i >= 0; i--, ms >>= 4)
        digits[i] = HEX[ms & 15];
    for (int i = 12; i < 30; i++)
        digits[i] = HEX[mixed >> (i * 4 % 64) & 15];
    for (int i = 0, from = 0; i < ID_SIZE; i++)
        if (i != 8 && i != 13 && i != 14 && i != 18 && i != 19 && i != 23)
            out[i] = (uint8_t)digits[from++];
}

static size_t put_varint(uint8_t *out, size_t value) {
    size_t size = 0;
    for (; value >= 128; value >>= 7)
        out[size++] = (uint8_t)(value | 128);
    out[size++] = (uint8_t)value;
    return size;
}

/* PublishRequest and PublishBatchRequest alike: field 1 is an Event. */
static void make_model(const char *file) {
    uint8_t event[1 << 20];
    FILE *in = fopen(file, "rb");
    if (!in) die("cannot read the event");
    size_t size = fread(event, 1, sizeof event, in);
    (void)fclose(in);
    uint8_t *mark = memmem(event, size, ID_MARK, ID_SIZE);
    model = malloc(PREFIX + batch * (size + 11));
    id_at = calloc(batch, sizeof *id_at);
    if (!model || !id_at) die("no memory");
    size_t at = PREFIX;
    for (size_t i = 0; i < batch; i++) {
        model[at++] = 1 << 3 | 2;
        at += put_varint(model + at, size);
        if (mark) id_at[id_count++] = at + (size_t)(mark - event);
        memcpy(model + at, event, size);
        at += size;
    }
    uint32_t length = htonl((uint32_t)(at - PREFIX));
    model[0] = 0;
    memcpy(model + 1, &length, 4);
    model_size = at;
}

static void renew(request *it) {
    for (size_t i = 0; i < id_count; i++)
        write_id(it->message + id_at[i]);
    it->sent = 0;
    begun += batch;
}

/* Counts the results in a reply (field 1, each) and those that are an error (their field 2). */
static void read_results(const uint8_t *at, const uint8_t *end, uint64_t *results,
                         uint64_t *errors) {
    while (at < end && *at == (1 << 3 | 2)) {
        size_t size = 0;
        int shift = 0;
        do
            size |= (size_t)(*++at & 127) << shift, shift += 7;
        while (*at & 128);
        at++;
        ++*results;
        if (size && *at == (2 << 3 | 2)) ++*errors;
        at += size;
    }
}

/* ---- HTTP/2 -------------------------------------------------------------------------------- */

static ssize_t give_data(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room,
                         uint32_t *flags, nghttp2_data_source *source, void *arg) {
    (void)session, (void)stream, (void)arg;
    request *it = source->ptr;
    size_t size = 0;
    while (size < room) {
        if (it->sent == it->size) {
            if (kind == IDLE) return NGHTTP2_ERR_DEFERRED;
            if (kind != STREAM || begun >= wanted) {
                *flags |= NGHTTP2_DATA_FLAG_EOF;
                return (ssize_t)size;
            }
            it->starved = it->events - it->answered == in_flight;
            if (it->starved) break;
            renew(it);
            it->sent_us[it->events++ % in_flight] = now_us();
        }
        size_t part = it->size - it->sent < room - size ? it->size - it->sent : room - size;
        memcpy(out + size, it->message + it->sent, part);
        it->sent += part;
        size += part;
    }
    if (kind != STREAM && it->sent == it->size) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return size ? (ssize_t)size : NGHTTP2_ERR_DEFERRED;
}

#define HEADER(name, value)                                                                        \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(name), (uint8_t *)(uintptr_t)(value), strlen(name), strlen(value),  \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                           \
    }

static void begin(request *it) {
    const nghttp2_nv headers[] = {
        HEADER(":method", "POST"),     HEADER(":scheme", "http"),
        HEADER(":path", PATHS[kind]),  HEADER(":authority", "loader"),
        HEADER("te", "trailers"),      HEADER("content-type", "application/grpc"),
        HEADER("user-agent", "loader")};
    const nghttp2_data_provider body = {.source = {.ptr = it}, .read_callback = give_data};
    it->ok = false;
    it->reply_size = 0;
    it->began_us = now_us();
    it->sent = it->size;
    if (kind == UNARY || kind == BATCH) renew(it);
    if (nghttp2_submit_request(it->on->session, NULL, headers, sizeof headers / sizeof *headers,
                               &body, it) < 0)
        die("cannot begin a call");
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *arg) {
    (void)flags, (void)arg;
    request *it = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (it && name_size == 11 && memcmp(name, "grpc-status", 11) == 0)
        it->ok = value_size == 1 && *value == '0';
    return 0;
}

static void take_results(request *it) {
    uint32_t length;
    while (it->reply_size >= PREFIX) {
        memcpy(&length, it->reply + 1, 4);
        size_t size = PREFIX + ntohl(length);
        if (it->reply_size < size) break;
        uint64_t results = 0, errors = 0;
        read_results(it->reply + PREFIX, it->reply + size, &results, &errors);
        for (uint64_t i = 0; i < results; i++)
            answered(i >= errors, it->sent_us[it->answered++ % in_flight], 1);
        it->reply_size -= size;
        memmove(it->reply, it->reply + size, it->reply_size);
    }
    if (!it->starved) return;
    it->starved = false;
    (void)nghttp2_session_resume_data(it->on->session, 1);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *arg) {
    (void)flags, (void)arg;
    request *it = nghttp2_session_get_stream_user_data(session, stream);
    if (!it || !it->reply) return 0;
    if (it->reply_size + size > REPLY_MAX) die("a reply is too large");
    memcpy(it->reply + it->reply_size, data, size);
    it->reply_size += size;
    if (kind == STREAM) take_results(it);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *arg) {
    (void)arg;
    request *it = nghttp2_session_get_stream_user_data(session, stream);
    if (!it) return 0;
    if (kind == IDLE) die("an idle stream ended");
    if (kind == STREAM) {
        if (error || !it->ok || it->answered != it->events) die("a stream ended early");
        return 0;
    }
    uint64_t results = 0, errors = 0;
    if (kind == BATCH && it->reply_size > PREFIX)
        read_results(it->reply + PREFIX, it->reply + it->reply_size, &results, &errors);
    bool ok = it->ok && (kind == UNARY || (results == batch && errors == 0));
    answered(ok, it->began_us, batch);
    if (begun < wanted) begin(it);
    return 0;
}

/* ---- connections --------------------------------------------------------------------------- */

static void flush(connection *it) {
    bool blocked = false;
    while (!blocked && nghttp2_session_want_write(it->session)) {
        static uint8_t gathered[READ_SIZE];
        static const uint8_t *rest;
        size_t size = 0;
        ssize_t got = 0;
        while (size < sizeof gathered / 2 &&
               (got = nghttp2_session_mem_send(it->session, &rest)) > 0) {
            memcpy(gathered + size, rest, (size_t)got); /* a frame is 16 KiB and a header at most */
            size += (size_t)got;
        }
        if (got < 0) die(nghttp2_strerror((int)got));
        if (size == 0) break;
        for (size_t sent = 0; sent < size;) {
            ssize_t wrote = send(it->socket, gathered + sent, size - sent, MSG_NOSIGNAL);
            if (wrote < 0 && errno != EAGAIN) die("a connection is lost");
            if (wrote > 0) sent += (size_t)wrote;
            if (wrote < 0) { /* rare: the server is behind; what it says is read meanwhile */
                struct timespec pause = {.tv_nsec = 20000};
                (void)nanosleep(&pause, NULL);
            }
        }
    }
}

static void take(connection *it) {
    static uint8_t buffer[READ_SIZE];
    ssize_t got = recv(it->socket, buffer, sizeof buffer, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) die("a connection is lost");
    if (got > 0 && nghttp2_session_mem_recv(it->session, buffer, (size_t)got) < 0)
        die("the server speaks no HTTP/2");
}

static void open_socket(connection *it, const char *target) {
    char host[64];
    int port = 0;
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (sscanf(target, "%63[^:]:%d", host, &port) != 2 ||
        inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("the target is not an IPv4 address with port");
    address.sin_port = htons((uint16_t)port);
    it->socket = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    if (connect(it->socket, (struct sockaddr *)&address, sizeof address) != 0)
        die("cannot connect");
    (void)setsockopt(it->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)fcntl(it->socket, F_SETFL, O_NONBLOCK);
    struct epoll_event watch = {.events = EPOLLIN, .data.ptr = it};
    (void)epoll_ctl(poll_fd, EPOLL_CTL_ADD, it->socket, &watch);
}

static void open_connection(connection *it, const char *target, size_t calls) {
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_client_new(&it->session, callbacks, NULL);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW};
    (void)nghttp2_submit_settings(it->session, NGHTTP2_FLAG_NONE, &settings, 1);
    (void)nghttp2_session_set_local_window_size(it->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
    open_socket(it, target);
    it->requests = calloc(calls, sizeof(request));
    for (size_t i = 0; i < calls; i++) {
        request *one = &it->requests[i];
        *one = (request){.on = it, .size = model_size, .message = malloc(model_size)};
        one->reply = kind == BATCH || kind == STREAM ? malloc(REPLY_MAX) : NULL;
        one->sent_us = kind == STREAM ? calloc(in_flight, sizeof(int64_t)) : NULL;
        if (model_size) memcpy(one->message, model, model_size);
        if (begun < wanted) begin(one);
    }
    flush(it);
}

/* False: the time was over, or the input has ended. */
static bool serve(int timeout_ms) {
    struct epoll_event ready[64];
    int count = epoll_wait(poll_fd, ready, 64, timeout_ms);
    for (int i = 0; i < count; i++) {
        if (!ready[i].data.ptr) return false;
        take(ready[i].data.ptr);
        flush(ready[i].data.ptr);
    }
    return count > 0;
}

static void hold_open(void) {
    struct epoll_event input = {.events = EPOLLIN};
    while (serve(1000)) {
    }
    (void)puts("open");
    (void)fflush(stdout);
    (void)epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    while (serve(-1)) {
    }
}

static method method_of(const char *name) {
    static const char *const NAMES[] = {"unary", "batch", "stream", "idle"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(name, NAMES[i]) == 0) return (method)i;
    die("unary, batch, stream or idle");
    return UNARY;
}

int main(int argc, char **argv) {
    if (argc < 5) die("usage: see the top of loader.c");
    kind = method_of(argv[2]);
    if (kind != IDLE && argc < 7) die("usage: see the top of loader.c");
    size_t connections = strtoull(argv[3], NULL, 10);
    in_flight = strtoull(argv[4], NULL, 10);
    wanted = kind == IDLE ? 1 : strtoull(argv[5], NULL, 10);
    if (argc > 7) batch = strtoull(argv[7], NULL, 10);
    if (!connections || !in_flight || !wanted || !batch) die("numbers begin with 1");
    if (kind != IDLE) make_model(argv[6]);

    poll_fd = epoll_create1(0);
    connection *all = calloc(connections, sizeof *all);
    int64_t began_us = now_us();
    for (size_t i = 0; i < connections; i++)
        open_connection(&all[i], argv[1], kind == STREAM ? 1 : in_flight);
    if (kind == IDLE) {
        hold_open();
        return 0;
    }
    while (done < begun || begun < wanted)
        if (!serve(30000)) die("no answer for 30 s");
    double seconds = (double)(now_us() - began_us) / 1e6;
    (void)printf("{\"events\": %llu, \"failed\": %llu, \"per_s\": %.1f, \"p50_us\": %llu, "
                 "\"p99_us\": %llu, \"max_us\": %llu}\n",
                 (unsigned long long)done, (unsigned long long)failed, (double)done / seconds,
                 (unsigned long long)latency_quantile_us(&times, 0.5),
                 (unsigned long long)latency_quantile_us(&times, 0.99),
                 (unsigned long long)times.max_us);
    return failed > 0;
}
