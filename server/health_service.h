/*
 * health_service: grpc.health.v1.Health. Names that were never set are unknown: Check answers
 * NOT_FOUND, Watch says SERVICE_UNKNOWN and goes on watching, as the protocol wants.
 */
#ifndef INGEST_SERVER_HEALTH_SERVICE_H
#define INGEST_SERVER_HEALTH_SERVICE_H

#include "server/rpc.h"

enum {
    HEALTH_METHODS = 2,
    HEALTH_NAMES_MAX = 16,     /* services with a state */
    HEALTH_NAME_MAX = 256,     /* bytes of a name, with its NUL */
    HEALTH_WATCHERS_MAX = 256, /* Watch calls at a time; more get RESOURCE_EXHAUSTED */
};

typedef struct health_service health_service;

health_service *health_new(void);          /* NULL: no memory */
void health_free(health_service *service); /* after its servers are drained */
size_t health_methods(health_service *service, rpc_method out[HEALTH_METHODS]);

/* Sets one state ("" is the whole server) and tells who watches it. Any thread; does not block. */
void health_set(health_service *service, const char *name, bool serving);
/* All NOT_SERVING, for good: later calls of health_set do nothing. Before rpc_server_drain. */
void health_shutdown(health_service *service);

#endif
