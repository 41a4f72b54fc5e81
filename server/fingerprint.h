/*
 * fingerprint: 128 bits of an event's content, to tell a retried request from another event under
 * the same id. Independent of the order of map entries and of the wire encoding, so an honest
 * client that builds its request anew is never refused. Not a defence against a caller who
 * searches for collisions: it would only deceive itself. Pure; any thread.
 */
#ifndef INGEST_SERVER_FINGERPRINT_H
#define INGEST_SERVER_FINGERPRINT_H

#include "ingest/v1/events.pb-c.h"
#include "storage/event_store.h"

/* Of the event as it was sent, that is before id, key and time are filled in. An empty key counts
 * as the id, since that is what it means. Recursion is bounded by codec_check's depth. */
void fingerprint_event(const Ingest__V1__Event *event, uint8_t out[STORE_FINGERPRINT_SIZE]);

#endif
