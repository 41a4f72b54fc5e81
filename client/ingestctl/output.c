/* Plain functions on stdio; one thread. Out of memory ends the process. */
#include "client/ingestctl/output.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "ingest/v1/events.pb-c.h"
#include "server/event_json.h"
#include "server/rfc3339.h"
#include "storage/utf8.h"

/* ---- JSON ---------------------------------------------------------------------------------- */

void print_json_bytes(FILE *out, bytes text) {
    (void)fputc('"', out);
    while (text.len > 0) {
        const size_t sound = utf8_prefix(text);
        for (size_t i = 0; i < sound; i++) {
            const uint8_t c = text.data[i];
            if (c == '"' || c == '\\')
                (void)fprintf(out, "\\%c", c);
            else if (c < 0x20)
                (void)fprintf(out, "\\u%04x", c);
            else
                (void)fputc(c, out);
        }
        if (sound < text.len) (void)fputs(text.data[sound] ? "\\ufffd" : "\\u0000", out);
        const size_t past = sound < text.len ? sound + 1 : sound;
        text = bytes_of(text.data + past, text.len - past);
    }
    (void)fputc('"', out);
}

void print_json_text(FILE *out, const char *text) { print_json_bytes(out, bytes_of_string(text)); }

/* entity_id -> entityId */
static void print_field_name(FILE *out, const char *name) {
    (void)fputc('"', out);
    for (bool up = false; *name; name++) {
        if (*name == '_') {
            up = true;
            continue;
        }
        (void)fputc(up && *name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : *name, out);
        up = false;
    }
    (void)fputs("\":", out);
}

static void print_scalar(FILE *out, const ProtobufCFieldDescriptor *field, const void *at) {
    int32_t number;
    uint32_t positive;
    int64_t wide;
    switch (field->type) {
    case PROTOBUF_C_TYPE_BOOL:
        (void)fputs(*(const protobuf_c_boolean *)at ? "true" : "false", out);
        break;
    case PROTOBUF_C_TYPE_ENUM: {
        memcpy(&number, at, sizeof number);
        const ProtobufCEnumValue *value =
            protobuf_c_enum_descriptor_get_value(field->descriptor, number);
        if (value)
            print_json_text(out, value->name);
        else
            (void)fprintf(out, "%d", number);
        break;
    }
    case PROTOBUF_C_TYPE_STRING:
        print_json_text(out, *(char *const *)at ? *(char *const *)at : "");
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64: /* as text: a double does not hold them all */
        memcpy(&wide, at, sizeof wide);
        (void)fprintf(out, field->type == PROTOBUF_C_TYPE_UINT64 ? "\"%llu\"" : "\"%lld\"",
                      (unsigned long long)wide);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        memcpy(&positive, at, sizeof positive);
        (void)fprintf(out, "%u", positive);
        break;
    case PROTOBUF_C_TYPE_INT32:
        memcpy(&number, at, sizeof number);
        (void)fprintf(out, "%d", number);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        print_message_json(out, *(const ProtobufCMessage *const *)at);
        break;
    default: /* our answers hold no other */
        (void)fputs("null", out);
    }
}

static size_t size_of(const ProtobufCFieldDescriptor *field) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
        return 8;
    default:
        return 4;
    }
}

/* Fields of a oneof, and messages, are printed when they are there; all others always. */
static bool is_there(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    const char *base = (const char *)message;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) return true;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t chosen;
        memcpy(&chosen, base + field->quantifier_offset, sizeof chosen);
        return chosen == field->id;
    }
    return field->type != PROTOBUF_C_TYPE_MESSAGE || *(void *const *)(base + field->offset);
}

static void print_field(FILE *out, const ProtobufCMessage *message,
                        const ProtobufCFieldDescriptor *field) {
    const char *base = (const char *)message;
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        print_scalar(out, field, base + field->offset);
        return;
    }
    size_t count;
    memcpy(&count, base + field->quantifier_offset, sizeof count);
    const char *items = *(char *const *)(base + field->offset);
    (void)fputc('[', out);
    for (size_t i = 0; i < count; i++) {
        if (i) (void)fputc(',', out);
        print_scalar(out, field, items + i * size_of(field));
    }
    (void)fputc(']', out);
}

static void print_event(FILE *out, const Ingest__V1__Event *event) {
    const size_t size = event_json_write(event, NULL, 0);
    char *text = malloc(size ? size : 1);
    if (!text) abort();
    (void)event_json_write(event, text, size);
    (void)fwrite(text, 1, size, out);
    free(text);
}

void print_message_json(FILE *out, const ProtobufCMessage *message) {
    const ProtobufCMessageDescriptor *type = message->descriptor;
    if (type == &ingest__v1__event__descriptor) {
        print_event(out, (const Ingest__V1__Event *)message);
        return;
    }
    if (type == &google__protobuf__timestamp__descriptor) {
        const Google__Protobuf__Timestamp *time = (const Google__Protobuf__Timestamp *)message;
        char text[RFC3339_SIZE];
        (void)rfc3339_write(time->seconds, time->nanos, RFC3339_SHORTEST, text);
        print_json_text(out, text);
        return;
    }
    if (type == &google__protobuf__duration__descriptor) {
        const Google__Protobuf__Duration *time = (const Google__Protobuf__Duration *)message;
        (void)fprintf(out, "\"%lld.%03ds\"", (long long)time->seconds, time->nanos / 1000000);
        return;
    }
    bool first = true;
    (void)fputc('{', out);
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (field->descriptor == &google__protobuf__any__descriptor || !is_there(message, field))
            continue;
        if (!first) (void)fputc(',', out);
        first = false;
        print_field_name(out, field->name);
        print_field(out, message, field);
    }
    (void)fputc('}', out);
}

void print_plain(FILE *out, bytes text) {
    while (text.len > 0) {
        const size_t sound = utf8_prefix(text);
        for (size_t i = 0; i < sound; i++) {
            /* C0, DEL, and C1, which is C2 80 to C2 9F */
            const uint8_t c = text.data[i];
            const bool steers =
                c < 0x20 || c == 0x7f || (c == 0xc2 && i + 1 < sound && text.data[i + 1] < 0xa0);
            (void)fputc(steers ? '?' : c, out);
            i += steers && c == 0xc2;
        }
        if (sound < text.len) (void)fputc('?', out);
        const size_t past = sound < text.len ? sound + 1 : sound;
        text = bytes_of(text.data + past, text.len - past);
    }
}

static char *text_of(const char *format, va_list args) PRINTF_LIKE(1, 0);
static char *text_of(const char *format, va_list args) {
    char *text;
    if (vasprintf(&text, format, args) < 0) abort();
    return text;
}

void print_line(const char *name, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = text_of(format, args);
    va_end(args);
    (void)printf("%-9s ", name);
    print_plain(stdout, bytes_of_string(text));
    (void)putchar('\n');
    free(text);
}

/* ---- tables -------------------------------------------------------------------------------- */

struct table {
    size_t columns, count, capacity;
    char **cells; /* owned, as each of them */
};

static void add_cell(table *it, char *cell) {
    if (it->count == it->capacity) {
        it->capacity = it->capacity ? 2 * it->capacity : 64;
        it->cells = realloc(it->cells, it->capacity * sizeof *it->cells);
        if (!it->cells) abort();
    }
    it->cells[it->count++] = cell;
}

table *table_new(const char *const *headings, size_t columns) {
    table *it = calloc(1, sizeof *it);
    if (!it) abort();
    it->columns = columns;
    for (size_t i = 0; i < columns; i++)
        add_cell(it, strdup(headings[i]));
    return it;
}

void table_add(table *it, const char *format, ...) {
    va_list args;
    va_start(args, format);
    add_cell(it, text_of(format, args));
    va_end(args);
}

static const char *shown(const table *it, size_t cell) {
    const char *text = it->cells[cell];
    return cell < it->columns && text[0] == '>' ? text + 1 : text;
}

/* In characters, as a terminal shows most of them. */
static int width_of(const char *text) {
    int width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static int column_width(const table *it, size_t column) {
    int width = 0;
    for (size_t cell = column; cell < it->count; cell += it->columns)
        if (width_of(shown(it, cell)) > width) width = width_of(shown(it, cell));
    return width;
}

void table_print(FILE *out, const table *it) {
    int *widths = calloc(it->columns, sizeof *widths);
    if (!widths) abort();
    for (size_t column = 0; column < it->columns; column++)
        widths[column] = column_width(it, column);
    for (size_t cell = 0; cell < it->count; cell++) {
        const size_t column = cell % it->columns;
        const char *text = shown(it, cell);
        const int gap = widths[column] - width_of(text);
        const bool right = it->cells[column][0] == '>', last = column + 1 == it->columns;
        (void)fprintf(out, "%*s", right ? gap : 0, "");
        print_plain(out, bytes_of_string(text));
        (void)fprintf(out, "%*s%s", right || last ? 0 : gap, "", last ? "\n" : "  ");
    }
    free(widths);
}

void table_free(table *it) {
    for (size_t cell = 0; cell < it->count; cell++)
        free(it->cells[cell]);
    free(it->cells);
    free(it);
}

/* ---- texts --------------------------------------------------------------------------------- */

static char *next_text(void) {
    static char texts[4][40];
    static unsigned next;
    return texts[next++ % 4];
}

const char *time_text(const Google__Protobuf__Timestamp *time) {
    char *text = next_text();
    if (!time) return "-";
    (void)rfc3339_write(time->seconds, time->nanos, RFC3339_MILLIS, text);
    return text;
}

const char *age_text(const Google__Protobuf__Duration *age) {
    char *text = next_text();
    if (!age) return "-";
    const long long s = age->seconds;
    if (s < 60)
        (void)snprintf(text, 40, "%lld.%d s", s, age->nanos / 100000000);
    else if (s < 3600)
        (void)snprintf(text, 40, "%lld min %lld s", s / 60, s % 60);
    else if (s < 48 * 3600)
        (void)snprintf(text, 40, "%lld h %lld min", s / 3600, s / 60 % 60);
    else
        (void)snprintf(text, 40, "%lld days", s / 86400);
    return text;
}

const char *size_text(uint64_t size) {
    static const char *const UNITS[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    char *text = next_text();
    double value = (double)size;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof UNITS / sizeof *UNITS) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, 40, unit ? "%.1f %s" : "%.0f %s", value, UNITS[unit]);
    return text;
}
