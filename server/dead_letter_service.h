/*
 * dead_letter_service: the methods of ingest.v1.AdminService about dead letters. Handlers run on
 * rpc threads; replays and purges are answered on the committer's, when they are synced.
 */
#ifndef INGEST_SERVER_DEAD_LETTER_SERVICE_H
#define INGEST_SERVER_DEAD_LETTER_SERVICE_H

#include "server/ingestd.h"

#define DEAD_LETTER_METHOD_COUNT 4
void dead_letter_methods(ingestd *server, rpc_method out[DEAD_LETTER_METHOD_COUNT]);

#endif
