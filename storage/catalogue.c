/*
 * One copy of the text, cut in place by NULs; entries, effects and slots are arrays of pointers
 * and numbers into it. Names are found by open addressing in a table at most half full.
 */
#include "storage/catalogue.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX_BYTES (1 << 20)
#define NAME_MAX_CHARS 128
#define ROUTE_MAX_CHARS 63
#define TOPIC_MAX_CHARS 249

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define NAME_CHARS LOWER UPPER DIGITS "._-"

typedef enum column { NAME, KIND, ROUTE, TOPIC, INDEXES, TABLES, COLUMNS } column;
static const char *const COLUMN_NAMES[COLUMNS] = {"name",  "kind",    "route",
                                                  "topic", "indexes", "tables"};

struct catalogue {
    char *text;
    catalogue_entry *entries;
    size_t *lines; /* of each entry, for messages */
    size_t count;
    const char **effects; /* of all entries, one after the other */
    size_t effect_count;
    uint32_t *slots; /* entry + 1; 0: free */
    size_t slot_mask;
};

static outcome complain(failure *why, size_t line, const char *format, ...) PRINTF_LIKE(3, 4);
static outcome complain(failure *why, size_t line, const char *format, ...) {
    char reason[sizeof why->reason], field[32];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    (void)snprintf(field, sizeof field, "catalogue:%zu", line);
    return fail(why, ST_INVALID, field, "%s", reason);
}

/* ---- looking up ------------------------------------------------------------------------ */

/* FNV-1a: names are short and come from the operator, so nothing better is needed. */
static size_t hash(bytes name) {
    uint64_t value = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < name.len; i++)
        value = (value ^ name.data[i]) * UINT64_C(1099511628211);
    return (size_t)(value ^ (value >> 32));
}

/* The slot that holds `name`, or the free one where it belongs. */
static uint32_t *find_slot(const catalogue *all, bytes name) {
    for (size_t at = hash(name) & all->slot_mask;; at = (at + 1) & all->slot_mask) {
        uint32_t *slot = &all->slots[at];
        if (*slot == 0 || bytes_equal(bytes_of_string(all->entries[*slot - 1].name), name))
            return slot;
    }
}

const catalogue_entry *catalogue_find(const catalogue *all, bytes name) {
    uint32_t slot = *find_slot(all, name);
    return slot ? &all->entries[slot - 1] : NULL;
}

size_t catalogue_count(const catalogue *all) { return all->count; }
const catalogue_entry *catalogue_at(const catalogue *all, size_t index) {
    return &all->entries[index];
}

/* ---- one line -------------------------------------------------------------------------- */

static bool made_of(const char *text, const char *characters, size_t max) {
    size_t len = strlen(text);
    return len > 0 && len <= max && strspn(text, characters) == len;
}

/* NAME, all_of(NAME) or complete(NAME|NAME). */
static bool is_effect(const char *text) {
    if (made_of(text, NAME_CHARS, NAME_MAX_CHARS)) return true;
    size_t len = strlen(text);
    bool all_of = strncmp(text, "all_of(", 7) == 0;
    size_t begin = all_of ? 7 : strncmp(text, "complete(", 9) == 0 ? 9 : 0;
    if (begin == 0 || text[len - 1] != ')') return false;
    const char *inner = text + begin;
    size_t inner_len = strspn(inner, all_of ? NAME_CHARS : NAME_CHARS "|");
    return inner_len > 0 && begin + inner_len + 1 == len && *inner != '|' &&
           inner[inner_len - 1] != '|' && !strstr(inner, "||");
}

/* Cuts the list at its commas; its items go behind the effects there are. */
static outcome parse_effects(catalogue *all, size_t line, char *list, const char *column_name,
                             const char *const **items, size_t *count, failure *why) {
    *items = &all->effects[all->effect_count];
    *count = 0;
    if (strcmp(list, "-") == 0) return ST_OK;
    for (char *next, *at = list; at; at = next) {
        next = strchr(at, ',');
        if (next) *next++ = '\0';
        if (!is_effect(at))
            return complain(why, line, "%s: \"%s\" is not a name, all_of(NAME) or complete(A|B)",
                            column_name, at);
        all->effects[all->effect_count++] = at;
        ++*count;
    }
    return ST_OK;
}

static outcome split_columns(char *text, size_t line, char *columns[COLUMNS], failure *why) {
    size_t count = 0;
    for (char *next, *at = text; at; at = next) {
        next = strchr(at, '\t');
        if (next) *next++ = '\0';
        if (count < COLUMNS) columns[count] = at;
        count++;
    }
    if (count != COLUMNS)
        return complain(why, line,
                        "has %zu fields, not %d: name, kind, route, topic, indexes, "
                        "tables, with one tab between",
                        count, COLUMNS);
    for (size_t i = 0; i < COLUMNS; i++)
        if (!*columns[i])
            return complain(why, line, "%s: is empty; write - for none", COLUMN_NAMES[i]);
    return ST_OK;
}

static outcome check_columns(char *const columns[COLUMNS], size_t line, failure *why) {
    if (!made_of(columns[NAME], NAME_CHARS, NAME_MAX_CHARS) || strcmp(columns[NAME], "-") == 0)
        return complain(why, line, "name: \"%s\" is not 1 to %d of [a-zA-Z0-9._-]", columns[NAME],
                        NAME_MAX_CHARS);
    if (strcmp(columns[KIND], "transaction") != 0 && strcmp(columns[KIND], "informative") != 0)
        return complain(why, line, "kind: \"%s\" is neither transaction nor informative",
                        columns[KIND]);
    if (!made_of(columns[ROUTE], LOWER DIGITS "._-", ROUTE_MAX_CHARS))
        return complain(why, line, "route: \"%s\" is not 1 to %d of [a-z0-9._-]", columns[ROUTE],
                        ROUTE_MAX_CHARS);
    if (!made_of(columns[TOPIC], NAME_CHARS, TOPIC_MAX_CHARS) || strcmp(columns[TOPIC], ".") == 0 ||
        strcmp(columns[TOPIC], "..") == 0)
        return complain(why, line, "topic: \"%s\" is not a topic name: 1 to %d of [a-zA-Z0-9._-]",
                        columns[TOPIC], TOPIC_MAX_CHARS);
    return ST_OK;
}

static outcome parse_line(catalogue *all, size_t line, char *text, failure *why) {
    char *columns[COLUMNS];
    outcome result = split_columns(text, line, columns, why);
    if (result == ST_OK) result = check_columns(columns, line, why);
    if (result != ST_OK) return result;

    uint32_t *slot = find_slot(all, bytes_of_string(columns[NAME]));
    if (*slot)
        return complain(why, line, "name: \"%s\" stands in line %zu already", columns[NAME],
                        all->lines[*slot - 1]);
    catalogue_entry *entry = &all->entries[all->count];
    entry->name = columns[NAME];
    entry->transaction = *columns[KIND] == 't';
    entry->route = columns[ROUTE];
    entry->topic = strcmp(columns[TOPIC], "-") == 0 ? NULL : columns[TOPIC];
    result = parse_effects(all, line, columns[INDEXES], COLUMN_NAMES[INDEXES], &entry->indexes,
                           &entry->index_count, why);
    if (result == ST_OK)
        result = parse_effects(all, line, columns[TABLES], COLUMN_NAMES[TABLES], &entry->tables,
                               &entry->table_count, why);
    if (result != ST_OK) return result;
    all->lines[all->count] = line;
    *slot = (uint32_t)++all->count;
    return ST_OK;
}

/* ---- the whole ------------------------------------------------------------------------- */

static size_t count_byte(bytes text, char wanted) {
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += text.data[i] == (uint8_t)wanted;
    return count;
}

/* Room for as many entries and effects as the text can hold. */
static catalogue *reserve(bytes text) {
    size_t lines = count_byte(text, '\n') + 1;
    size_t effects = 2 * lines + count_byte(text, ',');
    size_t slots = 16;
    while (slots < 2 * lines)
        slots *= 2;
    catalogue *all = calloc(1, sizeof *all);
    if (!all) return NULL;
    all->text = malloc(text.len + 1);
    all->entries = calloc(lines, sizeof *all->entries);
    all->lines = calloc(lines, sizeof *all->lines);
    all->effects = calloc(effects, sizeof *all->effects);
    all->slots = calloc(slots, sizeof *all->slots);
    all->slot_mask = slots - 1;
    if (!all->text || !all->entries || !all->lines || !all->effects || !all->slots) {
        catalogue_free(all);
        return NULL;
    }
    if (text.len) memcpy(all->text, text.data, text.len);
    all->text[text.len] = '\0';
    return all;
}

/* all_of(NAME) must name an entry; only known once all are read. */
static outcome check_references(const catalogue *all, failure *why) {
    for (size_t i = 0; i < all->count; i++) {
        const catalogue_entry *entry = &all->entries[i];
        for (size_t k = 0; k < entry->index_count + entry->table_count; k++) {
            const char *effect =
                k < entry->index_count ? entry->indexes[k] : entry->tables[k - entry->index_count];
            if (strncmp(effect, "all_of(", 7) != 0) continue;
            bytes name = bytes_of(effect + 7, strlen(effect) - 8);
            if (!catalogue_find(all, name))
                return complain(why, all->lines[i], "%s: there is no such operation", effect);
        }
    }
    return ST_OK;
}

static outcome parse_lines(catalogue *all, failure *why) {
    size_t line = 0;
    for (char *next, *at = all->text; at; at = next) {
        line++;
        next = strchr(at, '\n');
        if (next) *next++ = '\0';
        size_t len = strlen(at);
        if (len > 0 && at[len - 1] == '\r') at[--len] = '\0';
        if (len == 0 || *at == '#') continue;
        outcome result = parse_line(all, line, at, why);
        if (result != ST_OK) return result;
    }
    if (all->count == 0) return complain(why, line, "holds no operation");
    return check_references(all, why);
}

outcome catalogue_parse(bytes text, catalogue **out, failure *why) {
    *out = NULL;
    if (text.len > TEXT_MAX_BYTES)
        return fail(why, ST_INVALID, "catalogue", "is longer than %d bytes", TEXT_MAX_BYTES);
    if (text.len && memchr(text.data, '\0', text.len))
        return fail(why, ST_INVALID, "catalogue", "holds a NUL: is it text?");
    catalogue *all = reserve(text);
    if (!all) return fail(why, ST_NO_MEMORY, "catalogue", "out of memory");
    outcome result = parse_lines(all, why);
    if (result == ST_OK)
        *out = all;
    else
        catalogue_free(all);
    return result;
}

outcome catalogue_load(const char *path, catalogue **out, failure *why) {
    *out = NULL;
    FILE *file = fopen(path, "re");
    if (!file) return fail(why, ST_IO, "catalogue", "%s: %s", path, strerror(errno));
    char *text = malloc(TEXT_MAX_BYTES + 1);
    const size_t len = text ? fread(text, 1, TEXT_MAX_BYTES + 1, file) : 0;
    outcome result = ST_OK;
    if (!text)
        result = fail(why, ST_NO_MEMORY, "catalogue", "out of memory");
    else if (ferror(file))
        result = fail(why, ST_IO, "catalogue", "%s: %s", path, strerror(errno));
    else
        result = catalogue_parse(bytes_of(text, len), out, why);
    free(text);
    (void)fclose(file);
    return result;
}

void catalogue_free(catalogue *all) {
    if (!all) return;
    free(all->text);
    free(all->entries);
    free(all->lines);
    free(all->effects);
    free(all->slots);
    free(all);
}
