/*
 * A walk over wire bytes with a message descriptor at hand: an explicit stack instead of
 * recursion, one pass, nothing remembered that only an error would need (the path is found again
 * from the stack when there is one).
 */
#include "server/codec.h"

#include <stdio.h>

#include "storage/utf8.h"

enum {
    WIRE_VARINT = 0,
    WIRE_64 = 1,
    WIRE_BYTES = 2,
    WIRE_GROUP = 3,
    WIRE_GROUP_END = 4,
    WIRE_32 = 5
};
enum { FIELD_NUMBER_MAX = (1 << 29) - 1 };

/* ---- wire -------------------------------------------------------------------------------------
 */

/* False: cut short, or longer than ten bytes. */
static inline bool next_varint(bytes *rest, uint64_t *value) {
    if (rest->len && rest->data[0] < 0x80) {
        *value = rest->data[0];
        rest->data++;
        rest->len--;
        return true;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < rest->len && i < 10; i++) {
        sum |= (uint64_t)(rest->data[i] & 0x7F) << (7 * i);
        if (rest->data[i] >= 0x80) continue;
        rest->data += i + 1;
        rest->len -= i + 1;
        *value = sum;
        return true;
    }
    return false;
}

static inline bool next_bytes(bytes *rest, uint64_t len, bytes *body) {
    if (len > rest->len) return false;
    *body = bytes_of(rest->data, (size_t)len);
    rest->data += len;
    rest->len -= (size_t)len;
    return true;
}

static inline uint64_t little_endian(bytes body) {
    uint64_t value = 0;
    for (size_t i = body.len; i-- > 0;)
        value = value << 8 | body.data[i];
    return value;
}

static inline bool next_field(bytes *rest, codec_field *field) {
    const size_t before = rest->len;
    uint64_t tag, len;
    if (!next_varint(rest, &tag) || before - rest->len > 5) return false; /* as protobuf-c */
    if (tag >> 3 < 1 || tag >> 3 > FIELD_NUMBER_MAX) return false;
    field->number = (uint32_t)(tag >> 3);
    field->wire_type = tag & 7;
    field->body = bytes_of(NULL, 0);
    field->value = 0;
    switch (field->wire_type) {
    case WIRE_VARINT:
        return next_varint(rest, &field->value);
    case WIRE_BYTES:
        return next_varint(rest, &len) && next_bytes(rest, len, &field->body);
    case WIRE_64:
    case WIRE_32:
        len = field->wire_type == WIRE_64 ? 8 : 4;
        if (!next_bytes(rest, len, &field->body)) return false;
        field->value = little_endian(field->body);
        field->body = bytes_of(NULL, 0);
        return true;
    default: /* groups, and what was never given out */
        return false;
    }
}

bool codec_next(bytes *rest, codec_field *field) {
    bytes left = *rest;
    if (left.len == 0 || !next_field(&left, field)) return false;
    *rest = left;
    return true;
}

bool codec_find_field(bytes wire, uint32_t number, bytes *body, unsigned *count) {
    codec_field field;
    *body = bytes_of(NULL, 0);
    *count = 0;
    while (codec_next(&wire, &field)) {
        if (field.number != number || field.wire_type != WIRE_BYTES) continue;
        *body = field.body;
        ++*count;
    }
    return wire.len == 0 && *count > 0;
}

/* ---- check ------------------------------------------------------------------------------------
 */

typedef struct frame {
    const ProtobufCMessageDescriptor *type;
    bytes whole;                           /* the message */
    bytes rest;                            /* what was not looked at */
    const ProtobufCFieldDescriptor *field; /* the one being looked at; NULL: unknown or none */
    uint64_t met;                          /* singular messages that came already, by index */
} frame;

typedef struct walk {
    uint32_t depth; /* frames in use */
    frame frames[CODEC_DEPTH_MAX];
} walk;

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type,
                                                  uint32_t number) {
    for (unsigned i = 0; i < type->n_field_ranges; i++) {
        const ProtobufCIntRange *range = &type->field_ranges[i];
        if (number < (uint32_t)range->start_value) return NULL;
        unsigned offset = number - (uint32_t)range->start_value;
        unsigned length = range[1].orig_index - range->orig_index;
        if (offset < length) return &type->fields[range->orig_index + offset];
    }
    return NULL;
}

static uint32_t wire_type_of(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

/* Which element of its repeated field a frame is at: counted only when it is to be told. */
static unsigned element_index(const frame *at) {
    bytes rest = at->whole;
    unsigned count = 0;
    codec_field field;
    while (rest.len > at->rest.len && codec_next(&rest, &field))
        if (field.number == at->field->id) count++;
    return count ? count - 1 : 0;
}

static outcome refuse(const walk *path, failure *why, const char *reason) {
    char field[sizeof why->field] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < path->depth && used < sizeof field; i++) {
        const frame *at = &path->frames[i];
        if (!at->field) break;
        int n =
            snprintf(field + used, sizeof field - used, "%s%s", used ? "." : "", at->field->name);
        used += n > 0 ? (size_t)n : 0;
        if (at->field->label != PROTOBUF_C_LABEL_REPEATED || used >= sizeof field) continue;
        n = snprintf(field + used, sizeof field - used, "[%u]", element_index(at));
        used += n > 0 ? (size_t)n : 0;
    }
    return fail(why, ST_INVALID, field, "%s", reason);
}

static bool packed_is_sound(uint32_t wire_type, bytes body) {
    uint64_t ignored;
    if (wire_type == WIRE_64) return body.len % 8 == 0;
    if (wire_type == WIRE_32) return body.len % 4 == 0;
    while (body.len)
        if (!next_varint(&body, &ignored)) return false;
    return true;
}

/* What is wrong with the value of a known field; NULL when nothing is. */
static const char *check_value(const ProtobufCFieldDescriptor *known, const codec_field *field) {
    const uint32_t expected = wire_type_of(known->type);
    if (field->wire_type == expected) {
        if (known->type != PROTOBUF_C_TYPE_STRING) return NULL;
        size_t sound = utf8_prefix(field->body);
        if (sound == field->body.len) return NULL;
        return field->body.data[sound] ? "not valid UTF-8" : "a string must not contain NUL";
    }
    if (known->label != PROTOBUF_C_LABEL_REPEATED || field->wire_type != WIRE_BYTES)
        return "malformed: a value of another type than the field's";
    return packed_is_sound(expected, field->body) ? NULL : "malformed packed values";
}

/* Other parsers merge such messages; protobuf-c 1.4 fails when both are empty and have a oneof. */
static bool message_again(frame *at) {
    const size_t index = (size_t)(at->field - at->type->fields);
    if (at->field->label == PROTOBUF_C_LABEL_REPEATED || index >= 64) return false;
    const uint64_t bit = UINT64_C(1) << index;
    const bool again = at->met & bit;
    at->met |= bit;
    return again;
}

static const char *why_malformed(bytes rest) {
    uint64_t tag;
    if (next_varint(&rest, &tag) && ((tag & 7) == WIRE_GROUP || (tag & 7) == WIRE_GROUP_END))
        return "malformed: groups are not supported";
    return "malformed: not a protobuf message of this type, or cut short";
}

outcome codec_check(const ProtobufCMessageDescriptor *type, bytes wire, codec_limits limits,
                    failure *why) {
    if (limits.max_depth > CODEC_DEPTH_MAX) limits.max_depth = CODEC_DEPTH_MAX;
    walk path; /* frames are set before they are read */
    path.depth = 1;
    path.frames[0] = (frame){.type = type, .whole = wire, .rest = wire};
    uint32_t fields = 0;

    while (path.depth) {
        frame *at = &path.frames[path.depth - 1];
        at->field = NULL;
        if (at->rest.len == 0) {
            path.depth--;
            continue;
        }
        codec_field field;
        if (!codec_next(&at->rest, &field)) return refuse(&path, why, why_malformed(at->rest));
        if (++fields > limits.max_fields) return refuse(&path, why, "too many fields");
        at->field = find_field(at->type, field.number);
        if (!at->field) continue;
        const char *wrong = check_value(at->field, &field);
        if (wrong) return refuse(&path, why, wrong);
        if (at->field->type != PROTOBUF_C_TYPE_MESSAGE) continue;
        if (message_again(at)) return refuse(&path, why, "given more than once; send it once");
        if (path.depth >= limits.max_depth) return refuse(&path, why, "nested too deep");
        path.frames[path.depth++] =
            (frame){.type = at->field->descriptor, .whole = field.body, .rest = field.body};
    }
    return ST_OK;
}

void *codec_unpack(const ProtobufCMessageDescriptor *type, bytes wire,
                   ProtobufCAllocator *allocator) {
    return protobuf_c_message_unpack(type, allocator, wire.len, wire.data);
}
