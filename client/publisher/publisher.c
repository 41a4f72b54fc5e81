/*
 * The public face: callers' threads on one side, the publisher's own on the other. Between them,
 * under one lock, lie an inbox, the window's counts and the resolver's news; all the rest is the
 * engine's, which only the publisher's thread touches.
 *
 * That thread sleeps in the completion queue. Who leaves something for it rings the bell, but only
 * when it says that it sleeps: under load nobody does.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "client/publisher/bell.h"
#include "client/publisher/engine.h"
#include "client/publisher/event.h"
#include "client/publisher/options.h"
#include "client/publisher/resolver.h"
#include "ingest/v1/ingest_service.pb-c.h"
#include "storage/clock.h"
#include "storage/status.h"

enum { EVENTS_A_ROUND = 256 }; /* from the completion queue, before the inbox is looked at again */

struct ingest_publisher {
    ingest_publisher_options options; /* what it points to is not ours, but for the catalogue */
    opened_options opened;
    grpc_completion_queue *queue;
    bell bell;
    resolver *resolver;
    pthread_t thread;

    /* the publisher's thread's */
    replica_settings settings;
    engine *engine;
    uint32_t answered; /* since the window was told */
    size_t answered_bytes;
    uint64_t admitted; /* ticket of the last that left the inbox */

    pthread_mutex_t lock; /* over all below */
    pthread_cond_t room;  /* the window has room again, or closing */
    pthread_cond_t quiet; /* events were answered, or a waiting call has left */
    delivery_queue inbox;
    uint32_t in_flight;
    size_t in_flight_bytes;
    uint64_t taken;      /* ticket of the last that was taken */
    uint64_t settled;    /* all up to this ticket are answered */
    uint32_t waiting;    /* calls that are inside */
    endpoint *endpoints; /* owned; the resolver's news; NULL: none */
    size_t endpoint_count;
    char no_address[256]; /* its trouble; "": none */
    engine_counts counts;
    bool asleep;
    bool closing; /* takes no more */
    bool stop;    /* the thread is to end */
};

const char *ingest_status_text(ingest_status status) {
    static const char *const TEXTS[] = {
#define X(name, text) text,
        INGEST_STATUS_LIST(X)
#undef X
    };
    return (size_t)status < sizeof TEXTS / sizeof *TEXTS ? TEXTS[status] : "unknown";
}

/* ---- time and waking ----------------------------------------------------------------------- */

/* Waits with the lock; false when the time is over. */
static bool wait_until(ingest_publisher *it, pthread_cond_t *what, int64_t until_ms) {
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    return pthread_cond_clockwait(what, &it->lock, CLOCK_MONOTONIC, &until) == 0;
}

/* With the lock. */
static void wake(ingest_publisher *it) {
    if (!it->asleep) return;
    it->asleep = false;
    bell_ring(&it->bell);
}

static bool on_own_thread(const ingest_publisher *it) {
    return pthread_equal(pthread_self(), it->thread) != 0;
}

/* ---- the publisher's thread ---------------------------------------------------------------- */

static void on_result(void *of, const ingest_result *result, ingest_callback callback, void *arg,
                      size_t size) {
    ingest_publisher *it = of;
    if (callback) callback(arg, result);
    it->answered++;
    it->answered_bytes += size;
}

static void on_lost(void *of) { resolver_ask(((ingest_publisher *)of)->resolver); }

static void on_log(void *of, const char *line) {
    const ingest_publisher *it = of;
    if (it->options.log) it->options.log(it->options.arg, line);
}

static void take_news(ingest_publisher *it, bool *stop) {
    delivery_queue fresh;
    char no_address[sizeof it->no_address];
    TAILQ_INIT(&fresh);
    pthread_mutex_lock(&it->lock);
    TAILQ_CONCAT(&fresh, &it->inbox, in_queue);
    endpoint *endpoints = it->endpoints;
    const size_t count = it->endpoint_count;
    it->endpoints = NULL;
    memcpy(no_address, it->no_address, sizeof no_address);
    it->no_address[0] = '\0';
    *stop = it->stop;
    pthread_mutex_unlock(&it->lock);

    if (no_address[0]) engine_no_addresses(it->engine, no_address);
    if (endpoints) engine_set_endpoints(it->engine, endpoints, count);
    if (endpoints) endpoints_free(endpoints, count);
    for (delivery *event; (event = TAILQ_FIRST(&fresh));) {
        TAILQ_REMOVE(&fresh, event, in_queue);
        it->admitted = event->ticket;
        engine_admit(it->engine, event);
    }
}

/* Tells the callers' side what was answered. */
static void report(ingest_publisher *it) {
    const uint64_t oldest = engine_oldest(it->engine);
    pthread_mutex_lock(&it->lock);
    it->counts = engine_count(it->engine);
    it->in_flight -= it->answered;
    it->in_flight_bytes -= it->answered_bytes;
    it->settled = oldest == UINT64_MAX ? it->admitted : oldest - 1;
    if (it->answered) {
        pthread_cond_broadcast(&it->room);
        pthread_cond_broadcast(&it->quiet);
    }
    pthread_mutex_unlock(&it->lock);
    it->answered = 0;
    it->answered_bytes = 0;
}

static gpr_timespec at_ms(int64_t due_ms) {
    if (due_ms == INT64_MAX) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    const int64_t left_ms = due_ms - clock_monotonic_ms();
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_millis(left_ms > 0 ? left_ms : 0, GPR_TIMESPAN));
}

static bool handle_next(ingest_publisher *it, gpr_timespec until) {
    const grpc_event event = grpc_completion_queue_next(it->queue, until, NULL);
    if (event.type != GRPC_OP_COMPLETE) return false;
    stream_tag *tag = event.tag;
    tag->done(tag, event.success != 0);
    return true;
}

/* Handles what the core has, and sleeps when it has nothing. */
static void poll(ingest_publisher *it) {
    pthread_mutex_lock(&it->lock);
    const bool news = !TAILQ_EMPTY(&it->inbox) || it->endpoints || it->no_address[0] || it->stop;
    it->asleep = !news;
    pthread_mutex_unlock(&it->lock);
    bool more = handle_next(it, at_ms(news ? 0 : engine_due_ms(it->engine)));
    pthread_mutex_lock(&it->lock);
    it->asleep = false;
    pthread_mutex_unlock(&it->lock);
    for (int i = 0; more && i < EVENTS_A_ROUND; i++)
        more = handle_next(it, gpr_time_0(GPR_CLOCK_MONOTONIC));
}

static void *run(void *of) {
    ingest_publisher *it = of;
    for (bool stop = false;;) {
        take_news(it, &stop);
        if (stop) break;
        engine_run(it->engine);
        report(it);
        poll(it);
    }
    engine_close(it->engine);
    report(it);
    while (it->settings.live > 0)
        (void)handle_next(it, gpr_inf_future(GPR_CLOCK_MONOTONIC));
    return NULL;
}

static void on_news(void *of, endpoint *all, size_t count, const char *why) {
    ingest_publisher *it = of;
    pthread_mutex_lock(&it->lock);
    if (why) (void)snprintf(it->no_address, sizeof it->no_address, "%s", why);
    if (all && it->endpoints) endpoints_free(it->endpoints, it->endpoint_count);
    if (all) it->endpoints = all;
    if (all) it->endpoint_count = count;
    wake(it);
    pthread_mutex_unlock(&it->lock);
}

/* ---- taking events ------------------------------------------------------------------------- */

static ingest_status refuse(ingest_result *result, const char *id, ingest_status status, bool retry,
                            const char *reason) {
    if (!result) return status;
    *result = (ingest_result){.status = status, .retry = retry};
    copy_text(result->id, sizeof result->id, bytes_of_string(id));
    copy_text(result->reason, sizeof result->reason, bytes_of_string(reason));
    return status;
}

static ingest_status check_event(const ingest_publisher *it, const ingest_event *event,
                                 ingest_result *result) {
    failure why;
    char reason[sizeof why.field + sizeof why.reason + 2];
    const char *id = ingest_event_id(event);
    if (event_ready(event, it->options.catalogue, &why) != ST_OK) {
        (void)snprintf(reason, sizeof reason, "%s%s%s", why.field, why.field[0] ? ": " : "",
                       why.reason);
        return refuse(result, id, INGEST_INVALID, false, reason);
    }
    const size_t size = ingest_event_size(event);
    if (size <= it->options.max_event_bytes) return INGEST_OK;
    (void)snprintf(reason, sizeof reason,
                   "event: has %zu bytes, max_event_bytes allows %zu; send less data, or a "
                   "reference to it",
                   size, it->options.max_event_bytes);
    return refuse(result, id, INGEST_INVALID, false, reason);
}

static delivery *pack(const ingest_publisher *it, const ingest_event *event,
                      ingest_callback callback, void *arg) {
    const Ingest__V1__Event *message = event_message(event);
    Ingest__V1__PublishRequest request = INGEST__V1__PUBLISH_REQUEST__INIT;
    request.event = (Ingest__V1__Event *)(uintptr_t)message;
    request.ack = it->options.ack == INGEST_PUBLISHED ? INGEST__V1__ACK_MODE__ACK_PUBLISHED
                                                      : INGEST__V1__ACK_MODE__ACK_PERSISTED;
    grpc_slice slice = grpc_slice_malloc(ingest__v1__publish_request__get_packed_size(&request));
    (void)ingest__v1__publish_request__pack(&request, GRPC_SLICE_START_PTR(slice));
    const char *key = message->key[0] ? message->key : message->id;
    return delivery_new(key, message->id, slice, callback, arg);
}

static bool has_room(const ingest_publisher *it, size_t size) {
    if (it->in_flight == 0) return true;
    return it->in_flight < it->options.window &&
           it->in_flight_bytes + size <= it->options.window_bytes;
}

/* With the lock: waits for room, at most until `until_ms`. */
static ingest_status enter(ingest_publisher *it, size_t size, int64_t until_ms) {
    bool in_time = true;
    it->waiting++;
    while (!it->closing && !has_room(it, size) && in_time)
        in_time = wait_until(it, &it->room, until_ms);
    if (--it->waiting == 0) pthread_cond_broadcast(&it->quiet);
    if (it->closing) return INGEST_CLOSED;
    return has_room(it, size) ? INGEST_OK : INGEST_WINDOW_FULL;
}

static ingest_status take(ingest_publisher *it, const ingest_event *event, int64_t wait_until_ms,
                          int64_t deadline_ms, ingest_callback callback, void *arg,
                          ingest_result *result) {
    ingest_status status = check_event(it, event, result);
    if (status != INGEST_OK) return status;
    delivery *made = pack(it, event, callback, arg);
    pthread_mutex_lock(&it->lock);
    status = enter(it, delivery_size(made), wait_until_ms);
    if (status == INGEST_OK) {
        made->ticket = ++it->taken;
        made->deadline_ms =
            deadline_ms ? deadline_ms : clock_monotonic_ms() + it->options.timeout_ms;
        it->in_flight++;
        it->in_flight_bytes += delivery_size(made);
        TAILQ_INSERT_TAIL(&it->inbox, made, in_queue);
        wake(it);
    }
    pthread_mutex_unlock(&it->lock);
    if (status == INGEST_OK) return status;
    delivery_free(made);
    return refuse(result, ingest_event_id(event), status, true, ingest_status_text(status));
}

ingest_status ingest_publish_async(ingest_publisher *it, const ingest_event *event,
                                   uint32_t wait_ms, ingest_callback callback, void *arg,
                                   ingest_result *result) {
    const int64_t until_ms = on_own_thread(it) ? 0 : clock_monotonic_ms() + wait_ms;
    return take(it, event, until_ms, 0, callback, arg, result);
}

typedef struct answer {
    pthread_mutex_t lock;
    pthread_cond_t there;
    bool done;
    ingest_result result;
} answer;

static void on_answer(void *arg, const ingest_result *result) {
    answer *to = arg;
    pthread_mutex_lock(&to->lock);
    to->result = *result;
    to->done = true;
    pthread_cond_signal(&to->there);
    pthread_mutex_unlock(&to->lock);
}

ingest_status ingest_publish(ingest_publisher *it, const ingest_event *event,
                             ingest_result *result) {
    if (on_own_thread(it))
        return refuse(result, ingest_event_id(event), INGEST_INVALID, false,
                      "called from a callback, where it would wait for itself; use "
                      "ingest_publish_async");
    const int64_t deadline_ms = clock_monotonic_ms() + it->options.timeout_ms;
    answer to = {.lock = PTHREAD_MUTEX_INITIALIZER, .there = PTHREAD_COND_INITIALIZER};
    const ingest_status taken = take(it, event, deadline_ms, deadline_ms, on_answer, &to, result);
    if (taken != INGEST_OK) return taken;
    pthread_mutex_lock(&to.lock);
    while (!to.done)
        pthread_cond_wait(&to.there, &to.lock);
    pthread_mutex_unlock(&to.lock);
    if (result) *result = to.result;
    return to.result.status;
}

bool ingest_flush(ingest_publisher *it, uint32_t timeout_ms) {
    if (on_own_thread(it)) return false;
    const int64_t until_ms = clock_monotonic_ms() + timeout_ms;
    bool in_time = true;
    pthread_mutex_lock(&it->lock);
    const uint64_t last = it->taken;
    it->waiting++;
    while (it->settled < last && in_time)
        in_time = wait_until(it, &it->quiet, until_ms);
    const bool all = it->settled >= last;
    if (--it->waiting == 0) pthread_cond_broadcast(&it->quiet);
    pthread_mutex_unlock(&it->lock);
    return all;
}

void ingest_publisher_stats_get(ingest_publisher *it, ingest_publisher_stats *stats) {
    pthread_mutex_lock(&it->lock);
    *stats = (ingest_publisher_stats){
        .published = it->counts.published,
        .failed = it->counts.failed,
        .retried = it->counts.retried,
        .moved = it->counts.moved,
        .in_flight = it->in_flight,
        .replicas = it->counts.replicas,
        .replicas_ready = it->counts.replicas_ready,
    };
    pthread_mutex_unlock(&it->lock);
}

/* ---- opening and closing ------------------------------------------------------------------- */

static uint64_t random_seed(void) {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) abort();
    return seed | 1;
}

static void start(ingest_publisher *it, const ingest_publisher_options *options) {
    it->options = *options;
    pthread_mutex_init(&it->lock, NULL);
    pthread_cond_init(&it->room, NULL);
    pthread_cond_init(&it->quiet, NULL);
    TAILQ_INIT(&it->inbox);
    it->queue = grpc_completion_queue_create_for_next(NULL);
    bell_init(&it->bell, it->queue);
    it->settings = (replica_settings){
        .queue = it->queue,
        .credentials = it->opened.credentials,
        .authorization = it->opened.authorization,
        .window = options->window,
        .failover_ms = options->failover_ms,
        .backoff = {options->backoff_first_ms, options->backoff_last_ms, random_seed()},
    };
    const engine_options inside = {.window = options->window,
                                   .timeout_ms = options->timeout_ms,
                                   .on_result = on_result,
                                   .on_lost = on_lost,
                                   .log = options->log ? on_log : NULL,
                                   .of = it};
    it->engine = engine_new(&inside, &it->settings);
    it->resolver = resolver_start(&it->opened.target, on_news, it);
    if (pthread_create(&it->thread, NULL, run, it) != 0) abort();
}

ingest_publisher *ingest_publisher_open(const ingest_publisher_options *options,
                                        ingest_error *error) {
    char reason[sizeof error->reason];
    ingest_publisher *it = calloc(1, sizeof *it);
    if (!it) abort();
    grpc_init();
    if (options_open(options, &it->opened, reason, sizeof reason)) {
        start(it, options);
        return it;
    }
    grpc_shutdown_blocking();
    free(it);
    if (error) {
        error->status = INGEST_INVALID;
        copy_text(error->reason, sizeof error->reason, bytes_of_string(reason));
    }
    return NULL;
}

static void destroy(ingest_publisher *it) {
    grpc_completion_queue_shutdown(it->queue);
    while (grpc_completion_queue_next(it->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        continue; /* the bell's last rings */
    bell_destroy(&it->bell);
    grpc_completion_queue_destroy(it->queue);
    engine_free(it->engine);
    options_close(&it->opened);
    if (it->endpoints) endpoints_free(it->endpoints, it->endpoint_count);
    pthread_cond_destroy(&it->room);
    pthread_cond_destroy(&it->quiet);
    pthread_mutex_destroy(&it->lock);
    free(it);
    grpc_shutdown_blocking();
}

void ingest_publisher_close(ingest_publisher *it, uint32_t grace_ms) {
    if (!it) return;
    if (on_own_thread(it)) abort(); /* it would wait for itself, for ever */
    const int64_t until_ms = clock_monotonic_ms() + grace_ms;
    pthread_mutex_lock(&it->lock);
    it->closing = true;
    pthread_cond_broadcast(&it->room);
    for (bool in_time = true; it->in_flight > 0 && in_time;)
        in_time = wait_until(it, &it->quiet, until_ms);
    it->stop = true;
    wake(it);
    pthread_mutex_unlock(&it->lock);
    pthread_join(it->thread, NULL);
    resolver_stop(it->resolver);
    pthread_mutex_lock(&it->lock);
    while (it->waiting > 0)
        pthread_cond_wait(&it->quiet, &it->lock);
    pthread_mutex_unlock(&it->lock);
    destroy(it);
}
