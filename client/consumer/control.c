/*
 * The loop over the listener and its peers. A peer is either heard (until a request is whole) or
 * answered (until its page is sent); nothing blocks but the disk and control_hooks.change. Failures
 * of a peer end its connection, failures of the store are told to it.
 */
#include "client/consumer/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/consumer/control_socket.h"
#include "client/consumer/control_wire.h"
#include "storage/clock.h"

typedef struct peer {
    int socket; /* -1: nobody */
    uint8_t in[CONTROL_LENGTH_SIZE + CONTROL_REQUEST_MAX];
    size_t in_len;
    control_buffer out; /* not empty: being answered */
    size_t sent;
    bool last;        /* cut off when that is sent */
    int64_t since_ms; /* when it came, or what it is at began: a byte now and then is not enough */
} peer;

struct control {
    char *directory; /* owned */
    const failed_store *store;
    control_hooks hooks;
    int listener;
    int wake; /* an eventfd: stop */
    pthread_t thread;
    peer peers[CONTROL_PEERS];
};

/* ---- answers -------------------------------------------------------------------------------- */

static void drop(peer *it) {
    (void)close(it->socket);
    free(it->out.data);
    it->socket = -1;
    it->out = (control_buffer){0};
}

static void answer_failed(peer *it, uint64_t count, const failure *why) {
    if (!control_put_failed(&it->out, count, why)) drop(it);
}

typedef struct listing {
    peer *to;
    failure why; /* code ST_OK: none */
} listing;

static bool add_record(void *arg, const failed_record *record) {
    listing *it = arg;
    if (!control_record_fits(record))
        (void)fail(
            &it->why, ST_TOO_LARGE, "event",
            "failed event %llu has %zu bytes, more than the control socket carries: stop the "
            "consumer to read it",
            (unsigned long long)record->number, record->event.len);
    else if (!control_put_record(&it->to->out, record))
        (void)fail(&it->why, ST_NO_MEMORY, "event", "no memory for failed event %llu",
                   (unsigned long long)record->number);
    return it->why.code == ST_OK && it->to->out.len < CONTROL_PAGE_BYTES;
}

static void answer_list(control *self, peer *to, const failed_query *query) {
    listing it = {.to = to};
    failed_page page;
    outcome result =
        failed_query_page(self->store, query, FAILED_READ_MAX, add_record, &it, &page, &it.why);
    if (result != ST_OK || it.why.code != ST_OK)
        answer_failed(to, 0, &it.why);
    else if (!control_put_done(&to->out, &page))
        drop(to);
}

static void answer_change(control *self, peer *to, control_kind kind, const failed_query *query) {
    static const control_change CHANGES[] = {
        [CONTROL_RETRY] = CHANGE_RETRY, [CONTROL_DISCARD] = CHANGE_DISCARD};
    uint64_t numbers[CONTROL_BATCH];
    uint64_t done = 0;
    failed_page page;
    failure why = {0};
    outcome result = failed_query_numbers(self->store, query, numbers, CONTROL_BATCH, &page, &why);
    if (result == ST_OK && page.count > 0)
        result = self->hooks.change(self->hooks.arg, CHANGES[kind], numbers, (size_t)page.count,
                                    &done, &why);
    page.count = done;
    why.code = result;
    if (result != ST_OK)
        answer_failed(to, done, &why);
    else if (!control_put_done(&to->out, &page))
        drop(to);
}

static void answer(control *self, peer *to, bytes frame) {
    control_kind kind;
    failed_query query;
    failure why = {0};
    if (control_get_request(frame, &kind, &query, &why) != ST_OK) {
        to->last = true;
        answer_failed(to, 0, &why);
        return;
    }
    query.with_events = query.with_events && kind == CONTROL_LIST;
    if (kind == CONTROL_LIST)
        answer_list(self, to, &query);
    else
        answer_change(self, to, kind, &query);
}

/* ---- peers ---------------------------------------------------------------------------------- */

/* How many bytes the request still needs; 0: it is whole. */
static outcome missing(const peer *it, size_t *count, failure *why) {
    uint32_t length;
    *count = CONTROL_LENGTH_SIZE - it->in_len;
    if (it->in_len < CONTROL_LENGTH_SIZE) return ST_OK;
    outcome result = control_get_length(it->in, CONTROL_REQUEST_MAX, &length, why);
    *count = result == ST_OK ? CONTROL_LENGTH_SIZE + length - it->in_len : 0;
    return result;
}

static bool passing(ssize_t done) {
    return done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

static void hear(control *self, peer *it) {
    size_t count;
    failure why = {0};
    if (missing(it, &count, NULL) != ST_OK) return;
    ssize_t got = recv(it->socket, it->in + it->in_len, count, 0);
    if (passing(got)) return;
    if (got <= 0) {
        drop(it);
        return;
    }
    it->in_len += (size_t)got;
    if (missing(it, &count, &why) != ST_OK) {
        it->last = true;
        answer_failed(it, 0, &why);
    } else if (count == 0) {
        answer(self, it, bytes_of(it->in + CONTROL_LENGTH_SIZE, it->in_len - CONTROL_LENGTH_SIZE));
        it->in_len = 0;
        it->since_ms = clock_monotonic_ms();
    }
}

static void tell(peer *it) {
    ssize_t done = send(it->socket, it->out.data + it->sent, it->out.len - it->sent, MSG_NOSIGNAL);
    if (passing(done)) return;
    if (done > 0) {
        it->sent += (size_t)done;
        if (it->sent < it->out.len) return;
    }
    if (done < 0 || it->last) {
        drop(it);
        return;
    }
    free(it->out.data); /* a page of one large event is not kept */
    it->out = (control_buffer){0};
    it->sent = 0;
    it->since_ms = clock_monotonic_ms();
}

static bool may_ask(int socket) {
    struct ucred who;
    socklen_t size = sizeof who;
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
           (who.uid == 0 || who.uid == geteuid());
}

static void welcome(control *self) {
    peer *it = self->peers;
    while (it->socket >= 0)
        it++; /* the loop listens only while there is one */
    int socket = accept4(self->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) return;
    if (!may_ask(socket)) {
        (void)close(socket);
        return;
    }
    it->socket = socket;
    it->in_len = it->sent = 0;
    it->last = false;
    it->since_ms = clock_monotonic_ms();
}

/* ---- the loop ------------------------------------------------------------------------------- */

enum { WAKE, LISTENER, FIRST_PEER, SOCKETS = FIRST_PEER + CONTROL_PEERS };

/* Gives how long to wait: until somebody has taken too long. */
static int prepare(const control *self, struct pollfd sockets[SOCKETS]) {
    const int64_t now_ms = clock_monotonic_ms();
    int64_t wait_ms = -1;
    bool room = false;
    for (int i = 0; i < CONTROL_PEERS; i++) {
        const peer *it = &self->peers[i];
        const bool answering = it->out.len > 0;
        sockets[FIRST_PEER + i] =
            (struct pollfd){.fd = it->socket, .events = answering ? POLLOUT : POLLIN};
        room = room || it->socket < 0;
        if (it->socket < 0) continue;
        int64_t left_ms = it->since_ms + self->hooks.peer_ms - now_ms;
        if (left_ms < 0) left_ms = 0;
        if (wait_ms < 0 || left_ms < wait_ms) wait_ms = left_ms;
    }
    sockets[WAKE] = (struct pollfd){.fd = self->wake, .events = POLLIN};
    sockets[LISTENER] = (struct pollfd){.fd = room ? self->listener : -1, .events = POLLIN};
    return (int)wait_ms;
}

static void serve(control *self, const struct pollfd sockets[SOCKETS]) {
    for (int i = 0; i < CONTROL_PEERS; i++) {
        peer *it = &self->peers[i];
        if (it->socket < 0) continue;
        if (sockets[FIRST_PEER + i].revents == 0) {
            if (clock_monotonic_ms() - it->since_ms >= self->hooks.peer_ms) drop(it);
        } else if (it->out.len > 0) {
            tell(it);
        } else {
            hear(self, it);
        }
    }
    if (sockets[LISTENER].revents) welcome(self);
}

static void *run(void *arg) {
    control *self = arg;
    struct pollfd sockets[SOCKETS];
    for (;;) {
        int wait_ms = prepare(self, sockets);
        if (poll(sockets, SOCKETS, wait_ms) < 0) continue; /* interrupted */
        if (sockets[WAKE].revents) return NULL;
        serve(self, sockets);
    }
}

static void destroy(control *self) {
    for (int i = 0; i < CONTROL_PEERS; i++)
        if (self->peers[i].socket >= 0) drop(&self->peers[i]);
    if (self->listener >= 0) (void)close(self->listener);
    if (self->wake >= 0) (void)close(self->wake);
    free(self->directory);
    free(self);
}

outcome control_start(const char *directory, const failed_store *store, const control_hooks *hooks,
                      control **out, failure *why) {
    control *self = calloc(1, sizeof *self);
    if (!self) return fail(why, ST_NO_MEMORY, "", "no memory for the control socket");
    for (int i = 0; i < CONTROL_PEERS; i++)
        self->peers[i].socket = -1;
    self->listener = -1;
    self->store = store;
    self->hooks = *hooks;
    if (self->hooks.peer_ms == 0) self->hooks.peer_ms = CONTROL_PEER_MS;
    self->directory = strdup(directory);
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    outcome result = ST_OK;
    if (!self->directory || self->wake < 0)
        result = fail(why, ST_NO_MEMORY, "", "no memory for the control socket");
    if (result == ST_OK) result = control_socket_listen(directory, &self->listener, why);
    if (result == ST_OK && pthread_create(&self->thread, NULL, run, self) != 0)
        result = fail(why, ST_NO_MEMORY, "", "no thread for the control socket");
    if (result == ST_OK) {
        *out = self;
        return ST_OK;
    }
    if (self->listener >= 0) control_socket_remove(directory);
    destroy(self);
    return result;
}

void control_stop(control *self) {
    if (!self) return;
    control_socket_remove(self->directory); /* whoever comes now waits for the lock */
    if (eventfd_write(self->wake, 1) != 0) abort();
    (void)pthread_join(self->thread, NULL);
    destroy(self);
}
