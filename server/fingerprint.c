/*
 * A tree hash on XXH3: each message hashes its fields in the order of their numbers, each with its
 * number; the entries of a map are added up, so that their order does not matter.
 */
#include "server/fingerprint.h"

#include <xxhash.h>

typedef XXH128_hash_t digest;

static digest mix(digest state, uint64_t tag, digest value) {
    const uint64_t words[5] = {state.low64, state.high64, tag, value.low64, value.high64};
    return XXH3_128bits(words, sizeof words);
}

static digest mix_bytes(digest state, uint64_t tag, const void *data, size_t len) {
    return mix(state, tag, XXH3_128bits(data, len));
}

static digest mix_string(digest state, uint64_t tag, const char *text) {
    return mix_bytes(state, tag, text, strlen(text));
}

static digest mix_number(digest state, uint64_t tag, uint64_t number) {
    return mix(state, tag, (digest){.low64 = number, .high64 = 0});
}

/* Commutative: 128-bit addition. */
static digest add(digest sum, digest entry) {
    const uint64_t low = sum.low64 + entry.low64;
    return (digest){.low64 = low, .high64 = sum.high64 + entry.high64 + (low < sum.low64)};
}

/* Fields that a newer client knows and we do not. */
static digest mix_unknown(digest state, const ProtobufCMessage *message) {
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *field = &message->unknown_fields[i];
        state = mix_bytes(state, field->tag, field->data, field->len);
    }
    return state;
}

static digest of_struct(const Google__Protobuf__Struct *object);

static digest of_value(const Google__Protobuf__Value *value) {
    digest state = {.low64 = value->kind_case, .high64 = 0};
    uint64_t bits = 0;
    switch (value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        memcpy(&bits, &value->number_value, sizeof bits);
        return mix_number(state, 2, bits);
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        return mix_string(state, 3, value->string_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        return mix_number(state, 4, value->bool_value ? 1 : 0);
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        return mix(state, 5, of_struct(value->struct_value));
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        for (size_t i = 0; i < value->list_value->n_values; i++)
            state = mix(state, 6, of_value(value->list_value->values[i]));
        return state;
    default:
        return state;
    }
}

static digest of_struct(const Google__Protobuf__Struct *object) {
    digest sum = {.low64 = object->n_fields, .high64 = 0};
    for (size_t i = 0; i < object->n_fields; i++) {
        const Google__Protobuf__Struct__FieldsEntry *field = object->fields[i];
        const digest entry = mix_string((digest){0}, 1, field->key);
        sum = add(sum, field->value ? mix(entry, 2, of_value(field->value)) : entry);
    }
    return mix_unknown(sum, &object->base);
}

static digest of_operation(const Ingest__V1__Operation *operation) {
    digest state = mix_string((digest){0}, 1, operation->name);
    state = mix_string(state, 2, operation->entity_id);
    if (operation->payload_case == INGEST__V1__OPERATION__PAYLOAD_DATA)
        state = mix(state, 3, of_struct(operation->data));
    else if (operation->payload_case == INGEST__V1__OPERATION__PAYLOAD_RAW)
        state = mix_bytes(state, 4, operation->raw.data, operation->raw.len);
    return mix_unknown(state, &operation->base);
}

static digest of_transaction(const Ingest__V1__Transaction *transaction) {
    digest state = mix_string((digest){0}, 1, transaction->name);
    for (size_t i = 0; i < transaction->n_operations; i++)
        state = mix(state, 2, of_operation(transaction->operations[i]));
    return mix_unknown(state, &transaction->base);
}

static digest of_informative(const Ingest__V1__Informative *informative) {
    digest state = mix_string((digest){0}, 1, informative->name);
    state = mix_string(state, 2, informative->entity_id);
    if (informative->payload_case == INGEST__V1__INFORMATIVE__PAYLOAD_DATA)
        state = mix(state, 3, of_struct(informative->data));
    else if (informative->payload_case == INGEST__V1__INFORMATIVE__PAYLOAD_RAW)
        state = mix_bytes(state, 4, informative->raw.data, informative->raw.len);
    return mix_unknown(state, &informative->base);
}

static digest of_attributes(const Ingest__V1__Event *event) {
    digest sum = {.low64 = event->n_attributes, .high64 = 0};
    for (size_t i = 0; i < event->n_attributes; i++) {
        const digest entry = mix_string((digest){0}, 1, event->attributes[i]->key);
        sum = add(sum, mix_string(entry, 2, event->attributes[i]->value));
    }
    return sum;
}

void fingerprint_event(const Ingest__V1__Event *event, uint8_t out[STORE_FINGERPRINT_SIZE]) {
    digest state = mix_string((digest){0}, 3, event->key[0] ? event->key : event->id);
    if (event->time) {
        state = mix_number(state, 4, (uint64_t)event->time->seconds);
        state = mix_number(state, 4, (uint64_t)event->time->nanos);
    }
    if (event->n_attributes > 0) state = mix(state, 5, of_attributes(event));
    if (event->body_case == INGEST__V1__EVENT__BODY_TRANSACTION)
        state = mix(state, 10, of_transaction(event->transaction));
    else if (event->body_case == INGEST__V1__EVENT__BODY_INFORMATIVE)
        state = mix(state, 11, of_informative(event->informative));
    state = mix_unknown(state, &event->base);

    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, state);
    memcpy(out, canonical.digest, STORE_FINGERPRINT_SIZE);
}
