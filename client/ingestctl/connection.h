/*
 * connection: one server, and calls to it that wait for their answer. The caller's thread does all
 * of the work. Its options are the same for every command: see connection.c.
 */
#ifndef INGEST_CLIENT_INGESTCTL_CONNECTION_H
#define INGEST_CLIENT_INGESTCTL_CONNECTION_H

#include "client/ingestctl/command.h"
#include <protobuf-c/protobuf-c.h>

#include "ingest/publisher.h"

typedef struct connection connection;

/* The options of connection, as the publishing library takes them; `timeout_ms` too. Borrows from
 * `given`, and from memory that lasts as long as the process. False: said on stderr. */
bool connection_options(const arguments *given, ingest_publisher_options *out);

/* Does not wait for the server. NULL: said on stderr. */
connection *connection_open(const arguments *given);
void connection_close(connection *it);

/*
 * A unary call of `path`, at most --timeout long. EX_OK: `*response` is of `type`, to be freed by
 * protobuf_c_message_free_unpacked. Otherwise the exit code, after saying on stderr what happened.
 */
int connection_call(connection *it, const char *path, const ProtobufCMessage *request,
                    const ProtobufCMessageDescriptor *type, ProtobufCMessage **response);

/* For what became of an event. */
int exit_code_of(ingest_status status);

#endif
