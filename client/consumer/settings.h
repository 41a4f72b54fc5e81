/* settings: the options of a consumer, checked and copied. Immutable afterwards: any thread. */
#ifndef INGEST_CLIENT_SETTINGS_H
#define INGEST_CLIENT_SETTINGS_H

#include "ingest/consumer.h"
#include "storage/status.h"

typedef struct settings {
    ingest_consumer_options options; /* its texts and lists are owned */
} settings;

/* ST_INVALID names the option. */
MUST_CHECK outcome settings_copy(const ingest_consumer_options *from, settings *to, failure *why);
void settings_free(settings *it);

#endif
