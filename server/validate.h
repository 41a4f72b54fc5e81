/*
 * validate: whether a decoded event may come in. Every refusal names the field's path, what is
 * wrong, the limit and what to do. Pure; any thread.
 *
 * The wire has been checked before (codec_check): well-formed, valid UTF-8 without NUL, bounded
 * depth.
 */
#ifndef INGEST_SERVER_VALIDATE_H
#define INGEST_SERVER_VALIDATE_H

#include "ingest/v1/events.pb-c.h"
#include "server/arena.h"
#include "storage/catalogue.h"

enum {
    EVENT_ID_MAX_BYTES = 256,
    EVENT_SOURCE_MAX_BYTES = 256,
    EVENT_KEY_MAX_BYTES = 1024,
    EVENT_ENTITY_ID_MAX_BYTES = 1024,
    EVENT_ATTRIBUTES_MAX = 64,
    EVENT_ATTRIBUTE_NAME_MAX_BYTES = 128,
    EVENT_ATTRIBUTE_VALUE_MAX_BYTES = 4096,
    EVENT_MESSAGE_DEPTH_MAX = 100, /* messages within messages, the request counts */
};

typedef struct validated_event {
    const char *type;             /* transaction or informative name; borrows from the event */
    const catalogue_entry *entry; /* of that name; decides the route */
    uint32_t operations;          /* 0 for an informative event */
} validated_event;

/* `prefix` is the event's own path, such as "event" or "events[3]". `scratch` serves large maps.
 * `all` may be NULL (a client without a catalogue): names are not looked up, `out->entry` is NULL.
 */
MUST_CHECK outcome validate_event(const Ingest__V1__Event *event, const catalogue *all,
                                  size_t max_operations, const char *prefix, arena *scratch,
                                  validated_event *out, failure *why);

/* A name that occurs twice, or NULL. Sorts `names`. */
const char *first_duplicate(const char **names, size_t count);

#endif
