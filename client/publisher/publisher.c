/*
 * The public face, and the publisher's own thread: it takes what the inbox has, lets the engine do
 * what is due, and sleeps in the completion queue. The engine is that thread's alone; callers see
 * nothing but the inbox.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "client/publisher/engine.h"
#include "client/publisher/event.h"
#include "client/publisher/inbox.h"
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
    inbox inbox;
    resolver *resolver;
    pthread_t thread;

    /* the publisher's thread's */
    replica_settings settings;
    engine *engine;
    inbox_done done;   /* not told yet */
    uint64_t admitted; /* ticket of the last that left the inbox */
};

static bool on_own_thread(const ingest_publisher *it) {
    return pthread_equal(pthread_self(), it->thread) != 0;
}

/* ---- the publisher's thread ---------------------------------------------------------------- */

static void on_result(void *of, const ingest_result *result, ingest_callback callback, void *arg,
                      size_t size) {
    ingest_publisher *it = of;
    if (callback) callback(arg, result);
    it->done.answered++;
    it->done.answered_bytes += size;
}

static void on_lost(void *of) { resolver_ask(((ingest_publisher *)of)->resolver); }

static void on_log(void *of, const char *line) {
    const ingest_publisher *it = of;
    if (it->options.log) it->options.log(it->options.arg, line);
}

/* False: the thread is to end. */
static bool take_news(ingest_publisher *it) {
    inbox_news news;
    inbox_take(&it->inbox, &news);
    if (news.no_address[0]) engine_no_addresses(it->engine, news.no_address);
    if (news.endpoints) engine_set_endpoints(it->engine, news.endpoints, news.endpoint_count);
    if (news.endpoints) endpoints_free(news.endpoints, news.endpoint_count);
    for (delivery *event; (event = TAILQ_FIRST(&news.events));) {
        TAILQ_REMOVE(&news.events, event, in_queue);
        it->admitted = event->ticket;
        engine_admit(it->engine, event);
    }
    return !news.stop;
}

/* Tells the callers' side what was answered. */
static void report(ingest_publisher *it) {
    const uint64_t oldest = engine_oldest(it->engine);
    it->done.settled = oldest == UINT64_MAX ? it->admitted : oldest - 1;
    it->done.counts = engine_count(it->engine);
    inbox_tell(&it->inbox, &it->done);
    it->done = (inbox_done){0};
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
    const bool idle = inbox_sleep(&it->inbox);
    bool more = handle_next(it, at_ms(idle ? engine_due_ms(it->engine) : 0));
    inbox_awake(&it->inbox);
    for (int i = 0; more && i < EVENTS_A_ROUND; i++)
        more = handle_next(it, gpr_time_0(GPR_CLOCK_MONOTONIC));
}

static void *run(void *of) {
    ingest_publisher *it = of;
    while (take_news(it)) {
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

static void on_addresses(void *of, endpoint *all, size_t count, const char *why) {
    ingest_publisher *it = of;
    if (why)
        inbox_put_trouble(&it->inbox, why);
    else
        inbox_put_endpoints(&it->inbox, all, count);
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

static ingest_status take(ingest_publisher *it, const ingest_event *event, int64_t wait_until_ms,
                          int64_t deadline_ms, ingest_callback callback, void *arg,
                          ingest_result *result) {
    ingest_status status = check_event(it, event, result);
    if (status != INGEST_OK) return status;
    delivery *made = pack(it, event, callback, arg);
    made->deadline_ms = deadline_ms;
    status = inbox_put(&it->inbox, made, wait_until_ms, it->options.timeout_ms);
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
    return !on_own_thread(it) && inbox_flush(&it->inbox, clock_monotonic_ms() + timeout_ms);
}

void ingest_publisher_stats_get(ingest_publisher *it, ingest_publisher_stats *stats) {
    inbox_stats(&it->inbox, stats);
}

/* ---- opening and closing ------------------------------------------------------------------- */

static uint64_t random_seed(void) {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) abort();
    return seed | 1;
}

static void start(ingest_publisher *it, const ingest_publisher_options *options) {
    it->options = *options;
    it->queue = grpc_completion_queue_create_for_next(NULL);
    bell_init(&it->bell, it->queue);
    inbox_init(&it->inbox, options->window, options->window_bytes, &it->bell);
    it->settings = (replica_settings){
        .queue = it->queue,
        .credentials = it->opened.credentials,
        .authorization = it->opened.authorization,
        .window = options->window,
        .failover_ms = options->failover_ms,
        .until_published = options->ack == INGEST_PUBLISHED,
        .backoff = {options->backoff_first_ms, options->backoff_last_ms, random_seed()},
    };
    const engine_options inside = {.window = options->window,
                                   .timeout_ms = options->timeout_ms,
                                   .on_result = on_result,
                                   .on_lost = on_lost,
                                   .log = options->log ? on_log : NULL,
                                   .of = it};
    it->engine = engine_new(&inside, &it->settings);
    it->resolver = resolver_start(&it->opened.target, on_addresses, it);
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
    inbox_destroy(&it->inbox);
    free(it);
    grpc_shutdown_blocking();
}

void ingest_publisher_close(ingest_publisher *it, uint32_t grace_ms) {
    if (!it) return;
    if (on_own_thread(it)) abort(); /* it would wait for itself, for ever */
    inbox_close(&it->inbox, clock_monotonic_ms() + grace_ms);
    pthread_join(it->thread, NULL);
    resolver_stop(it->resolver);
    inbox_wait_left(&it->inbox);
    destroy(it);
}
