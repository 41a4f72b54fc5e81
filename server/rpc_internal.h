/*
 * What rpc_server.c (queues, threads, start and drain) and rpc_call.c (one call from its arrival
 * to its end) share. Nobody else includes this.
 *
 * The rule that keeps it simple: a call belongs to one completion queue, and a queue has exactly
 * one thread. All tags of a call come back there, so callbacks of one call cannot run side by
 * side, and a call is freed there and nowhere else: it stays valid for as long as one of its
 * callbacks runs, whatever other threads do to it meanwhile.
 */
#ifndef INGEST_SERVER_RPC_INTERNAL_H
#define INGEST_SERVER_RPC_INTERNAL_H

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "server/rpc.h"

enum {
    RPC_CODES = 17,           /* gRPC status codes, 0 to 16 */
    RPC_CACHE_LINE = 64,      /* bytes */
    RPC_ARMED_CALLS = 16,     /* kept waiting per method and queue; measured: 8 to 16 cost least */
    RPC_ARMED_UNKNOWN = 8,    /* the same for methods that nobody registered */
    RPC_RETRY_MS = 1000,      /* hint to callers refused for max_calls */
    RPC_FREE_CALLS = 2048,    /* kept per queue for reuse; more go back to malloc */
    RPC_SHARED_STREAMS = 256, /* of a queue that has unary calls, too */
};

/* What the completion queue hands back: who wants to know, and how to tell them. */
typedef struct rpc_tag {
    void (*run)(void *of, bool ok);
    void *of;
} rpc_tag;

typedef struct rpc_counters { /* one writer, the queue's thread */
    _Atomic uint64_t started;
    _Atomic uint64_t by_code[RPC_CODES];
} rpc_counters;

typedef struct rpc_queue {
    rpc_server *server;
    grpc_completion_queue *core;
    pthread_t thread;
    bool extra; /* only for streams beyond RPC_SHARED_STREAMS; it does not poll the network */

    /* The queue's thread only. */
    rpc_call *free_calls; /* owned; linked by `next` */
    uint32_t free_count;
    uint64_t outstanding;   /* calls armed or live; 0 while draining: the queue is idle for good */
    rpc_counters *counters; /* owned; by method, the last for unknown ones; others read */
    uint32_t live_streams;
    uint32_t held_back_count; /* calls of streams that are not armed, as there are so many */
    uint32_t *held_back;      /* owned; by method */

    /* Live streams, so that a drain finds them. Order: this mutex, then a call's. */
    pthread_mutex_t streams_mutex;
    rpc_call *streams;
} __attribute__((aligned(RPC_CACHE_LINE))) rpc_queue;

struct rpc_server {
    rpc_options options;       /* address and log borrowed until the start returned */
    const rpc_method *methods; /* borrowed */
    size_t method_count;
    void **registered; /* owned; the core's handle of each method */
    grpc_server *core;
    int port;
    rpc_queue *queues; /* owned; options.threads, and as many extra ones */
    uint32_t queue_count;
    rpc_tag shutdown_tag;

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    enum { RPC_WAITING, RPC_RUNNING, RPC_ABANDONED } phase; /* what the threads wait for */
    uint32_t idle_queues;
    bool shutdown_seen;

    _Atomic bool draining;
    _Alignas(RPC_CACHE_LINE) _Atomic uint64_t live_calls;
};

/* rpc_call.c; all on the queue's thread. */
void rpc_call_arm(rpc_queue *queue, size_t method);
void rpc_call_free_all(rpc_queue *queue);
/* Any thread: makes the queue's thread call on_cancel for every stream that lives. */
void rpc_call_drain_streams(rpc_queue *queue);

/* rpc_server.c: the last call of a draining queue is gone. */
void rpc_queue_idle(rpc_queue *queue);
/* Ends the process: the caller broke the contract of rpc.h, or there is no memory. */
_Noreturn void rpc_die(const char *what);

#endif
