/*
 * rpc: a small gRPC server runtime over the C core. It owns connections, completion queues and
 * threads; a service is a table of methods whose handlers are plain functions. This header is all
 * that handlers see of gRPC.
 *
 * Threads: `threads` rpc threads poll, decode frames and run the handlers, and as many serve
 * streams where there are hundreds; handlers must not block. rpc_send, rpc_reply and rpc_fail may
 * be called from any thread (the committer's, for instance).
 *
 * Life of a call: on_message begins it (unary: called exactly once). From the first callback on the
 * call is the handler's until it calls rpc_reply or rpc_fail, exactly once, even when the client
 * is gone by then (the answer is dropped silently). After that the pointer is invalid.
 */
#ifndef INGEST_SERVER_RPC_H
#define INGEST_SERVER_RPC_H

#include <protobuf-c/protobuf-c.h>

#include "server/arena.h"
#include "storage/bytes.h"
#include "storage/status.h"

typedef struct rpc_server rpc_server;
typedef struct rpc_call rpc_call;

typedef enum rpc_kind {
    RPC_UNARY,         /* one message, one reply */
    RPC_SERVER_STREAM, /* one message, many rpc_send, rpc_fail(ST_OK) or another to end */
    RPC_BIDI,          /* many messages, many rpc_send */
} rpc_kind;

typedef struct rpc_method {
    const char *path; /* "/ingest.v1.IngestService/Publish" */
    rpc_kind kind;
    /* A message arrived; its bytes stay valid until the call ends (unary, server stream), or, with
     * RPC_BIDI, until rpc_message_done. rpc thread; callbacks of one call never run side by side.
     */
    void (*on_message)(rpc_call *call, bytes message);
    /* RPC_BIDI: the client will send no more. The handler ends the call when it has answered all.
     */
    void (*on_half_close)(rpc_call *call);
    /* The client is gone (cancelled, deadline passed, connection lost), or the server is draining
     * a stream (RPC_SERVER_STREAM, RPC_BIDI). The handler still has to end the call. Comes at most
     * once, after it comes no other callback, and it does not begin after the handler has ended
     * the call. When another thread ends it at that very moment the two may overlap: what both
     * touch belongs in rpc_alloc memory, which stays until on_cancel returns. Of unary calls only
     * those are told that called rpc_watch; it may be NULL for unary methods only. */
    void (*on_cancel)(rpc_call *call);
    /* Streams: all that was sent is on the wire (rpc_send_queue is 0), the call is still open. For
     * handlers that send unasked and skip states meanwhile. May be NULL. */
    void (*on_sent)(rpc_call *call);
    void *service; /* for the handlers: rpc_service(call) */
} rpc_method;

typedef struct rpc_options {
    const char *address;             /* host:port, [v6]:port, unix:/path; port 0 picks one */
    uint32_t threads;                /* 1 .. 64 */
    uint32_t max_message_bytes;      /* received; above it the core answers RESOURCE_EXHAUSTED */
    uint32_t max_metadata_bytes;     /* soft limit of request metadata; 16 KiB */
    uint32_t max_concurrent_streams; /* per connection */
    uint32_t max_calls;              /* over all; above it RESOURCE_EXHAUSTED with RetryInfo */
    uint64_t memory_bytes;           /* resource quota of the core */
    uint32_t handshake_timeout_ms;   /* 10,000 */
    uint32_t stream_window;          /* RPC_BIDI: messages delivered and not yet done; above it the
                                        runtime stops reading the stream */
    void (*log)(int level, const char *message); /* rare troubles; may be NULL */
} rpc_options;

/* Binds and begins to serve. `methods` must outlive the server. ST_INVALID when the address cannot
 * be bound (field "listen.address"). */
MUST_CHECK outcome rpc_server_start(const rpc_options *options, const rpc_method *methods,
                                    size_t method_count, rpc_server **server, failure *why);
/* The port in use, 0 for unix sockets. */
int rpc_server_port(const rpc_server *server);
/*
 * Stops taking calls (GOAWAY), lets those in flight end, cancels what is left after `grace_ms`,
 * and returns when no call lives any more. Blocks. Handlers may still be answering meanwhile.
 */
void rpc_server_drain(rpc_server *server, int64_t grace_ms);
/* After rpc_server_drain. Blocks until all connections are closed: one that never began to speak
 * HTTP/2 can make that `handshake_timeout_ms`. A process that exits need not wait for it. */
void rpc_server_free(rpc_server *server);

typedef struct rpc_method_stats {
    uint64_t started;
    uint64_t by_code[17]; /* ended, by gRPC code */
} rpc_method_stats;
void rpc_server_stats(const rpc_server *server, size_t method, rpc_method_stats *stats);
uint64_t rpc_server_calls(const rpc_server *server); /* in flight */

/* ---- for handlers ---------------------------------------------------------------------- */

void *rpc_service(const rpc_call *call);
/* One pointer of the handler's own; NULL at first. */
void rpc_set_state(rpc_call *call, void *state);
void *rpc_state(const rpc_call *call);

/* Memory that lives as long as the call, and as long as one of its callbacks runs. For the rpc
 * thread and, before the call ends, its one owner: not thread-safe. Not for each message of a
 * stream: it would only grow. rpc_alloc is arena_alloc on it. */
arena *rpc_arena(rpc_call *call);
void *rpc_alloc(rpc_call *call, size_t size);

/* Value of request metadata, empty when absent. Valid while the call lives. */
bytes rpc_metadata(const rpc_call *call, const char *name);
/* Milliseconds until the client's deadline; INT64_MAX without one. */
int64_t rpc_deadline_ms(const rpc_call *call);

/* A unary call that may last: from now on on_cancel tells when the client is gone. In on_message,
 * before another thread knows the call. */
void rpc_watch(rpc_call *call);

/* Ends a unary call with this message. */
void rpc_reply(rpc_call *call, const ProtobufCMessage *message);
/*
 * Ends any call with a status; code 0 for streams that went well. `details` is an encoded
 * google.rpc.Status for the grpc-status-details-bin trailer, or empty.
 */
void rpc_fail(rpc_call *call, int grpc_code, const char *message, bytes details);

/* Streams: queues a message to the client, in order; packs it at once. Never blocks; the queue is
 * bounded, since RPC_BIDI is not read while `stream_window` messages wait here. */
void rpc_send(rpc_call *call, const ProtobufCMessage *message);
/* Streams: messages still queued for the wire. A handler that sends unasked (Watch) skips states
 * rather than let this grow. */
uint32_t rpc_send_queue(const rpc_call *call);
/* RPC_BIDI: the handler is through with its `count` oldest messages: their bytes go, and as many
 * may be read. Any thread. */
void rpc_message_done(rpc_call *call, uint32_t count);

#endif
