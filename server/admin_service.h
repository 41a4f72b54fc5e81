/* admin_service: the methods of ingest.v1.AdminService. Handlers run on rpc threads. */
#ifndef INGEST_SERVER_ADMIN_SERVICE_H
#define INGEST_SERVER_ADMIN_SERVICE_H

#include "server/ingestd.h"

#define ADMIN_METHOD_COUNT 1
void admin_methods(ingestd *server, rpc_method out[ADMIN_METHOD_COUNT]);

#endif
