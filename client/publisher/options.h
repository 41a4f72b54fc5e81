/* The publisher's options: defaults, checks, and what follows from them. */
#ifndef INGEST_CLIENT_OPTIONS_H
#define INGEST_CLIENT_OPTIONS_H

#include <grpc/grpc_security.h>

#include "client/publisher/target.h"
#include "ingest/publisher.h"

typedef struct opened_options {
    target target;
    grpc_channel_credentials *credentials; /* owned */
    char *authorization;                   /* owned; NULL: no token */
} opened_options;

/* Reads the files. False: `why` names the option; `out` holds nothing then. */
bool options_open(const ingest_publisher_options *options, opened_options *out, char *why,
                  size_t size);
void options_close(opened_options *it);

#endif
