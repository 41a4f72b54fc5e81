/* store_opening: the start's way to its store, damaged or not. Main thread. */
#ifndef INGEST_SERVER_STORE_OPENING_H
#define INGEST_SERVER_STORE_OPENING_H

#include "storage/event_store.h"

/*
 * store_open; when the store is damaged, logs every damage and every loss with its route and
 * sequences, and fails with ST_CORRUPT and what to do. `accept_loss` is the name of a damage, as
 * such a refusal has logged it: that one is repaired, and the store opened. Another one is not, so
 * the setting does no harm when it stays.
 */
MUST_CHECK outcome store_opening(const store_options *options, const char *accept_loss,
                                 event_store **store, failure *why);

#endif
