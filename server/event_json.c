/*
 * Written straight from the decoded message, without reflection or an intermediate tree. The one
 * writer also measures: it counts past the end of its buffer and writes nothing there.
 */
#include "server/event_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/rfc3339.h"

#define INTEGER_LIMIT 9007199254740992.0 /* 2^53: below it every integer is a double */

typedef struct writer {
    char *out;
    size_t capacity;
    size_t len; /* of the full text; what lies past capacity is not written */
} writer;

static void put(writer *to, const void *text, size_t len) {
    if (to->len < to->capacity && len > 0) {
        size_t room = to->capacity - to->len;
        memcpy(to->out + to->len, text, len < room ? len : room);
    }
    to->len += len;
}

static void put_char(writer *to, char c) {
    if (to->len < to->capacity) to->out[to->len] = c;
    to->len++;
}

#define PUT_LITERAL(to, text) put(to, text, sizeof(text) - 1)

/* ---- scalars --------------------------------------------------------------------------- */

static bool needs_escape(unsigned char c) { return c < 0x20 || c == '"' || c == '\\'; }

static void put_escape(writer *to, unsigned char c) {
    static const char SHORT[] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n',  ['\r'] = 'r',
        ['\t'] = 't', ['"'] = '"',  ['\\'] = '\\',
    };
    static const char HEX[] = "0123456789abcdef";
    if (SHORT[c]) {
        put(to, (char[]){'\\', SHORT[c]}, 2);
    } else {
        PUT_LITERAL(to, "\\u00");
        put(to, (char[]){HEX[c >> 4], HEX[c & 15]}, 2);
    }
}

static void put_string(writer *to, const char *text) {
    put_char(to, '"');
    for (const char *at = text ? text : ""; *at;) {
        const char *run = at;
        while (*at && !needs_escape((unsigned char)*at))
            at++;
        put(to, run, (size_t)(at - run));
        if (*at) put_escape(to, (unsigned char)*at++);
    }
    put_char(to, '"');
}

/* Standard alphabet, with padding. */
static void put_base64(writer *to, ProtobufCBinaryData raw) {
    static const char ALPHABET[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    put_char(to, '"');
    for (size_t i = 0; i < raw.len; i += 3) {
        size_t left = raw.len - i;
        uint32_t bits = (uint32_t)raw.data[i] << 16;
        if (left > 1) bits |= (uint32_t)raw.data[i + 1] << 8;
        if (left > 2) bits |= raw.data[i + 2];
        put(to,
            (char[]){ALPHABET[bits >> 18], ALPHABET[bits >> 12 & 63],
                     left > 1 ? ALPHABET[bits >> 6 & 63] : '=',
                     left > 2 ? ALPHABET[bits & 63] : '='},
            4);
    }
    put_char(to, '"');
}

static void put_integer(writer *to, int64_t value) {
    char text[20];
    size_t at = sizeof text;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        text[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0) text[--at] = '-';
    put(to, text + at, sizeof text - at);
}

/* A locale's decimal point, of one byte or several, becomes JSON's. Returns the length. */
static size_t fix_decimal_point(char *text) {
    size_t len = strlen(text), at = strspn(text, "+-0123456789");
    size_t end = at + strcspn(text + at, "+-0123456789eE");
    if (end > at) {
        memmove(text + at + 1, text + end, len - end + 1);
        text[at] = '.';
        len -= end - at - 1;
    }
    return len;
}

/* The fewest of 15, 16 or 17 digits that read back as the same number. */
static void put_number(writer *to, double value) {
    if (!isfinite(value)) { /* validation keeps it out, and JSON has no word for it */
        PUT_LITERAL(to, "null");
        return;
    }
    if (fabs(value) < INTEGER_LIMIT && value == (double)(int64_t)value) {
        if (value == 0 && signbit(value))
            PUT_LITERAL(to, "-0.0");
        else
            put_integer(to, (int64_t)value);
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    size_t len = fix_decimal_point(text);
    put(to, text, len);
}

static void put_time(writer *to, const Google__Protobuf__Timestamp *time) {
    char text[RFC3339_SIZE];
    size_t len = rfc3339_write(time->seconds, time->nanos, RFC3339_SHORTEST, text);
    put_char(to, '"');
    put(to, text, len);
    put_char(to, '"');
}

/* ---- google.protobuf.Struct ------------------------------------------------------------ */

static void put_struct(writer *to, const Google__Protobuf__Struct *object);
static void put_list(writer *to, const Google__Protobuf__ListValue *list);

static void put_value(writer *to, const Google__Protobuf__Value *value) {
    switch (value ? value->kind_case : GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        put_number(to, value->number_value);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        put_string(to, value->string_value);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        value->bool_value ? PUT_LITERAL(to, "true") : PUT_LITERAL(to, "false");
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        put_struct(to, value->struct_value);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        put_list(to, value->list_value);
        break;
    default:
        PUT_LITERAL(to, "null");
    }
}

static void put_list(writer *to, const Google__Protobuf__ListValue *list) {
    put_char(to, '[');
    for (size_t i = 0; i < list->n_values; i++) {
        if (i > 0) put_char(to, ',');
        put_value(to, list->values[i]);
    }
    put_char(to, ']');
}

static void put_struct(writer *to, const Google__Protobuf__Struct *object) {
    put_char(to, '{');
    for (size_t i = 0; i < object->n_fields; i++) {
        if (i > 0) put_char(to, ',');
        put_string(to, object->fields[i]->key);
        put_char(to, ':');
        put_value(to, object->fields[i]->value);
    }
    put_char(to, '}');
}

/* ---- messages -------------------------------------------------------------------------- */

/* The name of a member, with the comma before it unless it is the first of its object. */
static void put_name(writer *to, bool *first, const char *name) {
    if (!*first) put_char(to, ',');
    *first = false;
    put_char(to, '"');
    put(to, name, strlen(name));
    PUT_LITERAL(to, "\":");
}

/* A string field: left out when empty, as proto3 has it. */
static void put_text(writer *to, bool *first, const char *name, const char *text) {
    if (!text || !*text) return;
    put_name(to, first, name);
    put_string(to, text);
}

/* Operation and Informative have the same fields. */
static void put_operation(writer *to, const char *name, const char *entity_id,
                          const Google__Protobuf__Struct *data, const ProtobufCBinaryData *raw) {
    bool first = true;
    put_char(to, '{');
    put_text(to, &first, "name", name);
    put_text(to, &first, "entityId", entity_id);
    if (data) {
        put_name(to, &first, "data");
        put_struct(to, data);
    } else if (raw) {
        put_name(to, &first, "raw");
        put_base64(to, *raw);
    }
    put_char(to, '}');
}

static void put_transaction(writer *to, const Ingest__V1__Transaction *transaction) {
    bool first = true;
    put_char(to, '{');
    put_text(to, &first, "name", transaction->name);
    if (transaction->n_operations > 0) {
        put_name(to, &first, "operations");
        put_char(to, '[');
        for (size_t i = 0; i < transaction->n_operations; i++) {
            const Ingest__V1__Operation *it = transaction->operations[i];
            bool data = it->payload_case == INGEST__V1__OPERATION__PAYLOAD_DATA;
            bool raw = it->payload_case == INGEST__V1__OPERATION__PAYLOAD_RAW;
            if (i > 0) put_char(to, ',');
            put_operation(to, it->name, it->entity_id, data ? it->data : NULL,
                          raw ? &it->raw : NULL);
        }
        put_char(to, ']');
    }
    put_char(to, '}');
}

static void put_informative(writer *to, const Ingest__V1__Informative *it) {
    bool data = it->payload_case == INGEST__V1__INFORMATIVE__PAYLOAD_DATA;
    bool raw = it->payload_case == INGEST__V1__INFORMATIVE__PAYLOAD_RAW;
    put_operation(to, it->name, it->entity_id, data ? it->data : NULL, raw ? &it->raw : NULL);
}

static void put_attributes(writer *to, const Ingest__V1__Event *event) {
    put_char(to, '{');
    for (size_t i = 0; i < event->n_attributes; i++) {
        if (i > 0) put_char(to, ',');
        put_string(to, event->attributes[i]->key);
        put_char(to, ':');
        put_string(to, event->attributes[i]->value);
    }
    put_char(to, '}');
}

size_t event_json_write(const Ingest__V1__Event *event, char *out, size_t capacity) {
    writer to = {out, capacity, 0};
    bool first = true;
    put_char(&to, '{');
    put_text(&to, &first, "id", event->id);
    put_text(&to, &first, "source", event->source);
    put_text(&to, &first, "key", event->key);
    if (event->time) {
        put_name(&to, &first, "time");
        put_time(&to, event->time);
    }
    if (event->n_attributes > 0) {
        put_name(&to, &first, "attributes");
        put_attributes(&to, event);
    }
    if (event->body_case == INGEST__V1__EVENT__BODY_TRANSACTION) {
        put_name(&to, &first, "transaction");
        put_transaction(&to, event->transaction);
    } else if (event->body_case == INGEST__V1__EVENT__BODY_INFORMATIVE) {
        put_name(&to, &first, "informative");
        put_informative(&to, event->informative);
    }
    put_char(&to, '}');
    return to.len;
}

size_t event_json_write_opaque(bytes value, char *out, size_t capacity) {
    writer to = {out, capacity, 0};
    PUT_LITERAL(&to, "{\"opaque\":");
    put_base64(&to,
               (ProtobufCBinaryData){.len = value.len, .data = (uint8_t *)(uintptr_t)value.data});
    put_char(&to, '}');
    return to.len;
}

size_t event_json_write_data(const Google__Protobuf__Struct *data, char *out, size_t capacity) {
    writer to = {out, capacity, 0};
    if (data)
        put_struct(&to, data);
    else
        PUT_LITERAL(&to, "null");
    return to.len;
}
