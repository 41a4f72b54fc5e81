/* Walks the event once, top down, and stops at the first thing that is wrong. */
#include "server/validate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A path is kept as a chain on the stack and written out only for a refusal. */
typedef struct path {
    const struct path *parent;
    const char *name; /* NULL: an index */
    size_t index;
} path;

static size_t path_write(const path *at, char *out, size_t capacity) {
    size_t len = at->parent ? path_write(at->parent, out, capacity) : 0;
    if (len >= capacity) return len;
    int added = at->name
                    ? snprintf(out + len, capacity - len, "%s%s", at->parent ? "." : "", at->name)
                    : snprintf(out + len, capacity - len, "[%zu]", at->index);
    return added > 0 ? len + (size_t)added : len;
}

#define REFUSE(why, code, at, ...)                                                                 \
    do {                                                                                           \
        char field_[sizeof((failure *)0)->field];                                                  \
        (void)path_write(at, field_, sizeof field_);                                               \
        return fail(why, code, field_, __VA_ARGS__);                                               \
    } while (0)

static outcome check_length(const char *text, size_t max, const path *at, failure *why) {
    const size_t len = strlen(text);
    if (len > max)
        REFUSE(why, ST_TOO_LARGE, at, "has %zu bytes, at most %zu are allowed", len, max);
    return ST_OK;
}

/* ---- JSON data ------------------------------------------------------------------------- */

static outcome check_struct(const Google__Protobuf__Struct *object, const path *at, arena *scratch,
                            failure *why);

static outcome check_value(const Google__Protobuf__Value *value, const path *at, arena *scratch,
                           failure *why) {
    switch (value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        if (!isfinite(value->number_value))
            REFUSE(why, ST_INVALID, at, "is not a finite number, which JSON cannot hold");
        return ST_OK;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        return check_struct(value->struct_value, at, scratch, why);
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        for (size_t i = 0; i < value->list_value->n_values; i++) {
            const path item = {.parent = at, .index = i};
            const outcome result = check_value(value->list_value->values[i], &item, scratch, why);
            if (result != ST_OK) return result;
        }
        return ST_OK;
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
        REFUSE(why, ST_INVALID, at, "has no value; a JSON null is null_value");
    default:
        return ST_OK;
    }
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Protobuf decoders disagree with JSON readers about a name given twice, so it is refused. */
const char *first_duplicate(const char **names, size_t count) {
    enum { FEW = 12 };
    if (count <= FEW) {
        for (size_t i = 1; i < count; i++)
            for (size_t j = 0; j < i; j++)
                if (strcmp(names[i], names[j]) == 0) return names[i];
        return NULL;
    }
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0) return names[i];
    return NULL;
}

static outcome check_struct(const Google__Protobuf__Struct *object, const path *at, arena *scratch,
                            failure *why) {
    if (object->n_fields == 0) return ST_OK;
    const char **names = arena_alloc(scratch, object->n_fields * sizeof *names);
    for (size_t i = 0; i < object->n_fields; i++) {
        const Google__Protobuf__Struct__FieldsEntry *field = object->fields[i];
        const path here = {.parent = at, .name = field->key};
        if (!field->value)
            REFUSE(why, ST_INVALID, &here, "has no value; a JSON null is null_value");
        const outcome result = check_value(field->value, &here, scratch, why);
        if (result != ST_OK) return result;
        names[i] = field->key;
    }
    const char *twice = first_duplicate(names, object->n_fields);
    if (twice) REFUSE(why, ST_INVALID, at, "has the name \"%.64s\" twice", twice);
    return ST_OK;
}

/* ---- the bodies ------------------------------------------------------------------------ */

static outcome find_entry(const catalogue *all, const char *name, bool transaction, const path *at,
                          const catalogue_entry **entry, failure *why) {
    *entry = NULL;
    if (!all) return ST_OK;
    *entry = catalogue_find(all, bytes_of_string(name));
    if (!*entry)
        REFUSE(why, ST_UNKNOWN_OPERATION, at,
               "\"%.64s\" is not in the catalogue; use one of its %zu operations or add it", name,
               catalogue_count(all));
    if ((*entry)->transaction != transaction)
        REFUSE(why, ST_INVALID, at, "\"%.64s\" is %s entry of the catalogue; send it as %s", name,
               transaction ? "an informative" : "a transaction",
               transaction ? "event.informative" : "an operation of event.transaction");
    return ST_OK;
}

static outcome check_operation(const Ingest__V1__Operation *operation, const catalogue *all,
                               const path *at, arena *scratch, const catalogue_entry **entry,
                               failure *why) {
    const path name = {.parent = at, .name = "name"};
    const path entity_id = {.parent = at, .name = "entity_id"};
    const path data = {.parent = at, .name = "data"};
    if (!operation->name[0]) REFUSE(why, ST_INVALID, &name, "is empty; name the operation");
    outcome result = find_entry(all, operation->name, true, &name, entry, why);
    if (result != ST_OK) return result;
    result = check_length(operation->entity_id, EVENT_ENTITY_ID_MAX_BYTES, &entity_id, why);
    if (result != ST_OK) return result;
    if (operation->payload_case == INGEST__V1__OPERATION__PAYLOAD_DATA)
        return check_struct(operation->data, &data, scratch, why);
    return ST_OK;
}

static outcome check_transaction(const Ingest__V1__Transaction *transaction, const catalogue *all,
                                 size_t max_operations, const path *at, arena *scratch,
                                 validated_event *out, failure *why) {
    const path name = {.parent = at, .name = "name"};
    const path operations = {.parent = at, .name = "operations"};
    const size_t count = transaction->n_operations;
    if (count == 0) REFUSE(why, ST_INVALID, &operations, "is empty; a transaction needs one");
    if (count > max_operations)
        REFUSE(why, ST_TOO_LARGE, &operations, "has %zu operations, at most %zu are allowed", count,
               max_operations);
    if (count > 1 && !transaction->name[0])
        REFUSE(why, ST_INVALID, &name, "is required with several operations; name the transaction");

    const catalogue_entry *first = NULL;
    for (size_t i = 0; i < count; i++) {
        const path item = {.parent = &operations, .index = i};
        const catalogue_entry *entry = NULL;
        const outcome result =
            check_operation(transaction->operations[i], all, &item, scratch, &entry, why);
        if (result != ST_OK) return result;
        if (i == 0) first = entry;
    }
    out->operations = (uint32_t)count;
    out->type = transaction->operations[0]->name;
    out->entry = first;
    if (!transaction->name[0]) return ST_OK;
    out->type = transaction->name;
    return find_entry(all, transaction->name, true, &name, &out->entry, why);
}

static outcome check_informative(const Ingest__V1__Informative *informative, const catalogue *all,
                                 const path *at, arena *scratch, validated_event *out,
                                 failure *why) {
    const path name = {.parent = at, .name = "name"};
    const path entity_id = {.parent = at, .name = "entity_id"};
    const path data = {.parent = at, .name = "data"};
    if (!informative->name[0]) REFUSE(why, ST_INVALID, &name, "is empty; name the notice");
    outcome result = find_entry(all, informative->name, false, &name, &out->entry, why);
    if (result != ST_OK) return result;
    out->type = informative->name;
    out->operations = 0;
    result = check_length(informative->entity_id, EVENT_ENTITY_ID_MAX_BYTES, &entity_id, why);
    if (result != ST_OK) return result;
    if (informative->payload_case == INGEST__V1__INFORMATIVE__PAYLOAD_DATA)
        return check_struct(informative->data, &data, scratch, why);
    return ST_OK;
}

/* ---- the envelope ---------------------------------------------------------------------- */

static outcome check_time(const Google__Protobuf__Timestamp *time, const path *at, failure *why) {
    /* The range that RFC 3339 and protobuf's JSON can hold: years 0001 to 9999. */
    static const int64_t EARLIEST = -62135596800, LATEST = 253402300799;
    if (time->seconds < EARLIEST || time->seconds > LATEST)
        REFUSE(why, ST_INVALID, at, "%" PRId64 " s is outside the years 0001 to 9999",
               time->seconds);
    if (time->nanos < 0 || time->nanos > 999999999)
        REFUSE(why, ST_INVALID, at, "nanos %" PRId32 " is outside 0 to 999999999", time->nanos);
    return ST_OK;
}

static outcome check_attributes(const Ingest__V1__Event *event, const path *at, arena *scratch,
                                failure *why) {
    if (event->n_attributes == 0) return ST_OK;
    if (event->n_attributes > EVENT_ATTRIBUTES_MAX)
        REFUSE(why, ST_TOO_LARGE, at, "has %zu entries, at most %d are allowed",
               event->n_attributes, EVENT_ATTRIBUTES_MAX);
    const char **names = arena_alloc(scratch, event->n_attributes * sizeof *names);
    for (size_t i = 0; i < event->n_attributes; i++) {
        const Ingest__V1__Event__AttributesEntry *entry = event->attributes[i];
        const path here = {.parent = at, .name = entry->key};
        if (!entry->key[0]) REFUSE(why, ST_INVALID, at, "has an empty name");
        outcome result = check_length(entry->key, EVENT_ATTRIBUTE_NAME_MAX_BYTES, &here, why);
        if (result != ST_OK) return result;
        result = check_length(entry->value, EVENT_ATTRIBUTE_VALUE_MAX_BYTES, &here, why);
        if (result != ST_OK) return result;
        names[i] = entry->key;
    }
    const char *twice = first_duplicate(names, event->n_attributes);
    if (twice) REFUSE(why, ST_INVALID, at, "has the name \"%.64s\" twice", twice);
    return ST_OK;
}

static outcome check_envelope(const Ingest__V1__Event *event, const path *at, arena *scratch,
                              failure *why) {
    const path id = {.parent = at, .name = "id"};
    const path source = {.parent = at, .name = "source"};
    const path key = {.parent = at, .name = "key"};
    const path time = {.parent = at, .name = "time"};
    const path attributes = {.parent = at, .name = "attributes"};
    if (!event->source[0])
        REFUSE(why, ST_INVALID, &source, "is required; name the sending service");
    outcome result = check_length(event->source, EVENT_SOURCE_MAX_BYTES, &source, why);
    if (result == ST_OK) result = check_length(event->id, EVENT_ID_MAX_BYTES, &id, why);
    if (result == ST_OK) result = check_length(event->key, EVENT_KEY_MAX_BYTES, &key, why);
    if (result == ST_OK && event->time) result = check_time(event->time, &time, why);
    if (result == ST_OK) result = check_attributes(event, &attributes, scratch, why);
    return result;
}

outcome validate_event(const Ingest__V1__Event *event, const catalogue *all, size_t max_operations,
                       const char *prefix, arena *scratch, validated_event *out, failure *why) {
    const path root = {.name = prefix};
    const outcome result = check_envelope(event, &root, scratch, why);
    if (result != ST_OK) return result;

    switch (event->body_case) {
    case INGEST__V1__EVENT__BODY_TRANSACTION: {
        const path body = {.parent = &root, .name = "transaction"};
        return check_transaction(event->transaction, all, max_operations, &body, scratch, out, why);
    }
    case INGEST__V1__EVENT__BODY_INFORMATIVE: {
        const path body = {.parent = &root, .name = "informative"};
        return check_informative(event->informative, all, &body, scratch, out, why);
    }
    default:
        REFUSE(why, ST_INVALID, &root, "has no body; set transaction or informative");
    }
}
