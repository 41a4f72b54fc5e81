/*
 * An event from its canonical protobuf JSON (https://protobuf.dev/programming-guides/json/), as
 * grpcurl takes it. The text is parsed into a Struct first, then walked with the builder: names in
 * either spelling, nothing unknown, and each error with the path of its field. Pure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/publisher/event.h"
#include "client/publisher/json.h"
#include "server/validate.h"

typedef Google__Protobuf__Struct object_message;
typedef Google__Protobuf__Value value_message;

/* What a JSON object may hold: the first name is that of the field paths, the second protobuf's
 * other spelling, or NULL. */
typedef struct member {
    const char *name, *other;
    const value_message *value; /* found; NULL: absent, or null */
} member;

static bool take_members(ingest_event *event, const char *path, const object_message *object,
                         member *members, size_t count) {
    for (size_t i = 0; i < object->n_fields; i++) {
        const char *key = object->fields[i]->key;
        size_t at = 0;
        while (at < count && strcmp(members[at].name, key) != 0 &&
               (!members[at].other || strcmp(members[at].other, key) != 0))
            at++;
        if (at == count || members[at].value) {
            event_complain(event, path, "\"%.100s\" is %s", key,
                           at == count ? "not a field of it" : "there twice");
            return false;
        }
        const value_message *value = object->fields[i]->value;
        if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE) members[at].value = value;
    }
    return true;
}

static const char *text_of(ingest_event *event, const char *path, const member *it) {
    if (!it->value) return NULL;
    if (it->value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE)
        return it->value->string_value;
    event_complain(event, path, "\"%s\" is not a string", it->name);
    return NULL;
}

static const object_message *object_of(ingest_event *event, const char *path, const member *it) {
    if (!it->value) return NULL;
    if (it->value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE)
        return it->value->struct_value;
    event_complain(event, path, "\"%s\" is not an object", it->name);
    return NULL;
}

/* ---- times and bytes ----------------------------------------------------------------------- */

/* Whether the text begins as the pattern does, with any digit for each 0. */
static bool begins_like(const char *text, const char *pattern) {
    for (; *pattern; text++, pattern++)
        if (*pattern == '0' ? *text < '0' || *text > '9' : *text != *pattern) return false;
    return true;
}

static int number_at(const char *text, int digits) {
    int number = 0;
    while (digits-- > 0)
        number = number * 10 + *text++ - '0';
    return number;
}

/* "", or a point and one to nine digits; passes over them. */
static bool parse_fraction(const char **text, int32_t *nanos) {
    *nanos = 0;
    if (**text != '.') return true;
    const size_t digits = strspn(++*text, "0123456789");
    if (digits < 1 || digits > 9) return false;
    *nanos = number_at(*text, (int)digits);
    for (size_t i = digits; i < 9; i++)
        *nanos *= 10;
    *text += digits;
    return true;
}

static bool parse_offset(const char *text, int64_t *offset_s) {
    static const char PATTERN[] = "00:00";
    *offset_s = 0;
    if (strcmp(text, "Z") == 0) return true;
    if ((*text != '+' && *text != '-') || !begins_like(text + 1, PATTERN) || text[sizeof PATTERN])
        return false;
    const int hours = number_at(text + 1, 2), minutes = number_at(text + 4, 2);
    *offset_s = (*text == '+' ? 60 : -60) * (int64_t)(hours * 60 + minutes);
    return hours < 24 && minutes < 60;
}

/* RFC 3339, as protobuf's JSON has it: any offset, up to nine digits of fraction. */
static bool parse_time(const char *text, int64_t *seconds, int32_t *nanos) {
    static const char PATTERN[] = "0000-00-00T00:00:00";
    if (!begins_like(text, PATTERN)) return false;
    const struct tm given = {.tm_year = number_at(text, 4) - 1900,
                             .tm_mon = number_at(text + 5, 2) - 1,
                             .tm_mday = number_at(text + 8, 2),
                             .tm_hour = number_at(text + 11, 2),
                             .tm_min = number_at(text + 14, 2),
                             .tm_sec = number_at(text + 17, 2)};
    struct tm at = given;
    int64_t offset_s;
    *seconds = timegm(&at); /* makes the 3rd of March of the 31st of February */
    if (at.tm_mon != given.tm_mon || at.tm_mday != given.tm_mday || at.tm_hour != given.tm_hour ||
        at.tm_min != given.tm_min || at.tm_sec != given.tm_sec)
        return false;
    const char *rest = text + sizeof PATTERN - 1;
    if (!parse_fraction(&rest, nanos) || !parse_offset(rest, &offset_s)) return false;
    *seconds -= offset_s;
    return true;
}

/* Standard or URL-safe alphabet, with or without padding. False: it is none. */
static bool parse_base64(const char *text, uint8_t *out, size_t *len) {
    uint32_t bits = 0;
    unsigned have = 0;
    *len = 0;
    for (; *text && *text != '='; text++) {
        const char c = *text;
        int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                    : c >= 'a' && c <= 'z' ? c - 'a' + 26
                    : c >= '0' && c <= '9' ? c - '0' + 52
                    : c == '+' || c == '-' ? 62
                    : c == '/' || c == '_' ? 63
                                           : -1;
        if (digit < 0) return false;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have < 8) continue;
        have -= 8;
        out[(*len)++] = (uint8_t)(bits >> have);
    }
    return have < 6 && text[strspn(text, "=")] == '\0';
}

/* ---- the parts ----------------------------------------------------------------------------- */

static void set_payload(ingest_event *event, ingest_operation *op, const char *path,
                        const member *data, const member *raw) {
    const object_message *object = object_of(event, path, data);
    const char *text = text_of(event, path, raw);
    if (object && text) {
        event_complain(event, path, "has both data and raw; give one of them");
    } else if (object) {
        event_operation_struct(op, object);
    } else if (text) {
        size_t len;
        uint8_t *bytes_out = malloc(strlen(text) + 1);
        if (!bytes_out) abort();
        if (parse_base64(text, bytes_out, &len))
            ingest_operation_raw(op, bytes_out, len);
        else
            event_complain(event, path, "\"raw\" is not base64");
        free(bytes_out);
    }
}

static void add_operation(ingest_event *event, const value_message *value, size_t index) {
    char path[64];
    (void)snprintf(path, sizeof path, "event.transaction.operations[%zu]", index);
    if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
        event_complain(event, path, "is not an object");
        return;
    }
    enum { NAME, ENTITY, DATA, RAW, COUNT };
    member members[COUNT] = {[NAME] = {.name = "name"},
                             [ENTITY] = {.name = "entity_id", .other = "entityId"},
                             [DATA] = {.name = "data"},
                             [RAW] = {.name = "raw"}};
    if (!take_members(event, path, value->struct_value, members, COUNT)) return;
    const char *name = text_of(event, path, &members[NAME]);
    ingest_operation *op =
        ingest_event_add(event, name ? name : "", text_of(event, path, &members[ENTITY]));
    set_payload(event, op, path, &members[DATA], &members[RAW]);
}

static ingest_event *transaction_of(const char *source, const object_message *object) {
    static const char PATH[] = "event.transaction";
    enum { NAME, OPERATIONS, COUNT };
    member members[COUNT] = {[NAME] = {.name = "name"}, [OPERATIONS] = {.name = "operations"}};
    ingest_event *event = ingest_transaction_new(source, NULL);
    if (!take_members(event, PATH, object, members, COUNT)) return event;
    event_set_name(event, text_of(event, PATH, &members[NAME]));
    const value_message *list = members[OPERATIONS].value;
    if (list && list->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE)
        event_complain(event, PATH, "\"operations\" is not a list");
    else if (list)
        for (size_t i = 0; i < list->list_value->n_values; i++)
            add_operation(event, list->list_value->values[i], i);
    return event;
}

static ingest_event *informative_of(const char *source, const object_message *object) {
    static const char PATH[] = "event.informative";
    enum { NAME, ENTITY, DATA, RAW, COUNT };
    member members[COUNT] = {[NAME] = {.name = "name"},
                             [ENTITY] = {.name = "entity_id", .other = "entityId"},
                             [DATA] = {.name = "data"},
                             [RAW] = {.name = "raw"}};
    ingest_event *event = ingest_informative_new(source, "", NULL);
    if (!take_members(event, PATH, object, members, COUNT)) return event;
    event_set_name(event, text_of(event, PATH, &members[NAME]));
    event_set_entity(event, text_of(event, PATH, &members[ENTITY]));
    set_payload(event, ingest_event_notice(event), PATH, &members[DATA], &members[RAW]);
    return event;
}

static void set_attributes(ingest_event *event, const object_message *all) {
    for (size_t i = 0; all && i < all->n_fields; i++) {
        const member one = {.name = all->fields[i]->key, .value = all->fields[i]->value};
        const char *text = text_of(event, "event.attributes", &one);
        if (text) ingest_event_set_attribute(event, one.name, text);
    }
}

static void set_time(ingest_event *event, const char *text) {
    int64_t seconds;
    int32_t nanos;
    if (!text) return;
    if (parse_time(text, &seconds, &nanos))
        event_set_time(event, seconds, nanos);
    else
        event_complain(event, "event.time", "\"%.60s\" is not a time as in RFC 3339", text);
}

static ingest_event *event_of(const object_message *object) {
    enum { ID, SOURCE, KEY, TIME, ATTRIBUTES, TRANSACTION, INFORMATIVE, COUNT };
    member members[COUNT] = {[ID] = {.name = "id"},
                             [SOURCE] = {.name = "source"},
                             [KEY] = {.name = "key"},
                             [TIME] = {.name = "time"},
                             [ATTRIBUTES] = {.name = "attributes"},
                             [TRANSACTION] = {.name = "transaction"},
                             [INFORMATIVE] = {.name = "informative"}};
    static const char PATH[] = "event";
    ingest_event *first = ingest_transaction_new("", NULL); /* for errors until the kind is known */
    bool good = take_members(first, PATH, object, members, COUNT);
    const object_message *transaction = object_of(first, PATH, &members[TRANSACTION]);
    const object_message *informative = object_of(first, PATH, &members[INFORMATIVE]);
    const char *source = text_of(first, PATH, &members[SOURCE]);
    if (good && !transaction == !informative)
        event_complain(first, PATH, "needs either a transaction or an informative");
    if (ingest_event_error(first)) return first;
    ingest_event_free(first);

    if (!source) source = "";
    ingest_event *event =
        transaction ? transaction_of(source, transaction) : informative_of(source, informative);
    const char *id = text_of(event, PATH, &members[ID]);
    const char *key = text_of(event, PATH, &members[KEY]);
    if (id && *id) ingest_event_set_id(event, id);
    if (key) ingest_event_set_key(event, key);
    set_time(event, text_of(event, PATH, &members[TIME]));
    set_attributes(event, object_of(event, PATH, &members[ATTRIBUTES]));
    return event;
}

ingest_event *event_from_value(const value_message *value) {
    if (value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE)
        return event_of(value->struct_value);
    ingest_event *event = ingest_transaction_new("", NULL);
    event_complain(event, "event", "is not an object");
    return event;
}

ingest_event *ingest_event_from_json(const char *json, size_t len) {
    char why[JSON_WHY_SIZE];
    arena memory;
    arena_init(&memory, NULL, 0);
    const object_message *object =
        json_object(bytes_of(json, len), EVENT_MESSAGE_DEPTH_MAX, &memory, why);
    ingest_event *event;
    if (object) {
        event = event_of(object);
    } else {
        event = ingest_transaction_new("", NULL);
        event_complain(event, "event", "%s", why);
    }
    event_adopt(event, &memory);
    return event;
}
