/* failed_event: a record of the store as ingest/consumer.h shows it: texts that end with NUL, the
 * event as JSON. One thread at a time. */
#ifndef INGEST_CLIENT_FAILED_EVENT_H
#define INGEST_CLIENT_FAILED_EVENT_H

#include "ingest/consumer.h"
#include "storage/failed_store.h"

/* Buffers that are used again for the next one. Zeroed at first. */
typedef struct failed_view {
    ingest_failed_event event; /* borrows from the rest */
    char *texts;
    size_t texts_size;
    char *json;
    size_t json_size;
} failed_view;

/* False: no memory. */
MUST_CHECK bool failed_view_show(failed_view *view, const failed_record *record, bool with_event);
void failed_view_free(failed_view *view);

#endif
