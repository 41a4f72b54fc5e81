/* control_socket: where the control socket is, for both ends. Any thread. */
#ifndef INGEST_CLIENT_CONTROL_SOCKET_H
#define INGEST_CLIENT_CONTROL_SOCKET_H

#include "storage/status.h"

/* Listens in the folder, in place of what is there; 0600, not blocking. */
MUST_CHECK outcome control_socket_listen(const char *directory, int *listener, failure *why);
void control_socket_remove(const char *directory);
/* ST_UNAVAILABLE: nobody listens. The socket blocks, at most `timeout_ms` at a time. */
MUST_CHECK outcome control_socket_connect(const char *directory, int timeout_ms, int *connected,
                                          failure *why);

#endif
