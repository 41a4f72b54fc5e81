/*
 * effects: what is to be done for each operation of the catalogue, in order: its indexes, then its
 * tables, all_of(…) and complete(…) resolved as storage/catalogue.h says, each once. An operation
 * without any is one effect itself. Immutable once its handlers are bound: any thread.
 */
#ifndef INGEST_CLIENT_EFFECTS_H
#define INGEST_CLIENT_EFFECTS_H

#include "ingest/consumer.h"
#include "storage/catalogue.h"

typedef struct effect {
    ingest_effect_kind kind;
    const char *name;
    ingest_handler handler; /* NULL until bound */
    void *arg;
} effect;

typedef struct operation_effects {
    const char *operation;
    effect *items;
    uint32_t count; /* at least 1 */
    bool transaction;
} operation_effects;

typedef struct effects effects;

/* Takes the catalogue, also when it fails: ST_INVALID for an all_of() that contains itself. */
MUST_CHECK outcome effects_new(catalogue *all, effects **out, failure *why);
void effects_free(effects *it);

/* NULL: the catalogue does not have it. Constant time. */
const operation_effects *effects_of(const effects *it, bytes operation);
/* Of all names, in order: a text of progress counts by them. */
uint32_t effects_crc(const effects *it);

/* Asks for the handler of each effect. False for one of them: ST_PRECONDITION names it. */
MUST_CHECK outcome effects_bind(effects *it, bool (*find)(const void *arg, effect *one),
                                const void *arg, failure *why);

#endif
