/* The words for a status, of both libraries. */
#include "ingest/publisher.h"

const char *ingest_status_text(ingest_status status) {
    static const char *const TEXTS[] = {
        [INGEST_OK] = "ok",
        [INGEST_INVALID] = "the event is not valid",
        [INGEST_CONFLICT] = "the id has other content",
        [INGEST_DENIED] = "not allowed",
        [INGEST_DEAD] = "set aside as a dead letter",
        [INGEST_TIMEOUT] = "not answered in time",
        [INGEST_WINDOW_FULL] = "too many events in flight",
        [INGEST_CLOSED] = "the publisher is closed",
        [INGEST_UNSUPPORTED] = "the server cannot do this",
        [INGEST_FAILED] = "the server failed",
    };
    return (size_t)status < sizeof TEXTS / sizeof *TEXTS ? TEXTS[status] : "unknown";
}
