/* Recursive descent; the depth is bounded before each step down. */
#include "client/publisher/json.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/validate.h"
#include "storage/utf8.h"

typedef Google__Protobuf__Value value_message;
typedef Google__Protobuf__Struct object_message;
typedef Google__Protobuf__ListValue list_message;
typedef Google__Protobuf__Struct__FieldsEntry field_message;

typedef struct parser {
    const uint8_t *begin, *at, *end;
    unsigned depth; /* messages that may still be opened */
    arena *memory;
    char *why;
} parser;

static bool parse_value(parser *it, value_message **out);

static bool refuse(parser *it, const char *what) {
    (void)snprintf(it->why, JSON_WHY_SIZE, "%.128s, at byte %td", what, it->at - it->begin);
    return false;
}

static void skip_blanks(parser *it) {
    while (it->at < it->end &&
           (*it->at == ' ' || *it->at == '\t' || *it->at == '\n' || *it->at == '\r'))
        it->at++;
}

static bool take(parser *it, char wanted) {
    skip_blanks(it);
    if (it->at == it->end || *it->at != (uint8_t)wanted) return false;
    it->at++;
    return true;
}

static bool step_down(parser *it, unsigned messages) {
    if (it->depth < messages) return refuse(it, "is nested deeper than the server takes");
    it->depth -= messages;
    return true;
}

void *json_grow(void *items, size_t count, arena *memory) {
    if (count & (count - 1)) return items; /* full only at 0, 1, 2, 4, 8... */
    void **larger = arena_alloc(memory, (count ? 2 * count : 1) * sizeof(void *));
    if (count) memcpy(larger, items, count * sizeof(void *));
    return larger;
}

/* ---- strings ------------------------------------------------------------------------------- */

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hexadecimal digits; -1 when they are not there. */
static int32_t take_unit(parser *it) {
    if (it->end - it->at < 4) return -1;
    int32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        const int digit = hex_digit(it->at[i]);
        if (digit < 0) return -1;
        unit = unit << 4 | digit;
    }
    it->at += 4;
    return unit;
}

static uint8_t *put_utf8(uint8_t *out, uint32_t point) {
    if (point < 0x80) {
        *out++ = (uint8_t)point;
        return out;
    }
    const int tails = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t LEADS[] = {0, 0xC0, 0xE0, 0xF0};
    *out++ = (uint8_t)(LEADS[tails] | point >> (6 * tails));
    for (int i = tails; i-- > 0;)
        *out++ = (uint8_t)(0x80 | ((point >> (6 * i)) & 0x3F));
    return out;
}

/* Behind "\u". */
static bool take_code_point(parser *it, uint8_t **out) {
    int32_t point = take_unit(it);
    if (point < 0) return refuse(it, "has a \\u without four hexadecimal digits");
    if (point == 0) return refuse(it, "has a NUL in a string");
    if (point >= 0xDC00 && point <= 0xDFFF) return refuse(it, "has half a surrogate pair");
    if (point >= 0xD800 && point <= 0xDBFF) {
        const bool more = it->end - it->at >= 2 && it->at[0] == '\\' && it->at[1] == 'u';
        it->at += more ? 2 : 0;
        const int32_t low = more ? take_unit(it) : -1;
        if (low < 0xDC00 || low > 0xDFFF) return refuse(it, "has half a surrogate pair");
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    }
    *out = put_utf8(*out, (uint32_t)point);
    return true;
}

static bool take_escape(parser *it, uint8_t **out) {
    static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
    if (it->at == it->end) return refuse(it, "has a string without an end");
    const uint8_t c = *it->at++;
    if (c == 'u') return take_code_point(it, out);
    const char *found = c ? strchr(FROM, c) : NULL;
    if (!found) return refuse(it, "has an escape that JSON does not know");
    *(*out)++ = (uint8_t)TO[found - FROM];
    return true;
}

/* At its opening quote. What is decoded is never longer than what is written. */
static bool parse_string(parser *it, char **text) {
    const uint8_t *start = ++it->at, *close = start;
    while (close < it->end && *close != '"')
        close += *close == '\\' ? 2 : 1;
    if (close >= it->end) return refuse(it, "has a string without an end");
    const size_t len = (size_t)(close - start), sound = utf8_prefix(bytes_of(start, len));
    if (sound < len) {
        it->at = start + sound;
        return refuse(it, "is not valid UTF-8");
    }
    uint8_t *out = arena_alloc(it->memory, len + 1);
    *text = (char *)out;
    while (it->at < close) {
        const uint8_t c = *it->at;
        if (c < 0x20) return refuse(it, "has a control character in a string; escape it");
        it->at++;
        if (c != '\\')
            *out++ = c;
        else if (!take_escape(it, &out))
            return false;
    }
    *out = '\0';
    it->at = close + 1;
    return true;
}

/* ---- numbers and words --------------------------------------------------------------------- */

static bool skip_digits(parser *it) {
    const uint8_t *before = it->at;
    while (it->at < it->end && *it->at >= '0' && *it->at <= '9')
        it->at++;
    return it->at > before;
}

/* Whether it is written as JSON wants it; `integer`: without fraction and exponent. */
static bool scan_number(parser *it, bool *integer) {
    if (*it->at == '-') it->at++;
    if (it->at < it->end && *it->at == '0')
        it->at++;
    else if (!skip_digits(it))
        return refuse(it, "has something that is no JSON value");
    const uint8_t *whole = it->at;
    if (it->at < it->end && *it->at == '.') {
        it->at++;
        if (!skip_digits(it)) return refuse(it, "has a number without digits behind its point");
    }
    if (it->at < it->end && (*it->at | 0x20) == 'e') {
        it->at++;
        if (it->at < it->end && (*it->at == '+' || *it->at == '-')) it->at++;
        if (!skip_digits(it)) return refuse(it, "has a number without digits in its exponent");
    }
    *integer = it->at == whole;
    return true;
}

/* Without regard to the locale's decimal point. */
static double read_double(const char *text) {
    locale_t c = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    const double number = strtod_l(text, NULL, c);
    freelocale(c);
    return number;
}

static bool parse_number(parser *it, double *number) {
    const uint8_t *start = it->at;
    bool integer = false;
    if (!scan_number(it, &integer)) return false;
    const char *text = arena_string(it->memory, start, (size_t)(it->at - start));
    *number = read_double(text);
    it->at = isfinite(*number) ? it->at : start;
    if (!isfinite(*number)) return refuse(it, "has a number beyond what a double holds");
    char exact[330]; /* a double has at most 309 digits before its point */
    if (!integer || fabs(*number) < 9007199254740992.0) return true;
    (void)snprintf(exact, sizeof exact, "%.0f", *number);
    if (strcmp(exact, text) == 0) return true;
    it->at = start;
    return refuse(it, "has an integer beyond 2^53, which a double would change; use a string");
}

static bool take_word(parser *it, const char *word) {
    const size_t len = strlen(word);
    if ((size_t)(it->end - it->at) < len || memcmp(it->at, word, len) != 0)
        return refuse(it, "has something that is no JSON value");
    it->at += len;
    return true;
}

/* ---- objects, lists, values ---------------------------------------------------------------- */

static bool check_names(parser *it, const object_message *object) {
    if (object->n_fields == 0) return true;
    const char **names = arena_alloc(it->memory, object->n_fields * sizeof *names);
    for (size_t i = 0; i < object->n_fields; i++)
        names[i] = object->fields[i]->key;
    const char *twice = first_duplicate(names, object->n_fields);
    if (!twice) return true;
    char what[128];
    (void)snprintf(what, sizeof what, "has the name \"%.64s\" twice in an object", twice);
    return refuse(it, what);
}

static bool parse_field(parser *it, object_message *object) {
    skip_blanks(it);
    if (it->at == it->end || *it->at != '"') return refuse(it, "lacks a name in an object");
    field_message *field = arena_alloc(it->memory, sizeof *field);
    google__protobuf__struct__fields_entry__init(field);
    if (!parse_string(it, &field->key)) return false;
    if (!take(it, ':')) return refuse(it, "lacks a colon behind a name");
    if (!parse_value(it, &field->value)) return false;
    object->fields = json_grow(object->fields, object->n_fields, it->memory);
    object->fields[object->n_fields++] = field;
    return true;
}

/* Behind the opening brace. */
static bool parse_object(parser *it, object_message **out) {
    object_message *object = arena_alloc(it->memory, sizeof *object);
    google__protobuf__struct__init(object);
    *out = object;
    if (!step_down(it, 2)) return false; /* itself and its entries */
    if (!take(it, '}')) {
        do {
            if (!parse_field(it, object)) return false;
        } while (take(it, ','));
        if (!take(it, '}')) return refuse(it, "lacks a comma or a closing brace in an object");
    }
    it->depth += 2;
    return check_names(it, object);
}

/* Behind the opening bracket. */
static bool parse_list(parser *it, list_message **out) {
    list_message *list = arena_alloc(it->memory, sizeof *list);
    google__protobuf__list_value__init(list);
    *out = list;
    if (!step_down(it, 1)) return false;
    if (!take(it, ']')) {
        do {
            value_message *item = NULL;
            if (!parse_value(it, &item)) return false;
            list->values = json_grow(list->values, list->n_values, it->memory);
            list->values[list->n_values++] = item;
        } while (take(it, ','));
        if (!take(it, ']')) return refuse(it, "lacks a comma or a closing bracket in a list");
    }
    it->depth += 1;
    return true;
}

#define KIND(name) GOOGLE__PROTOBUF__VALUE__KIND_##name

static bool parse_kind(parser *it, value_message *value) {
    switch (*it->at) {
    case '{':
        it->at++;
        value->kind_case = KIND(STRUCT_VALUE);
        return parse_object(it, &value->struct_value);
    case '[':
        it->at++;
        value->kind_case = KIND(LIST_VALUE);
        return parse_list(it, &value->list_value);
    case '"':
        value->kind_case = KIND(STRING_VALUE);
        return parse_string(it, &value->string_value);
    case 't':
    case 'f':
        value->kind_case = KIND(BOOL_VALUE);
        value->bool_value = *it->at == 't';
        return take_word(it, value->bool_value ? "true" : "false");
    case 'n':
        value->kind_case = KIND(NULL_VALUE);
        return take_word(it, "null");
    default:
        value->kind_case = KIND(NUMBER_VALUE);
        return parse_number(it, &value->number_value);
    }
}

static bool parse_value(parser *it, value_message **out) {
    skip_blanks(it);
    if (it->at == it->end) return refuse(it, "ends where a value is expected");
    if (!step_down(it, 1)) return false;
    *out = arena_alloc(it->memory, sizeof **out);
    google__protobuf__value__init(*out);
    if (!parse_kind(it, *out)) return false;
    it->depth += 1;
    return true;
}

static bool at_end(parser *it) {
    skip_blanks(it);
    return it->at == it->end || refuse(it, "goes on behind its end");
}

Google__Protobuf__Value *json_value(bytes text, unsigned depth, arena *memory,
                                    char why[JSON_WHY_SIZE]) {
    parser it = {text.data, text.data, text.data + text.len, depth, memory, why};
    value_message *value = NULL;
    return parse_value(&it, &value) && at_end(&it) ? value : NULL;
}

Google__Protobuf__Struct *json_object(bytes text, unsigned depth, arena *memory,
                                      char why[JSON_WHY_SIZE]) {
    parser it = {text.data, text.data, text.data + text.len, depth, memory, why};
    object_message *object = NULL;
    if (!take(&it, '{')) {
        (void)refuse(&it, "is no JSON object");
        return NULL;
    }
    return parse_object(&it, &object) && at_end(&it) ? object : NULL;
}
