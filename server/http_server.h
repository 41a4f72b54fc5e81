/*
 * http_server: a small HTTP server for metrics and probes, on libmicrohttpd. GET and HEAD only.
 *
 * Threads: one of its own runs all handlers, one at a time; a handler may read the disk for a
 * moment but must not wait. Connections are few and short: 64 at once, 10 seconds idle.
 */
#ifndef INGEST_SERVER_HTTP_SERVER_H
#define INGEST_SERVER_HTTP_SERVER_H

#include "server/metrics.h"
#include "storage/status.h"

typedef struct http_server http_server;

typedef struct http_route {
    const char *path;         /* "/metrics"; exact, without the query */
    const char *content_type; /* of the answer, whatever its status */
    /* Writes the body and returns the HTTP status. */
    int (*handle)(void *arg, text_buffer *body);
    void *arg;
} http_route;

#define HTTP_TEXT "text/plain; charset=utf-8"
#define HTTP_PROMETHEUS "text/plain; version=0.0.4; charset=utf-8"

/*
 * Binds `address` (host:port, [v6]:port; port 0 picks one) and serves. `routes` are copied, what
 * they point to must outlive the server. ST_INVALID (field "http.address") when the address
 * cannot be bound. Blocks for the look-up of a host name.
 */
MUST_CHECK outcome http_server_start(const char *address, const http_route *routes,
                                     size_t route_count, http_server **out, failure *why);
int http_server_port(const http_server *it);
/* Ends the thread, closes all, frees. No handler runs when it returns. NULL does nothing. */
void http_server_stop(http_server *it);

#endif
