/*
 * Toy methods to try the runtime with, and a worker thread of their own that answers later. They
 * talk in grpc.health.v1.HealthCheckRequest, as it holds one string.
 *
 *   Echo    the same again, at once
 *   Facts   "x-test|ms until the deadline" of the request
 *   Hold    answers when the test says so, from the worker
 *   Count   server stream: as many messages as the text says; "forever" ends when cancelled
 *   Chat    bidi: each message again, from the worker, after `delay_us`; "stop" ends with ABORTED
 */
#ifndef INGEST_TESTS_RPC_TOYS_H
#define INGEST_TESTS_RPC_TOYS_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>

#include "rpc_client.h"
#include "server/rpc.h"
#include "server/status_details.h"

#include <cmocka.h> /* last: it has a macro `fail` */

enum { TOY_JOBS = 4096, TOY_METHODS = 5 };
enum { TOY_ECHO, TOY_FACTS, TOY_HOLD, TOY_COUNT, TOY_CHAT };

typedef struct toy_job {
    rpc_call *call;
    char *text; /* owned; NULL: end the call */
} toy_job;

typedef struct toys {
    rpc_method methods[TOY_METHODS];
    rpc_server *server;
    client client;
    pthread_t worker;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    toy_job jobs[TOY_JOBS]; /* ring */
    uint32_t head, count;
    bool stop;
    bool held; /* the worker waits */
    _Atomic uint32_t delay_us;
    _Atomic uint32_t messages, cancels, half_closes, answered;
    _Atomic uint32_t in_hand, most_in_hand; /* Chat: delivered and not done */
    _Atomic uint32_t most_queued;           /* Chat: rpc_send_queue */
} toys;

static inline char *toy_text(bytes message) {
    Grpc__Health__V1__HealthCheckRequest *request =
        grpc__health__v1__health_check_request__unpack(NULL, message.len, message.data);
    if (!request) abort();
    char *text = strdup(request->service);
    grpc__health__v1__health_check_request__free_unpacked(request, NULL);
    return text;
}

static inline Grpc__Health__V1__HealthCheckRequest toy_message(const char *text) {
    Grpc__Health__V1__HealthCheckRequest message = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    message.service = (char *)text;
    return message;
}

static inline void toy_raise(_Atomic uint32_t *most, uint32_t value) {
    uint32_t old = atomic_load(most);
    while (old < value && !atomic_compare_exchange_weak(most, &old, value)) {
    }
}

static inline void toy_push(toys *all, rpc_call *call, char *text) {
    pthread_mutex_lock(&all->mutex);
    if (all->count == TOY_JOBS) abort();
    all->jobs[(all->head + all->count++) % TOY_JOBS] = (toy_job){.call = call, .text = text};
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->mutex);
}

static inline void toy_work(toys *all, toy_job job) {
    if (all->delay_us) usleep(all->delay_us);
    if (!job.text) {
        rpc_fail(job.call, 0, NULL, bytes_of(NULL, 0));
        return;
    }
    Grpc__Health__V1__HealthCheckRequest message = toy_message(job.text);
    atomic_fetch_add(&all->answered, 1);
    if (rpc_state(job.call)) { /* Chat */
        if (strcmp(job.text, "stop") == 0) {
            rpc_fail(job.call, 10, "as you wish", bytes_of(NULL, 0));
        } else {
            atomic_fetch_sub(&all->in_hand, 1);
            rpc_send(job.call, &message.base);
            toy_raise(&all->most_queued, rpc_send_queue(job.call));
            rpc_message_done(job.call, 1);
        }
    } else {
        rpc_reply(job.call, &message.base);
    }
    free(job.text);
}

static inline void *toy_main(void *argument) {
    toys *all = argument;
    pthread_mutex_lock(&all->mutex);
    for (;;) {
        while ((all->count == 0 || all->held) && !all->stop)
            pthread_cond_wait(&all->changed, &all->mutex);
        if (all->count == 0 && all->stop) break;
        toy_job job = all->jobs[all->head];
        all->head = (all->head + 1) % TOY_JOBS;
        all->count--;
        pthread_mutex_unlock(&all->mutex);
        toy_work(all, job);
        pthread_mutex_lock(&all->mutex);
    }
    pthread_mutex_unlock(&all->mutex);
    return NULL;
}

static inline void toys_hold(toys *all, bool held) {
    pthread_mutex_lock(&all->mutex);
    all->held = held;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->mutex);
}

/* ---- handlers ------------------------------------------------------------------------------ */

static inline void toy_echo(rpc_call *call, bytes message) {
    char *text = toy_text(message);
    Grpc__Health__V1__HealthCheckRequest reply = toy_message(text);
    rpc_reply(call, &reply.base);
    free(text);
}

static inline void toy_facts(rpc_call *call, bytes message) {
    (void)message;
    bytes value = rpc_metadata(call, "x-test");
    char *text = rpc_alloc(call, 100000); /* more than the call's own memory */
    (void)snprintf(text, 100000, "%.*s|%lld", (int)value.len, (const char *)value.data,
                   (long long)rpc_deadline_ms(call));
    Grpc__Health__V1__HealthCheckRequest reply = toy_message(text);
    rpc_reply(call, &reply.base);
}

static inline void toy_hold(rpc_call *call, bytes message) {
    toys *all = rpc_service(call);
    rpc_watch(call);
    atomic_fetch_add(&all->messages, 1);
    toy_push(all, call, toy_text(message));
}

static inline void toy_cancelled(rpc_call *call) {
    toys *all = rpc_service(call);
    atomic_fetch_add(&all->cancels, 1);
}

static inline void toy_count(rpc_call *call, bytes message) {
    char *text = toy_text(message);
    if (strcmp(text, "forever") != 0) {
        for (int i = 0; i < atoi(text); i++) {
            char number[16];
            (void)snprintf(number, sizeof number, "%d", i);
            Grpc__Health__V1__HealthCheckRequest each = toy_message(number);
            rpc_send(call, &each.base);
        }
        rpc_fail(call, 0, NULL, bytes_of(NULL, 0));
    }
    free(text);
}

static inline void toy_count_cancelled(rpc_call *call) {
    toy_cancelled(call);
    rpc_fail(call, 14, "drained", bytes_of(NULL, 0));
}

static inline void toy_chat(rpc_call *call, bytes message) {
    toys *all = rpc_service(call);
    if (!rpc_state(call)) rpc_set_state(call, all);
    atomic_fetch_add(&all->messages, 1);
    toy_raise(&all->most_in_hand, atomic_fetch_add(&all->in_hand, 1) + 1);
    toy_push(all, call, toy_text(message));
}

static inline void toy_chat_half_close(rpc_call *call) {
    toys *all = rpc_service(call);
    atomic_fetch_add(&all->half_closes, 1);
    toy_push(all, call, NULL);
}

static inline void toy_chat_cancelled(rpc_call *call) {
    toy_cancelled(call);
    toy_push(rpc_service(call), call, NULL); /* behind what is still in hand */
}

/* ---- set-up -------------------------------------------------------------------------------- */

static inline rpc_options toys_options(void) {
    return (rpc_options){.address = "127.0.0.1:0",
                         .threads = 2,
                         .max_message_bytes = 1 << 20,
                         .max_metadata_bytes = 16 << 10,
                         .max_concurrent_streams = 2000,
                         .max_calls = 5000,
                         .memory_bytes = 256 << 20,
                         .handshake_timeout_ms = 10000,
                         .stream_window = 8};
}

static inline toys *toys_start(const rpc_options *options) {
    toys *all = calloc(1, sizeof *all);
    if (!all) abort();
    const rpc_method methods[TOY_METHODS] = {
        {.path = "/toy/Echo", .kind = RPC_UNARY, .on_message = toy_echo},
        {.path = "/toy/Facts", .kind = RPC_UNARY, .on_message = toy_facts},
        {.path = "/toy/Hold",
         .kind = RPC_UNARY,
         .on_message = toy_hold,
         .on_cancel = toy_cancelled},
        {.path = "/toy/Count",
         .kind = RPC_SERVER_STREAM,
         .on_message = toy_count,
         .on_cancel = toy_count_cancelled},
        {.path = "/toy/Chat",
         .kind = RPC_BIDI,
         .on_message = toy_chat,
         .on_half_close = toy_chat_half_close,
         .on_cancel = toy_chat_cancelled},
    };
    memcpy(all->methods, methods, sizeof methods);
    for (int i = 0; i < TOY_METHODS; i++)
        all->methods[i].service = all;
    pthread_mutex_init(&all->mutex, NULL);
    pthread_cond_init(&all->changed, NULL);
    if (pthread_create(&all->worker, NULL, toy_main, all) != 0) abort();
    failure why;
    if (rpc_server_start(options, all->methods, TOY_METHODS, &all->server, &why) != ST_OK) {
        print_error("%s: %s\n", why.field, why.reason);
        abort();
    }
    if (rpc_server_port(all->server) > 0)
        all->client = client_open_port(rpc_server_port(all->server));
    else
        all->client = client_open(options->address);
    return all;
}

static inline void toys_stop(toys *all) {
    toys_hold(all, false);
    rpc_server_drain(all->server, 5000);
    assert_int_equal(rpc_server_calls(all->server), 0);
    rpc_server_free(all->server);
    client_close(&all->client);
    pthread_mutex_lock(&all->mutex);
    all->stop = true;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->mutex);
    pthread_join(all->worker, NULL);
    pthread_cond_destroy(&all->changed);
    pthread_mutex_destroy(&all->mutex);
    free(all);
}

static inline int toys_setup(void **state) {
    const rpc_options options = toys_options();
    *state = toys_start(&options);
    return 0;
}

static inline int toys_teardown(void **state) {
    toys_stop(*state);
    return 0;
}

/* Waits up to 20 s for a counter to reach a value. */
static inline void toy_await(_Atomic uint32_t *counter, uint32_t value) {
    for (int i = 0; i < 20000 && atomic_load(counter) < value; i++)
        usleep(1000);
    assert_int_equal(atomic_load(counter), value);
}

static inline void toy_await_calls(const toys *all, uint64_t value) {
    for (int i = 0; i < 20000 && rpc_server_calls(all->server) != value; i++)
        usleep(1000);
    assert_int_equal(rpc_server_calls(all->server), value);
}

#endif
