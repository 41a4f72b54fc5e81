/*
 * The builder: fills the generated messages, all of them in one arena that goes with the event.
 * Whatever is wrong is remembered, the first time only, with the path of its field. The caller's
 * thread; nothing blocks; out of memory ends the process, as in the gRPC C core.
 */
#include "client/publisher/event.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/publisher/json.h"
#include "server/validate.h"
#include "storage/clock.h"
#include "storage/utf8.h"
#include "storage/uuid.h"

enum {
    FIRST_BLOCK_BYTES = 2048,
    MAX_OPERATIONS = 1000,
    DATA_LEVEL = 4, /* messages around `data`: request, event, transaction, operation */
    JSON_DEPTH = EVENT_MESSAGE_DEPTH_MAX - DATA_LEVEL,
};

typedef Google__Protobuf__Struct object_message;
typedef Google__Protobuf__Struct__FieldsEntry field_message;
typedef Google__Protobuf__Value value_message;

/* One of the two is set; none in the event's `nowhere`, which stands in for what cannot be. */
struct ingest_operation {
    ingest_event *event;
    Ingest__V1__Operation *operation;
    Ingest__V1__Informative *informative;
    size_t index;
};

struct ingest_event {
    Ingest__V1__Event message;
    Ingest__V1__Transaction transaction;
    Ingest__V1__Informative informative;
    const char *made_id;
    ingest_operation notice;
    ingest_operation nowhere;
    failure error; /* ST_OK: none so far */
    char error_text[sizeof((failure *)0)->field + sizeof((failure *)0)->reason + 2];
    arena memory;
    arena adopted;
    char first_block[FIRST_BLOCK_BYTES];
};

struct ingest_catalogue {
    catalogue *entries;
};

/* ---- errors -------------------------------------------------------------------------------- */

static bool sound(const ingest_event *event) { return event->error.code == ST_OK; }

static void remember(ingest_event *event, const failure *why) {
    if (!sound(event)) return;
    event->error = *why;
    (void)snprintf(event->error_text, sizeof event->error_text, "%s%s%s", why->field,
                   why->field[0] ? ": " : "", why->reason);
}

void event_complain(ingest_event *event, const char *field, const char *format, ...) {
    failure why = {.code = ST_INVALID};
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why.reason, sizeof why.reason, format, args);
    va_end(args);
    (void)snprintf(why.field, sizeof why.field, "%s", field);
    remember(event, &why);
}

const char *ingest_event_error(const ingest_event *event) {
    return sound(event) ? NULL : event->error_text;
}

/* A copy of the text; after an error an empty one. */
static char *sound_text(ingest_event *event, const char *field, const char *text) {
    static char nothing[] = "";
    if (!text) {
        event_complain(event, field, "is NULL");
        return nothing;
    }
    const size_t len = strlen(text), good = utf8_prefix(bytes_of(text, len));
    if (good < len) {
        event_complain(event, field, "is not valid UTF-8 at byte %zu", good);
        return nothing;
    }
    return arena_string(&event->memory, text, len);
}

/* ---- an event ------------------------------------------------------------------------------ */

static ingest_event *make_event(const char *source) {
    ingest_event *event = malloc(sizeof *event);
    if (!event) abort();
    memset(event, 0, offsetof(ingest_event, first_block));
    arena_init(&event->memory, event->first_block, sizeof event->first_block);
    event->nowhere.event = event;
    ingest__v1__event__init(&event->message);
    char text[UUID_TEXT_SIZE];
    const uuid id = uuid_time_ordered(clock_wall_ms());
    uuid_format(&id, text);
    event->message.id = arena_string(&event->memory, text, sizeof text - 1);
    event->made_id = event->message.id;
    event->message.source = sound_text(event, "event.source", source);
    return event;
}

ingest_event *ingest_transaction_new(const char *source, const char *name) {
    ingest_event *event = make_event(source);
    ingest__v1__transaction__init(&event->transaction);
    event->message.body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    event->message.transaction = &event->transaction;
    if (name) event->transaction.name = sound_text(event, "event.transaction.name", name);
    return event;
}

ingest_event *ingest_informative_new(const char *source, const char *name, const char *entity_id) {
    ingest_event *event = make_event(source);
    Ingest__V1__Informative *informative = &event->informative;
    ingest__v1__informative__init(informative);
    event->message.body_case = INGEST__V1__EVENT__BODY_INFORMATIVE;
    event->message.informative = informative;
    informative->name = sound_text(event, "event.informative.name", name);
    if (entity_id)
        informative->entity_id = sound_text(event, "event.informative.entity_id", entity_id);
    event->notice = (ingest_operation){.event = event, .informative = informative};
    return event;
}

void ingest_event_free(ingest_event *event) {
    if (!event) return;
    arena_free(&event->memory);
    arena_free(&event->adopted);
    free(event);
}

void event_adopt(ingest_event *event, const arena *memory) { event->adopted = *memory; }

void ingest_event_set_id(ingest_event *event, const char *id) {
    if (!sound(event)) return;
    if (id && !*id) event_complain(event, "event.id", "is empty; leave it alone to have one made");
    event->message.id = sound_text(event, "event.id", id);
}

void ingest_event_set_key(ingest_event *event, const char *key) {
    if (sound(event)) event->message.key = sound_text(event, "event.key", key);
}

void event_set_time(ingest_event *event, int64_t seconds, int32_t nanos) {
    if (!sound(event)) return;
    Google__Protobuf__Timestamp *time = arena_alloc(&event->memory, sizeof *time);
    google__protobuf__timestamp__init(time);
    time->seconds = seconds;
    time->nanos = nanos;
    event->message.time = time;
}

void ingest_event_set_time(ingest_event *event, int64_t unix_ms) {
    const int64_t ms = unix_ms % 1000, before = ms < 0; /* nanos count forwards */
    event_set_time(event, unix_ms / 1000 - before, (int32_t)(ms + before * 1000) * 1000000);
}

bool event_has_own_id(const ingest_event *event) { return event->message.id != event->made_id; }

void event_set_source(ingest_event *event, const char *source) {
    if (sound(event)) event->message.source = sound_text(event, "event.source", source);
}

void event_set_name(ingest_event *event, const char *name) {
    if (!name || !sound(event)) return;
    if (event->message.body_case == INGEST__V1__EVENT__BODY_TRANSACTION)
        event->transaction.name = sound_text(event, "event.transaction.name", name);
    else
        event->informative.name = sound_text(event, "event.informative.name", name);
}

void event_set_entity(ingest_event *event, const char *entity_id) {
    if (entity_id && sound(event))
        event->informative.entity_id = sound_text(event, "event.informative.entity_id", entity_id);
}

void ingest_event_set_attribute(ingest_event *event, const char *name, const char *value) {
    typedef Ingest__V1__Event__AttributesEntry entry_message;
    Ingest__V1__Event *message = &event->message;
    if (!sound(event)) return;
    char *key = sound_text(event, "event.attributes", name);
    char *text = sound_text(event, "event.attributes", value);
    for (size_t i = 0; i < message->n_attributes; i++)
        if (strcmp(message->attributes[i]->key, key) == 0) {
            message->attributes[i]->value = text;
            return;
        }
    entry_message *entry = arena_alloc(&event->memory, sizeof *entry);
    ingest__v1__event__attributes_entry__init(entry);
    entry->key = key;
    entry->value = text;
    message->attributes = json_grow(message->attributes, message->n_attributes, &event->memory);
    message->attributes[message->n_attributes++] = entry;
}

ingest_operation *ingest_event_add(ingest_event *event, const char *name, const char *entity_id) {
    if (!sound(event)) return &event->nowhere;
    if (event->message.body_case != INGEST__V1__EVENT__BODY_TRANSACTION) {
        event_complain(event, "event.informative", "has no operations; use ingest_event_notice");
        return &event->nowhere;
    }
    Ingest__V1__Transaction *all = &event->transaction;
    Ingest__V1__Operation *operation = arena_alloc(&event->memory, sizeof *operation);
    ingest__v1__operation__init(operation);
    char field[64];
    (void)snprintf(field, sizeof field, "event.transaction.operations[%zu]", all->n_operations);
    operation->name = sound_text(event, field, name);
    if (entity_id) operation->entity_id = sound_text(event, field, entity_id);
    ingest_operation *made = arena_alloc(&event->memory, sizeof *made);
    *made = (ingest_operation){.event = event, .operation = operation, .index = all->n_operations};
    all->operations = json_grow(all->operations, all->n_operations, &event->memory);
    all->operations[all->n_operations++] = operation;
    return made;
}

ingest_operation *ingest_event_notice(ingest_event *event) {
    if (event->message.body_case == INGEST__V1__EVENT__BODY_INFORMATIVE) return &event->notice;
    event_complain(event, "event.transaction", "is no notice; use ingest_event_add");
    return &event->nowhere;
}

/* ---- payload ------------------------------------------------------------------------------- */

typedef struct field_path {
    char text[sizeof((failure *)0)->field];
} field_path;

/* Of `data`, or of one of its fields. */
static field_path path_of(const ingest_operation *op, const char *name) {
    field_path path;
    char owner[64] = "event.informative";
    if (op->operation)
        (void)snprintf(owner, sizeof owner, "event.transaction.operations[%zu]", op->index);
    (void)snprintf(path.text, sizeof path.text, "%s.data%s%s", owner, name ? "." : "",
                   name ? name : "");
    return path;
}

static bool usable(const ingest_operation *op) {
    return sound(op->event) && (op->operation || op->informative);
}

static void set_data(ingest_operation *op, object_message *data) {
    if (op->operation) {
        op->operation->payload_case = INGEST__V1__OPERATION__PAYLOAD_DATA;
        op->operation->data = data;
    } else {
        op->informative->payload_case = INGEST__V1__INFORMATIVE__PAYLOAD_DATA;
        op->informative->data = data;
    }
}

/* The data to add a field to; made when there is none, or raw bytes. */
static object_message *data_of(ingest_operation *op) {
    if (op->operation && op->operation->payload_case == INGEST__V1__OPERATION__PAYLOAD_DATA)
        return op->operation->data;
    if (op->informative && op->informative->payload_case == INGEST__V1__INFORMATIVE__PAYLOAD_DATA)
        return op->informative->data;
    object_message *data = arena_alloc(&op->event->memory, sizeof *data);
    google__protobuf__struct__init(data);
    set_data(op, data);
    return data;
}

static value_message *new_value(ingest_operation *op, Google__Protobuf__Value__KindCase kind) {
    value_message *value = arena_alloc(&op->event->memory, sizeof *value);
    google__protobuf__value__init(value);
    value->kind_case = kind;
    return value;
}

static void put(ingest_operation *op, const char *name, value_message *value) {
    arena *memory = &op->event->memory;
    char *key = sound_text(op->event, path_of(op, NULL).text, name);
    if (!sound(op->event)) return;
    object_message *data = data_of(op);
    for (size_t i = 0; i < data->n_fields; i++)
        if (strcmp(data->fields[i]->key, key) == 0) {
            data->fields[i]->value = value;
            return;
        }
    field_message *field = arena_alloc(memory, sizeof *field);
    google__protobuf__struct__fields_entry__init(field);
    field->key = key;
    field->value = value;
    data->fields = json_grow(data->fields, data->n_fields, memory);
    data->fields[data->n_fields++] = field;
}

void ingest_operation_set_string(ingest_operation *op, const char *name, const char *text) {
    if (!usable(op)) return;
    value_message *value = new_value(op, GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE);
    value->string_value = sound_text(op->event, path_of(op, name).text, text);
    put(op, name, value);
}

void ingest_operation_set_number(ingest_operation *op, const char *name, double number) {
    if (!usable(op)) return;
    if (!isfinite(number))
        event_complain(op->event, path_of(op, name).text, "is not a finite number");
    value_message *value = new_value(op, GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE);
    value->number_value = number;
    put(op, name, value);
}

void ingest_operation_set_bool(ingest_operation *op, const char *name, bool truth) {
    if (!usable(op)) return;
    value_message *value = new_value(op, GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE);
    value->bool_value = truth;
    put(op, name, value);
}

void ingest_operation_set_null(ingest_operation *op, const char *name) {
    if (usable(op)) put(op, name, new_value(op, GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE));
}

void ingest_operation_set_json(ingest_operation *op, const char *name, const char *json) {
    char why[JSON_WHY_SIZE];
    if (!usable(op)) return;
    value_message *value =
        json_value(bytes_of_string(json ? json : ""), JSON_DEPTH - 2, &op->event->memory, why);
    if (value)
        put(op, name, value);
    else
        event_complain(op->event, path_of(op, name).text, "%s", why);
}

void ingest_operation_data(ingest_operation *op, const char *json) {
    char why[JSON_WHY_SIZE];
    if (!usable(op)) return;
    object_message *data =
        json_object(bytes_of_string(json ? json : ""), JSON_DEPTH, &op->event->memory, why);
    if (data)
        set_data(op, data);
    else
        event_complain(op->event, path_of(op, NULL).text, "%s", why);
}

void event_operation_struct(ingest_operation *op, const object_message *data) {
    if (usable(op)) set_data(op, (object_message *)(uintptr_t)data);
}

void ingest_operation_raw(ingest_operation *op, const void *data, size_t len) {
    if (!usable(op)) return;
    uint8_t *copy = arena_alloc(&op->event->memory, len + 1);
    if (len) memcpy(copy, data, len);
    const ProtobufCBinaryData raw = {.len = len, .data = copy};
    if (op->operation) {
        op->operation->payload_case = INGEST__V1__OPERATION__PAYLOAD_RAW;
        op->operation->raw = raw;
    } else {
        op->informative->payload_case = INGEST__V1__INFORMATIVE__PAYLOAD_RAW;
        op->informative->raw = raw;
    }
}

/* ---- before sending ------------------------------------------------------------------------ */

const char *ingest_event_id(const ingest_event *event) { return event->message.id; }

size_t ingest_event_size(const ingest_event *event) {
    return ingest__v1__event__get_packed_size(&event->message);
}

const Ingest__V1__Event *event_message(const ingest_event *event) { return &event->message; }

outcome event_ready(const ingest_event *event, const ingest_catalogue *known, failure *why) {
    if (!sound(event)) {
        *why = event->error;
        return why->code;
    }
    char first[1024];
    arena scratch;
    arena_init(&scratch, first, sizeof first);
    validated_event valid;
    const outcome result = validate_event(&event->message, known ? known->entries : NULL,
                                          MAX_OPERATIONS, "event", &scratch, &valid, why);
    arena_free(&scratch);
    return result;
}

ingest_catalogue *ingest_catalogue_parse(const char *text, size_t len, char *why, size_t size) {
    failure failed;
    catalogue *entries = NULL;
    if (catalogue_parse(bytes_of(text, len), &entries, &failed) != ST_OK) {
        (void)snprintf(why, size, "%s: %s", failed.field, failed.reason);
        return NULL;
    }
    ingest_catalogue *made = malloc(sizeof *made);
    if (!made) abort();
    made->entries = entries;
    return made;
}

void ingest_catalogue_free(ingest_catalogue *known) {
    if (!known) return;
    catalogue_free(known->entries);
    free(known);
}

bool ingest_event_check(ingest_event *event, const ingest_catalogue *known) {
    failure why;
    if (event_ready(event, known, &why) == ST_OK) return true;
    remember(event, &why);
    return false;
}
