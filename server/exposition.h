/*
 * exposition: what the HTTP port shows of a running server: /metrics, /livez, /readyz.
 * On the HTTP server's thread, from snapshots.
 */
#ifndef INGEST_SERVER_EXPOSITION_H
#define INGEST_SERVER_EXPOSITION_H

#include "server/ingestd.h"

MUST_CHECK outcome exposition_start(ingestd *server, http_server **out, failure *why);

#endif
