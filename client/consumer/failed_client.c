/*
 * The public ingest_failed_* functions. Who has the store is decided by its lock alone: whoever
 * gets it owns the store, here until ingest_failed_store_close; whoever does not asks the owner
 * through the control socket, and waits a moment where there is none yet or no more. Blocks; one
 * thread at a time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client/consumer/control_socket.h"
#include "client/consumer/control_wire.h"
#include "client/consumer/failed_event.h"
#include "storage/clock.h"
#include "storage/folder.h"

enum { OPEN_MS = 5000, ANSWER_MS = 60000, WRITE_BATCH = 1000 };

struct ingest_failed_store {
    char *directory;   /* owned */
    failed_store *own; /* NULL: a consumer has it */
};

/* ---- errors --------------------------------------------------------------------------------- */

static ingest_status status_of(int grpc_code) {
    static const struct {
        outcome code;
        ingest_status status;
    } MEANINGS[] = {{ST_UNAVAILABLE, INGEST_CLOSED},
                    {ST_INVALID, INGEST_INVALID},
                    {ST_NOT_FOUND, INGEST_INVALID},
                    {ST_PRECONDITION, INGEST_UNSUPPORTED},
                    {ST_UNIMPLEMENTED, INGEST_UNSUPPORTED}};
    for (size_t i = 0; i < sizeof MEANINGS / sizeof *MEANINGS; i++)
        if (grpc_code == outcome_grpc_code(MEANINGS[i].code)) return MEANINGS[i].status;
    return INGEST_FAILED;
}

/* Always false, so that it ends a function. */
static bool tell(ingest_error *error, const failure *why) {
    if (!error) return false;
    error->status = status_of(outcome_grpc_code(why->code));
    (void)snprintf(error->reason, sizeof error->reason, "%.120s%s%s", why->field,
                   why->field[0] ? ": " : "", why->reason);
    return false;
}

/* ---- open and close ------------------------------------------------------------------------- */

/* The lock, or somebody who has it and answers. */
static outcome find_owner(ingest_failed_store *it, failure *why) {
    const failed_limits none = {.max_events = UINT64_MAX, .max_bytes = UINT64_MAX};
    const int64_t until_ms = clock_monotonic_ms() + OPEN_MS;
    const struct timespec pause = {.tv_nsec = 20000000};
    for (;;) {
        int answering;
        outcome result = failed_store_open(it->directory, &none, &it->own, why);
        if (result != ST_UNAVAILABLE) return result;
        result = control_socket_connect(it->directory, ANSWER_MS, &answering, why);
        if (result == ST_OK) (void)close(answering);
        if (result != ST_UNAVAILABLE) return result;
        if (clock_monotonic_ms() > until_ms)
            return fail(why, ST_UNAVAILABLE, "data_dir",
                        "%s is in use, but no consumer answers there: another tool may be reading "
                        "or changing it",
                        it->directory);
        (void)nanosleep(&pause, NULL);
    }
}

/* Opening would make one. */
static outcome check_there(const char *directory, failure *why) {
    char path[PATH_SIZE];
    path_join(path, directory, "LOCK");
    if (access(path, F_OK) == 0) return ST_OK;
    return fail(why, errno == ENOENT || errno == ENOTDIR ? ST_NOT_FOUND : ST_IO, "data_dir",
                "there is no store of failed events in %s: %s", directory, strerror(errno));
}

ingest_failed_store *ingest_failed_store_open(const char *data_dir, ingest_error *error) {
    failure why = {0};
    ingest_failed_store *it = calloc(1, sizeof *it);
    if (it) it->directory = strdup(data_dir);
    outcome result = it && it->directory ? ST_OK : fail(&why, ST_NO_MEMORY, "", "no memory");
    if (result == ST_OK) result = check_there(data_dir, &why);
    if (result == ST_OK) result = find_owner(it, &why);
    if (result == ST_OK) return it;
    why.code = result;
    (void)tell(error, &why);
    ingest_failed_store_close(it);
    return NULL;
}

void ingest_failed_store_close(ingest_failed_store *store) {
    if (!store) return;
    failed_store_close(store->own);
    free(store->directory);
    free(store);
}

/* ---- through the socket --------------------------------------------------------------------- */

typedef struct session {
    int socket;
    uint8_t *frame; /* owned; grows with the largest event */
    size_t size;
} session;

static outcome lost(failure *why) {
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return fail(why, ST_UNAVAILABLE, "", "the consumer did not answer within %d s",
                    ANSWER_MS / 1000);
    return fail(why, ST_UNAVAILABLE, "",
                "the consumer has ended, or cut the connection: try again");
}

static outcome send_all(const session *it, const uint8_t *data, size_t len, failure *why) {
    while (len > 0) {
        ssize_t done = send(it->socket, data, len, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return lost(why);
        data += done;
        len -= (size_t)done;
    }
    return ST_OK;
}

static outcome receive_all(const session *it, uint8_t *data, size_t len, failure *why) {
    while (len > 0) {
        errno = 0;
        ssize_t done = recv(it->socket, data, len, 0);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return lost(why);
        data += done;
        len -= (size_t)done;
    }
    return ST_OK;
}

static outcome receive_reply(session *it, control_reply *reply, failure *why) {
    uint8_t head[CONTROL_LENGTH_SIZE];
    uint32_t length;
    outcome result = receive_all(it, head, sizeof head, why);
    if (result == ST_OK) result = control_get_length(head, CONTROL_REPLY_MAX, &length, why);
    if (result != ST_OK) return result;
    if (length > it->size) {
        free(it->frame);
        it->size = 2 * (size_t)length;
        it->frame = malloc(it->size);
        if (!it->frame) {
            it->size = 0;
            return fail(why, ST_NO_MEMORY, "", "no memory for an answer of %u bytes", length);
        }
    }
    result = receive_all(it, it->frame, length, why);
    return result == ST_OK ? control_get_reply(bytes_of(it->frame, length), reply, why) : result;
}

/* What the consumer says of a failure. */
static bool tell_reply(ingest_error *error, const control_reply *reply) {
    if (!error) return false;
    error->status = status_of(reply->grpc_code);
    (void)snprintf(error->reason, sizeof error->reason, "%.*s%s%.*s", (int)reply->field.len,
                   (const char *)reply->field.data, reply->field.len ? ": " : "",
                   (int)reply->reason.len, (const char *)reply->reason.data);
    return false;
}

/* One request and its page. `each` may be NULL; *stopped: it wanted no more. */
static bool ask_page(session *it, control_kind kind, const failed_query *query,
                     bool (*each)(void *arg, const failed_record *record), void *arg, bool *stopped,
                     failed_page *page, ingest_error *error) {
    uint8_t request[CONTROL_LENGTH_SIZE + CONTROL_REQUEST_MAX];
    control_reply reply;
    failure why = {0};
    size_t len = control_put_request(kind, query, request, &why);
    if (len == 0 || send_all(it, request, len, &why) != ST_OK) return tell(error, &why);
    do {
        if (receive_reply(it, &reply, &why) != ST_OK) return tell(error, &why);
        if (reply.kind != CONTROL_RECORD) break;
        *stopped = each && !each(arg, &reply.record);
    } while (!*stopped);
    *page = reply.page;
    return reply.kind != CONTROL_FAILED || tell_reply(error, &reply);
}

/* Page by page. `count`: of all of them. */
static bool ask(const ingest_failed_store *store, control_kind kind, failed_query *query,
                bool (*each)(void *arg, const failed_record *record), void *arg, uint64_t *count,
                ingest_error *error) {
    session it = {.socket = -1};
    failure why = {0};
    failed_page page = {.more = true};
    bool stopped = false;
    bool done = true;
    outcome result = control_socket_connect(store->directory, ANSWER_MS, &it.socket, &why);
    if (result == ST_UNAVAILABLE)
        (void)fail(&why, result, "", "the consumer has ended: open the store again");
    if (result != ST_OK) return tell(error, &why);
    while (done && !stopped && page.more) {
        page = (failed_page){0};
        done = ask_page(&it, kind, query, each, arg, &stopped, &page, error);
        *count += page.count;
        if (query->limit && page.count >= query->limit) break;
        if (query->limit) query->limit -= page.count;
        query->after = page.last;
    }
    (void)close(it.socket);
    free(it.frame);
    return done;
}

/* ---- listing -------------------------------------------------------------------------------- */

typedef struct listing {
    bool (*each)(void *arg, const ingest_failed_event *event);
    void *arg;
    bool with_events;
    bool no_memory;
    failed_view view;
} listing;

static bool show(void *arg, const failed_record *record) {
    listing *it = arg;
    it->no_memory = !failed_view_show(&it->view, record, it->with_events);
    return !it->no_memory && it->each(it->arg, &it->view.event);
}

static bytes filter_text(const char *text) {
    return text ? bytes_of_string(text) : bytes_of(NULL, 0);
}

static failed_query query_of(const ingest_failed_filter *filter) {
    if (!filter) return (failed_query){0};
    return (failed_query){.number = filter->number,
                          .id = filter_text(filter->event_id),
                          .operation = filter_text(filter->operation),
                          .code = filter_text(filter->code)};
}

bool ingest_failed_list(ingest_failed_store *store, const ingest_failed_filter *filter,
                        uint64_t after, uint64_t limit, bool with_events,
                        bool (*each)(void *arg, const ingest_failed_event *event), void *arg,
                        ingest_error *error) {
    listing it = {.each = each, .arg = arg, .with_events = with_events};
    failed_query query = query_of(filter);
    failed_page page;
    failure why = {0};
    uint64_t count = 0;
    bool done;
    query.after = after;
    query.limit = limit;
    query.with_events = with_events;
    if (store->own)
        done = failed_query_page(store->own, &query, UINT64_MAX, show, &it, &page, &why) == ST_OK ||
               tell(error, &why);
    else
        done = ask(store, CONTROL_LIST, &query, show, &it, &count, error);
    if (it.no_memory) {
        (void)fail(&why, ST_NO_MEMORY, "", "no memory for a failed event");
        done = tell(error, &why);
    }
    failed_view_free(&it.view);
    return done;
}

/* ---- changes, with the store in hand -------------------------------------------------------- */

typedef struct change {
    failed_store *store;
    bool discard;
    size_t staged; /* of this batch */
    uint64_t held; /* passed over */
    failure why;   /* code ST_OK: none */
} change;

static bool stage(void *arg, const failed_record *record) {
    change *it = arg;
    outcome result = ST_OK;
    const bool held = record->state == FAILED_HELD;
    if (it->discard && held) {
        it->held++;
    } else if (it->discard) {
        result = failed_store_remove(it->store, record->number, &it->why);
    } else if (!held) { /* a held one begins anew by itself, with its place in Kafka */
        failed_record again = *record;
        again.state = FAILED_WAITING;
        again.attempts = 0;
        again.next_attempt_ms = clock_wall_ms();
        result = failed_store_update(it->store, &again, &it->why);
    }
    it->why.code = result;
    return result == ST_OK && ++it->staged < WRITE_BATCH;
}

static bool change_own(ingest_failed_store *store, failed_query *query, bool discard,
                       uint64_t *count, ingest_error *error) {
    change it = {.store = store->own, .discard = discard};
    failed_page page = {.more = true};
    while (page.more) {
        uint64_t held = it.held;
        it.staged = 0;
        outcome result = failed_query_page(it.store, query, UINT64_MAX, stage, &it, &page, &it.why);
        if (result == ST_OK) result = it.why.code;
        if (result == ST_OK) result = failed_store_write(it.store, &it.why);
        if (result != ST_OK) return tell(error, &it.why);
        *count += page.count - (it.held - held);
        query->after = page.last;
    }
    if (it.held == 0) return true;
    (void)fail(
        &it.why, ST_INVALID, "",
        "%llu of them are held: they still stand in Kafka, and only their consumer, while it "
        "runs, can discard them",
        (unsigned long long)it.held);
    return tell(error, &it.why);
}

bool ingest_failed_retry(ingest_failed_store *store, const ingest_failed_filter *filter,
                         uint64_t *count, ingest_error *error) {
    failed_query query = query_of(filter);
    *count = 0;
    if (store->own) return change_own(store, &query, false, count, error);
    return ask(store, CONTROL_RETRY, &query, NULL, NULL, count, error);
}

bool ingest_failed_discard(ingest_failed_store *store, const ingest_failed_filter *filter,
                           uint64_t *count, ingest_error *error) {
    failed_query query = query_of(filter);
    *count = 0;
    if (store->own) return change_own(store, &query, true, count, error);
    return ask(store, CONTROL_DISCARD, &query, NULL, NULL, count, error);
}
