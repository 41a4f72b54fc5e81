/* The socket is ours, so that a bad address gets a precise error; libmicrohttpd does the rest. */
#include "server/http_server.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/address.h"

#define CONNECTIONS_MAX 64
#define IDLE_SECONDS 10
#define CONNECTION_BYTES 16384 /* request line, headers and their answer */
#define BACKLOG 64

struct http_server {
    struct MHD_Daemon *daemon; /* owns the socket once it runs */
    int port;
    size_t route_count;
    http_route routes[];
};

/* ---- answering ------------------------------------------------------------------------- */

/* Takes `body` over. */
static enum MHD_Result answer(struct MHD_Connection *connection, int status,
                              const char *content_type, text_buffer *body) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        text_free(body);
        return MHD_NO; /* closes the connection */
    }
    bool good = MHD_add_response_header(response, "Content-Type", content_type) == MHD_YES;
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        good = MHD_add_response_header(response, "Allow", "GET, HEAD") == MHD_YES && good;
    enum MHD_Result result =
        good ? MHD_queue_response(connection, (unsigned)status, response) : MHD_NO;
    MHD_destroy_response(response); /* frees the body when it is sent */
    return result;
}

static enum MHD_Result answer_plain(struct MHD_Connection *connection, int status,
                                    const char *text) {
    text_buffer body = {0};
    text_add(&body, text, strlen(text));
    return answer(connection, status, HTTP_TEXT, &body);
}

static const http_route *find_route(const http_server *it, const char *path) {
    for (size_t i = 0; i < it->route_count; i++)
        if (strcmp(it->routes[i].path, path) == 0) return &it->routes[i];
    return NULL;
}

static enum MHD_Result on_request(void *server, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state) {
    (void)version;
    (void)upload;
    const http_route *route = find_route(server, url);
    if (!route) return answer_plain(connection, MHD_HTTP_NOT_FOUND, "not found\n");
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return answer_plain(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");

    /* First comes a call with the headers alone; to answer it would close the connection. */
    if (!*state) {
        *state = server;
        return MHD_YES;
    }
    if (*upload_size > 0) { /* a GET with a body: read past it */
        *upload_size = 0;
        return MHD_YES;
    }
    text_buffer body = {0};
    int status = route->handle(route->arg, &body);
    if (!body.failed) return answer(connection, status, route->content_type, &body);
    text_free(&body);
    return answer_plain(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory\n");
}

/* ---- the socket ------------------------------------------------------------------------ */

/* Bound and listening, or -1 and errno. */
static int listen_at(const struct addrinfo *at) {
    int on = 1;
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
    if (fd < 0) return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int kept = errno;
    close(fd);
    errno = kept;
    return -1;
}

static outcome open_socket(const char *text, int *fd, failure *why) {
    net_address parsed;
    if (!address_parse(text, &parsed) || parsed.is_unix)
        return fail(why, ST_INVALID, "http.address", "\"%s\" is not host:port or [v6]:port", text);
    char port[8];
    (void)snprintf(port, sizeof port, "%u", (unsigned)parsed.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *found;
    int error = getaddrinfo(parsed.host, port, &hints, &found);
    if (error) return fail(why, ST_INVALID, "http.address", "%s: %s", text, gai_strerror(error));
    *fd = -1;
    for (const struct addrinfo *at = found; at && *fd < 0; at = at->ai_next)
        *fd = listen_at(at);
    int kept = errno;
    freeaddrinfo(found);
    if (*fd < 0)
        return fail(why, ST_INVALID, "http.address", "cannot listen on %s: %s", text,
                    strerror(kept));
    return ST_OK;
}

static int port_of(int fd) {
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &len) != 0) return 0;
    if (name.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
    return ntohs(((struct sockaddr_in *)&name)->sin_port);
}

/* ---- public ---------------------------------------------------------------------------- */

outcome http_server_start(const char *address, const http_route *routes, size_t route_count,
                          http_server **out, failure *why) {
    int fd;
    outcome result = open_socket(address, &fd, why);
    if (result != ST_OK) return result;
    http_server *it = calloc(1, sizeof *it + route_count * sizeof *routes);
    if (!it) {
        close(fd);
        return fail(why, ST_NO_MEMORY, "http.address", "out of memory");
    }
    it->port = port_of(fd);
    it->route_count = route_count;
    memcpy(it->routes, routes, route_count * sizeof *routes);
    it->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO, 0, NULL, NULL, on_request, it,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_END);
    if (!it->daemon) {
        close(fd);
        free(it);
        return fail(why, ST_INTERNAL, "http.address", "libmicrohttpd does not start");
    }
    *out = it;
    return ST_OK;
}

int http_server_port(const http_server *it) { return it->port; }

void http_server_stop(http_server *it) {
    if (!it) return;
    MHD_stop_daemon(it->daemon);
    free(it);
}
