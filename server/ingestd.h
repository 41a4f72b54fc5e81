/*
 * ingestd: what a running server consists of, and how it starts and stops.
 *
 * Start: store, publishers, services, gRPC, HTTP. Stop: health NOT_SERVING, gRPC drained, open
 * Kafka transactions finished, store closed. Every step forward is undone in reverse.
 */
#ifndef INGEST_SERVER_INGESTD_H
#define INGEST_SERVER_INGESTD_H

#include <stdatomic.h>

#include "server/config.h"
#include "server/health_service.h"
#include "server/http_server.h"
#include "server/ingest_service.h"
#include "server/publisher.h"
#include "server/reflection_service.h"
#include "server/rpc.h"
#include "server/trial.h"

#define INGESTD_METHODS_MAX 16

typedef struct ingestd {
    config config;
    catalogue *catalogue;
    trial_kafka *trial; /* NULL unless --trial */
    event_store *store;
    uint32_t store_routes[STORE_ROUTES_MAX];
    publisher *publishers[STORE_ROUTES_MAX]; /* by the configuration's order */
    ack_waiters *waiters;
    ingest_service ingest;
    health_service *health;
    reflection_service *reflection;
    rpc_method methods[INGESTD_METHODS_MAX];
    size_t method_count;
    rpc_server *rpc;
    http_server *http;
    int64_t started_ms; /* wall clock */
    atomic_bool accepting;
} ingestd;

/* `it->config` is loaded; the rest is zero. Blocks; not on Kafka. On failure all is undone. */
MUST_CHECK outcome ingestd_start(ingestd *it, failure *why);
/* Once a second, from the main thread: health follows the publishers. */
void ingestd_tick(ingestd *it);
/* Graceful; within config.shutdown_grace_ms. */
void ingestd_stop(ingestd *it);

#endif
