/* A request is a frame, and so is its answer. Any failure of the socket breaks the connection. */
#include "cql.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    VERSION = 4,
    HEADER = 9, /* version, flags, stream, opcode, length */
    ERROR = 0x00,
    STARTUP = 0x01,
    READY = 0x02,
    QUERY = 0x07,
    LOCAL_QUORUM = 6,
    WITH_VALUES = 1,
    ANSWER_MAX = 1 << 20,
    FRAME_MAX = 16 << 20,
};

struct cql {
    int socket;
    bool broken;
    uint8_t *frame; /* what is sent; owned */
    size_t len, room;
};

static cql_outcome unreachable(cql *it, cql_trouble *trouble, const char *doing) {
    if (it) it->broken = true;
    (void)snprintf(trouble->code, sizeof trouble->code, "unreachable");
    (void)snprintf(trouble->text, sizeof trouble->text, "%s the table store: %s", doing,
                   errno == EAGAIN ? "timed out" : strerror(errno));
    return CQL_AGAIN;
}

/* ---- a frame -----------------------------------------------------------------------------------
 */

static void put(cql *it, const void *data, size_t len) {
    if (it->len + len > it->room) {
        it->room = 2 * (it->len + len) + 256;
        it->frame = realloc(it->frame, it->room);
        if (!it->frame) abort();
    }
    if (len) memcpy(it->frame + it->len, data, len);
    it->len += len;
}

static void put_number(cql *it, uint64_t value, int size) {
    for (int shift = 8 * (size - 1); shift >= 0; shift -= 8)
        put(it, &(uint8_t){(uint8_t)(value >> shift)}, 1);
}

static void put_string(cql *it, const char *text) {
    put_number(it, strlen(text), 2);
    put(it, text, strlen(text));
}

static void begin(cql *it, uint8_t opcode) {
    const uint8_t header[HEADER] = {VERSION, 0, 0, 0, opcode};
    it->len = 0;
    put(it, header, sizeof header);
}

static bool send_all(const cql *it) {
    for (size_t sent = 0; sent < it->len;) {
        const ssize_t done = send(it->socket, it->frame + sent, it->len - sent, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        sent += (size_t)done;
    }
    return true;
}

static bool receive(const cql *it, uint8_t *out, size_t len) {
    for (size_t got = 0; got < len;) {
        const ssize_t done = recv(it->socket, out + got, len - got, 0);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0) errno = ECONNRESET;
        if (done <= 0) return false;
        got += (size_t)done;
    }
    return true;
}

static uint32_t number(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* 0x1000 to 0x1fff: the store could not just now; the rest is about the statement. A failure of a
 * replica (0x1300, 0x1500) included. */
static cql_outcome tell_error(const uint8_t *body, size_t len, cql_trouble *trouble) {
    const uint32_t code = len >= 6 ? number(body) : 0;
    size_t text = len >= 6 ? (size_t)body[4] << 8 | body[5] : 0;
    if (len >= 6 && text > len - 6) text = len - 6;
    (void)snprintf(trouble->code, sizeof trouble->code, "cql_%04x", (unsigned)code);
    (void)snprintf(trouble->text, sizeof trouble->text, "%.*s", (int)text,
                   text ? (const char *)body + 6 : "");
    return code < 0x2000 ? CQL_AGAIN : CQL_WRONG;
}

/* Sends the frame that was begun, and reads its answer. */
static cql_outcome exchange(cql *it, int expected, cql_trouble *trouble) {
    uint8_t header[HEADER];
    const size_t body = it->len - HEADER;
    for (int i = 0; i < 4; i++)
        it->frame[5 + i] = (uint8_t)(body >> (24 - 8 * i));
    if (!send_all(it) || !receive(it, header, sizeof header))
        return unreachable(it, trouble, "asking");
    const size_t len = number(header + 5);
    uint8_t *answer = len <= ANSWER_MAX ? malloc(len + 1) : NULL;
    errno = EPROTO;
    if (!answer || !receive(it, answer, len)) {
        free(answer);
        return unreachable(it, trouble, "asking");
    }
    cql_outcome result = CQL_DONE;
    if (header[4] == ERROR) {
        result = tell_error(answer, len, trouble);
    } else if (expected >= 0 && header[4] != expected) {
        (void)snprintf(trouble->code, sizeof trouble->code, "cql_opcode_%02x", header[4]);
        (void)snprintf(trouble->text, sizeof trouble->text,
                       "the table store asks for what this worker does not speak (a login?)");
        it->broken = true;
        result = CQL_AGAIN;
    }
    free(answer);
    return result;
}

/* ---- the connection
 * ------------------------------------------------------------------------------ */

static int open_socket(const char *host, const char *port, int timeout_ms) {
    const struct addrinfo wanted = {.ai_socktype = SOCK_STREAM};
    const struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    struct addrinfo *all = NULL;
    int made = -1;
    errno = EADDRNOTAVAIL;
    if (getaddrinfo(host, port, &wanted, &all) != 0) return -1;
    for (const struct addrinfo *each = all; each && made < 0; each = each->ai_next) {
        made = socket(each->ai_family, each->ai_socktype | SOCK_CLOEXEC, 0);
        if (made < 0) continue;
        (void)setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        (void)setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(made, each->ai_addr, each->ai_addrlen) == 0) break;
        const int why = errno;
        (void)close(made);
        made = -1;
        errno = why;
    }
    const int why = errno;
    freeaddrinfo(all);
    errno = why;
    return made;
}

cql *cql_open(const char *host, const char *port, int timeout_ms, cql_trouble *trouble) {
    cql *it = calloc(1, sizeof *it);
    if (!it) abort();
    it->socket = open_socket(host, port, timeout_ms);
    if (it->socket < 0) {
        (void)unreachable(it, trouble, "connecting to");
    } else {
        begin(it, STARTUP);
        put_number(it, 1, 2);
        put_string(it, "CQL_VERSION");
        put_string(it, "3.0.0");
        if (exchange(it, READY, trouble) == CQL_DONE) return it;
    }
    cql_close(it);
    return NULL;
}

void cql_close(cql *it) {
    if (!it) return;
    if (it->socket >= 0) (void)close(it->socket);
    free(it->frame);
    free(it);
}

bool cql_broken(const cql *it) { return it->broken; }

cql_outcome cql_execute(cql *it, const char *statement, const cql_value *values, size_t count,
                        cql_trouble *trouble) {
    begin(it, QUERY);
    put_number(it, strlen(statement), 4);
    put(it, statement, strlen(statement));
    put_number(it, LOCAL_QUORUM, 2);
    put_number(it, count ? WITH_VALUES : 0, 1);
    if (count) put_number(it, count, 2);
    for (size_t i = 0; i < count; i++) {
        put_number(it, values[i].data ? values[i].len : UINT32_MAX, 4);
        if (values[i].data) put(it, values[i].data, values[i].len);
    }
    if (it->len <= FRAME_MAX) return exchange(it, -1, trouble);
    (void)snprintf(trouble->code, sizeof trouble->code, "too_large");
    (void)snprintf(trouble->text, sizeof trouble->text, "the statement has %zu bytes", it->len);
    return CQL_WRONG;
}
