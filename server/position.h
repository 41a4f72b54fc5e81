/*
 * position: the record on the positions topic that says how far a route has been published. It is
 * written in the same Kafka transaction as the events, so it is true whenever it can be read.
 * Pure; any thread.
 *
 * Key: "<store UUID>/<route name>", so that compaction keeps the newest of each route.
 * Value, version 1, POSITION_SIZE bytes:
 *   offset 0   1 byte    version, 1
 *   offset 1   16 bytes  incarnation of the store that wrote it
 *   offset 17  8 bytes   last sequence published, big-endian; 0: none yet
 * Kafka's own CRC covers it. A reader refuses every other version and length.
 */
#ifndef INGEST_SERVER_POSITION_H
#define INGEST_SERVER_POSITION_H

#include "storage/bytes.h"
#include "storage/status.h"
#include "storage/uuid.h"

#define POSITION_SIZE 25
#define POSITION_KEY_SIZE 128 /* 36, a slash, a route's name and the NUL */

typedef struct position {
    uuid incarnation;
    uint64_t sequence;
} position;

void position_key(const uuid *store, const char *route, char key[POSITION_KEY_SIZE]);
void position_encode(const position *it, uint8_t value[POSITION_SIZE]);
/* ST_CORRUPT when it is not one of ours, or of a later version. */
MUST_CHECK outcome position_decode(bytes value, position *it, failure *why);

#endif
