/*
 * The server: completion queues with one thread each, a core server, and the way down. Half of the
 * queues are for streams beyond the first few hundred: a core that was built with its assertions,
 * as Debian's is, looks at each event through all operations that its queue waits for, and an idle
 * stream waits with two (unary calls beside 10,000 of them in one queue were half as fast).
 *
 * Start: core, threads, port, then each thread arms its own queue. Drain: no more calls
 * until none lives, armed ones included. Free: when the core has told that it is down as well, the
 * queues are shut, and not earlier: a batch on a shut queue ends the process.
 */
#include <errno.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "server/rpc_internal.h"

enum {
    KEEPALIVE_TIME_MS = 60 * 1000,         /* our pings: finds clients that vanished */
    KEEPALIVE_TIMEOUT_MS = 20 * 1000,      /* no answer to one: the connection is closed */
    MIN_RECV_PING_INTERVAL_MS = 10 * 1000, /* theirs: more often is misbehaviour, then GOAWAY */
};

void rpc_die(const char *what) {
    (void)fprintf(stderr, "rpc: %s\n", what);
    abort();
}

/* ---- the core's log ------------------------------------------------------------------------ */

static _Atomic(void (*)(int, const char *)) core_log_sink;

static void core_log(gpr_log_func_args *args) {
    void (*sink)(int, const char *) = atomic_load_explicit(&core_log_sink, memory_order_acquire);
    if (sink) sink((int)args->severity, args->message);
}

/* The core has one log for the process; the last server that brings a sink gets it. */
static void take_core_log(void (*sink)(int level, const char *message)) {
    if (!sink) return;
    atomic_store_explicit(&core_log_sink, sink, memory_order_release);
    gpr_set_log_function(core_log);
}

/* ---- threads ------------------------------------------------------------------------------- */

static void arm_queue(rpc_queue *queue) {
    const rpc_server *server = queue->server;
    for (size_t i = 0; i < server->method_count; i++) {
        if (queue->extra && server->methods[i].kind == RPC_UNARY) continue;
        for (int n = 0; n < RPC_ARMED_CALLS; n++)
            rpc_call_arm(queue, i);
    }
    for (int n = 0; n < RPC_ARMED_UNKNOWN && !queue->extra; n++)
        rpc_call_arm(queue, server->method_count);
}

static void *queue_main(void *argument) {
    rpc_queue *queue = argument;
    rpc_server *server = queue->server;
    pthread_mutex_lock(&server->mutex);
    while (server->phase == RPC_WAITING)
        pthread_cond_wait(&server->changed, &server->mutex);
    bool serve = server->phase == RPC_RUNNING;
    pthread_mutex_unlock(&server->mutex);

    if (serve) arm_queue(queue);
    const gpr_timespec forever = gpr_inf_future(GPR_CLOCK_REALTIME);
    for (;;) {
        grpc_event event = grpc_completion_queue_next(queue->core, forever, NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) break;
        rpc_tag *tag = event.tag;
        tag->run(tag->of, event.success != 0);
    }
    rpc_call_free_all(queue);
    return NULL;
}

/* Signals are for the main thread: ours start with all of them blocked. */
static int start_thread(rpc_queue *queue) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&queue->thread, NULL, queue_main, queue);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static void set_phase(rpc_server *server, int phase) {
    pthread_mutex_lock(&server->mutex);
    server->phase = phase;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

/* ---- start --------------------------------------------------------------------------------- */

static grpc_arg int_arg(const char *key, uint64_t value) {
    return (grpc_arg){.type = GRPC_ARG_INTEGER,
                      .key = (char *)key,
                      .value.integer = value > INT32_MAX ? INT32_MAX : (int)value};
}

static grpc_server *create_core(const rpc_options *options) {
    grpc_resource_quota *quota = grpc_resource_quota_create("rpc");
    if (options->memory_bytes) grpc_resource_quota_resize(quota, options->memory_bytes);
    grpc_arg args[] = {
        {.type = GRPC_ARG_POINTER,
         .key = (char *)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
        /* With SO_REUSEPORT a second server would silently share the port. */
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
        int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, options->max_concurrent_streams),
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, options->max_message_bytes),
        int_arg(GRPC_ARG_MAX_METADATA_SIZE, options->max_metadata_bytes),
        int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, options->handshake_timeout_ms),
        /* Compressed requests get UNIMPLEMENTED: the core inflates a message before it looks at
         * its size, so a few KiB could take all memory. */
        int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1U << GRPC_COMPRESS_NONE),
        int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, MIN_RECV_PING_INTERVAL_MS),
        int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_TIME_MS),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
    };
    const grpc_channel_args all = {.num_args = sizeof args / sizeof *args, .args = args};
    grpc_server *core = grpc_server_create(&all, NULL);
    grpc_resource_quota_unref(quota);
    return core;
}

/* The one place that decides how connections are secured. */
static grpc_server_credentials *create_credentials(const rpc_options *options) {
    (void)options;
    return grpc_insecure_server_credentials_create();
}

static outcome bind_address(rpc_server *server, failure *why) {
    grpc_server_credentials *credentials = create_credentials(&server->options);
    server->port = grpc_server_add_http2_port(server->core, server->options.address, credentials);
    grpc_server_credentials_release(credentials);
    if (server->port == 0)
        return fail(why, ST_INVALID, "listen.address",
                    "cannot listen on %s: not an address, or in use", server->options.address);
    if (strncmp(server->options.address, "unix", 4) == 0) server->port = 0;
    return ST_OK;
}

static void shutdown_seen(void *of, bool ok) {
    (void)ok;
    rpc_server *server = of;
    pthread_mutex_lock(&server->mutex);
    server->shutdown_seen = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

/* Zeroed, and on cache lines of its own. */
static void *allocate(size_t count, size_t size) {
    size_t room = ((count ? count : 1) * size + RPC_CACHE_LINE - 1) & ~(size_t)(RPC_CACHE_LINE - 1);
    void *memory = aligned_alloc(RPC_CACHE_LINE, room);
    if (!memory) rpc_die("out of memory");
    memset(memory, 0, room);
    return memory;
}

static bool any_stream(const rpc_method *methods, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (methods[i].kind != RPC_UNARY) return true;
    return false;
}

/* An extra queue gets what the others' threads read. */
static grpc_completion_queue *create_queue(bool extra) {
    const grpc_completion_queue_attributes attributes = {
        .version = 1,
        .cq_completion_type = GRPC_CQ_NEXT,
        .cq_polling_type = extra ? GRPC_CQ_NON_POLLING : GRPC_CQ_DEFAULT_POLLING};
    return grpc_completion_queue_create(grpc_completion_queue_factory_lookup(&attributes),
                                        &attributes, NULL);
}

static rpc_server *create_server(const rpc_options *options, const rpc_method *methods,
                                 size_t method_count) {
    rpc_server *server = allocate(1, sizeof *server);
    server->options = *options;
    server->methods = methods;
    server->method_count = method_count;
    server->registered = allocate(method_count, sizeof *server->registered);
    server->queue_count = options->threads * (any_stream(methods, method_count) ? 2 : 1);
    server->queues = allocate(server->queue_count, sizeof *server->queues);
    server->shutdown_tag = (rpc_tag){.run = shutdown_seen, .of = server};
    pthread_mutex_init(&server->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);

    server->core = create_core(options);
    for (uint32_t i = 0; i < server->queue_count; i++) {
        rpc_queue *queue = &server->queues[i];
        queue->server = server;
        queue->extra = i >= options->threads;
        queue->core = create_queue(queue->extra);
        grpc_server_register_completion_queue(server->core, queue->core, NULL);
        queue->counters = allocate(method_count + 1, sizeof *queue->counters);
        queue->held_back = allocate(method_count, sizeof *queue->held_back);
        pthread_mutex_init(&queue->streams_mutex, NULL);
    }
    return server;
}

/* NULL, or the reason why `methods` cannot be served. The first message of a call that has one
 * only comes with the call itself, which spares a round through the queue. */
static const char *register_methods(rpc_server *server) {
    for (size_t i = 0; i < server->method_count; i++) {
        const rpc_method *method = &server->methods[i];
        if (!method->on_message || (method->kind == RPC_BIDI && !method->on_half_close) ||
            (method->kind != RPC_UNARY && !method->on_cancel))
            return method->path;
        server->registered[i] = grpc_server_register_method(
            server->core, method->path, NULL,
            method->kind == RPC_BIDI ? GRPC_SRM_PAYLOAD_NONE
                                     : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
            0);
        if (!server->registered[i]) return method->path;
    }
    return NULL;
}

/* Shuts the queues, ends the threads that run and frees all; no call may live. */
static void destroy_server(rpc_server *server, uint32_t threads_running) {
    for (uint32_t i = 0; i < server->queue_count; i++)
        grpc_completion_queue_shutdown(server->queues[i].core);
    for (uint32_t i = 0; i < server->queue_count; i++) {
        rpc_queue *queue = &server->queues[i];
        if (i < threads_running)
            pthread_join(queue->thread, NULL);
        else /* an empty queue: at once */
            (void)grpc_completion_queue_next(queue->core, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    }
    grpc_server_destroy(server->core);
    for (uint32_t i = 0; i < server->queue_count; i++) {
        rpc_queue *queue = &server->queues[i];
        grpc_completion_queue_destroy(queue->core);
        pthread_mutex_destroy(&queue->streams_mutex);
        free(queue->held_back);
        free(queue->counters);
    }
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    free(server->queues);
    free(server->registered);
    free(server);
    grpc_shutdown();
}

outcome rpc_server_start(const rpc_options *options, const rpc_method *methods, size_t method_count,
                         rpc_server **server, failure *why) {
    *server = NULL;
    if (options->threads < 1 || options->threads > 64)
        return fail(why, ST_INVALID, "listen.threads", "%u threads; 1 to 64", options->threads);
    if (options->stream_window < 1)
        return fail(why, ST_INVALID, "listen.stream_window", "must be at least 1");
    take_core_log(options->log);
    grpc_init();
    rpc_server *made = create_server(options, methods, method_count);
    uint32_t threads_running = 0;
    outcome result = ST_INTERNAL;

    const char *bad_method = register_methods(made);
    if (bad_method) {
        result = fail(why, ST_INTERNAL, "", "method table: %s: incomplete or twice", bad_method);
        goto abandon;
    }
    for (; threads_running < made->queue_count; threads_running++) {
        int error = start_thread(&made->queues[threads_running]);
        if (error == 0) continue;
        result =
            fail(why, ST_INTERNAL, "listen.threads", "cannot start a thread: %s", strerror(error));
        goto abandon;
    }
    result = bind_address(made, why); /* last: a core server that listens must be shut down */
    if (result != ST_OK) goto abandon;
    grpc_server_start(made->core);
    set_phase(made, RPC_RUNNING);
    *server = made;
    return ST_OK;

abandon:
    set_phase(made, RPC_ABANDONED);
    destroy_server(made, threads_running);
    return result;
}

int rpc_server_port(const rpc_server *server) { return server->port; }

/* ---- drain --------------------------------------------------------------------------------- */

void rpc_queue_idle(rpc_queue *queue) {
    rpc_server *server = queue->server;
    pthread_mutex_lock(&server->mutex);
    server->idle_queues++;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

static struct timespec in_ms(int64_t ms) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += (time_t)(ms / 1000);
    time.tv_nsec += (long)(ms % 1000) * 1000000;
    if (time.tv_nsec >= 1000000000) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000;
    }
    return time;
}

static bool is_idle(const rpc_server *server) { return server->idle_queues == server->queue_count; }

void rpc_server_drain(rpc_server *server, int64_t grace_ms) {
    if (atomic_load(&server->draining)) return;
    const struct timespec deadline = in_ms(grace_ms > 0 ? grace_ms : 0);
    atomic_store(&server->draining, true); /* from here on nothing is armed */
    grpc_server_shutdown_and_notify(server->core, server->queues[0].core, &server->shutdown_tag);
    for (uint32_t i = 0; i < server->queue_count; i++)
        rpc_call_drain_streams(&server->queues[i]);

    pthread_mutex_lock(&server->mutex);
    int error = 0;
    while (!is_idle(server) && error != ETIMEDOUT)
        error = pthread_cond_timedwait(&server->changed, &server->mutex, &deadline);
    if (!is_idle(server)) {
        pthread_mutex_unlock(&server->mutex);
        grpc_server_cancel_all_calls(server->core);
        pthread_mutex_lock(&server->mutex);
    }
    while (!is_idle(server))
        pthread_cond_wait(&server->changed, &server->mutex);
    pthread_mutex_unlock(&server->mutex);
}

/* The core says so when its connections are closed, too. One that never began to speak HTTP/2
 * lasts until the handshake's time-out, whatever we do. */
static void await_shutdown(rpc_server *server) {
    pthread_mutex_lock(&server->mutex);
    while (!server->shutdown_seen)
        pthread_cond_wait(&server->changed, &server->mutex);
    pthread_mutex_unlock(&server->mutex);
}

void rpc_server_free(rpc_server *server) {
    if (!server) return;
    rpc_server_drain(server, 0);
    await_shutdown(server);
    destroy_server(server, server->queue_count);
}

/* ---- figures ------------------------------------------------------------------------------- */

void rpc_server_stats(const rpc_server *server, size_t method, rpc_method_stats *stats) {
    memset(stats, 0, sizeof *stats);
    for (uint32_t i = 0; i < server->queue_count; i++) {
        const rpc_counters *counters = &server->queues[i].counters[method];
        stats->started += atomic_load_explicit(&counters->started, memory_order_relaxed);
        for (int code = 0; code < RPC_CODES; code++)
            stats->by_code[code] +=
                atomic_load_explicit(&counters->by_code[code], memory_order_relaxed);
    }
}

uint64_t rpc_server_calls(const rpc_server *server) {
    return atomic_load_explicit(&server->live_calls, memory_order_relaxed);
}
