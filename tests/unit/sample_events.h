/* Events for tests, built in an arena. */
#ifndef INGEST_TESTS_SAMPLE_EVENTS_H
#define INGEST_TESTS_SAMPLE_EVENTS_H

#include <stdbool.h>
#include <string.h>

#include "ingest/v1/events.pb-c.h"
#include "server/arena.h"

#define SAMPLE_NEW(memory, type, init)                                                             \
    ((type *)memcpy(arena_alloc(memory, sizeof(type)), &(type)init, sizeof(type)))

static inline Google__Protobuf__Value *sample_string(arena *memory, const char *text) {
    Google__Protobuf__Value *value =
        SAMPLE_NEW(memory, Google__Protobuf__Value, GOOGLE__PROTOBUF__VALUE__INIT);
    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value->string_value = arena_string(memory, text, strlen(text));
    return value;
}

static inline Google__Protobuf__Value *sample_number(arena *memory, double number) {
    Google__Protobuf__Value *value =
        SAMPLE_NEW(memory, Google__Protobuf__Value, GOOGLE__PROTOBUF__VALUE__INIT);
    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    value->number_value = number;
    return value;
}

/* {"name": "Ada", "age": 36} with the two entries in either order. */
static inline Google__Protobuf__Struct *sample_struct(arena *memory, bool swapped) {
    Google__Protobuf__Struct *object =
        SAMPLE_NEW(memory, Google__Protobuf__Struct, GOOGLE__PROTOBUF__STRUCT__INIT);
    object->n_fields = 2;
    object->fields = arena_alloc(memory, 2 * sizeof(Google__Protobuf__Struct__FieldsEntry *));
    for (int i = 0; i < 2; i++)
        object->fields[i] = SAMPLE_NEW(memory, Google__Protobuf__Struct__FieldsEntry,
                                       GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT);
    const int name = swapped ? 1 : 0;
    object->fields[name]->key = arena_string(memory, "name", 4);
    object->fields[name]->value = sample_string(memory, "Ada");
    object->fields[1 - name]->key = arena_string(memory, "age", 3);
    object->fields[1 - name]->value = sample_number(memory, 36);
    return object;
}

static inline Ingest__V1__Operation *sample_operation(arena *memory, const char *name) {
    Ingest__V1__Operation *operation =
        SAMPLE_NEW(memory, Ingest__V1__Operation, INGEST__V1__OPERATION__INIT);
    operation->name = arena_string(memory, name, strlen(name));
    operation->entity_id = arena_string(memory, "u-1", 3);
    operation->payload_case = INGEST__V1__OPERATION__PAYLOAD_DATA;
    operation->data = sample_struct(memory, false);
    return operation;
}

/* A transaction of `count` create_user operations, named when there are several. */
static inline Ingest__V1__Event *sample_transaction(arena *memory, size_t count) {
    Ingest__V1__Event *event = SAMPLE_NEW(memory, Ingest__V1__Event, INGEST__V1__EVENT__INIT);
    event->id = arena_string(memory, "id-1", 4);
    event->source = arena_string(memory, "users", 5);
    event->key = arena_string(memory, "k", 1);
    event->body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    event->transaction = SAMPLE_NEW(memory, Ingest__V1__Transaction, INGEST__V1__TRANSACTION__INIT);
    if (count > 1) event->transaction->name = arena_string(memory, "create_user", 11);
    event->transaction->n_operations = count;
    event->transaction->operations = arena_alloc(memory, count * sizeof(Ingest__V1__Operation *));
    for (size_t i = 0; i < count; i++)
        event->transaction->operations[i] = sample_operation(memory, "create_user");
    return event;
}

static inline Ingest__V1__Event *sample_informative(arena *memory) {
    Ingest__V1__Event *event = SAMPLE_NEW(memory, Ingest__V1__Event, INGEST__V1__EVENT__INIT);
    event->source = arena_string(memory, "users", 5);
    event->body_case = INGEST__V1__EVENT__BODY_INFORMATIVE;
    event->informative = SAMPLE_NEW(memory, Ingest__V1__Informative, INGEST__V1__INFORMATIVE__INIT);
    event->informative->name = arena_string(memory, "generate_otp", 12);
    event->informative->payload_case = INGEST__V1__INFORMATIVE__PAYLOAD_DATA;
    event->informative->data = sample_struct(memory, false);
    return event;
}

#endif
