#include "client/consumer/effects.h"

#include <stdlib.h>

#include "storage/crc32c.h"

enum { DEPTH_MAX = 8 }; /* of all_of() within all_of() */

struct effects {
    catalogue *all;         /* owned: names are borrowed from it */
    operation_effects *own; /* owned; in the order of the catalogue */
    size_t count;
    uint32_t crc;
};

/* ---- the list of one operation --------------------------------------------------------------- */

typedef struct gathering {
    const catalogue *all;
    const catalogue_entry *of;
    ingest_effect_kind kind; /* of the column that is being resolved */
    effect *items;
    size_t count, capacity;
    failure *why;
} gathering;

static const char *const *column(const gathering *it, const catalogue_entry *entry, size_t *count) {
    *count = it->kind == INGEST_INDEX ? entry->index_count : entry->table_count;
    return it->kind == INGEST_INDEX ? entry->indexes : entry->tables;
}

static outcome add(gathering *it, const char *name) {
    for (size_t i = 0; i < it->count; i++)
        if (it->items[i].kind == it->kind && strcmp(it->items[i].name, name) == 0) return ST_OK;
    if (it->count == it->capacity) {
        const size_t larger = it->capacity ? it->capacity * 2 : 8;
        effect *moved = realloc(it->items, larger * sizeof *moved);
        if (!moved) return fail(it->why, ST_NO_MEMORY, "catalogue", "no memory");
        it->items = moved;
        it->capacity = larger;
    }
    it->items[it->count++] = (effect){.kind = it->kind, .name = name};
    return ST_OK;
}

static bool begins_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* What stands between the brackets of NAME(...). */
static bytes inside(const char *item) {
    const char *begin = strchr(item, '(') + 1;
    return bytes_of(begin, strlen(begin) - 1);
}

static outcome add_column(gathering *it, const catalogue_entry *entry, unsigned depth);

static outcome add_all_of(gathering *it, bytes operation, unsigned depth) {
    const catalogue_entry *entry = catalogue_find(it->all, operation);
    if (!entry || depth == DEPTH_MAX)
        return fail(it->why, ST_INVALID, "catalogue",
                    "%s: all_of(%.*s) contains itself, or is nested more than %d times",
                    it->of->name, (int)operation.len, (const char *)operation.data, DEPTH_MAX);
    return add_column(it, entry, depth + 1);
}

static bool has_index(const catalogue_entry *entry, bytes record) {
    for (size_t i = 0; i < entry->index_count; i++)
        if (bytes_equal(bytes_of_string(entry->indexes[i]), record)) return true;
    return false;
}

/* complete(a|b): of every operation that changes the index of record a, then of b. What such an
 * operation has by a complete() of its own is left out: that is its own matter, and may be us. */
static outcome add_complete(gathering *it, bytes records, unsigned depth) {
    outcome result = ST_OK;
    while (records.len > 0 && result == ST_OK) {
        const uint8_t *bar = memchr(records.data, '|', records.len);
        const bytes record =
            bytes_of(records.data, bar ? (size_t)(bar - records.data) : records.len);
        for (size_t i = 0; i < catalogue_count(it->all) && result == ST_OK; i++) {
            const catalogue_entry *entry = catalogue_at(it->all, i);
            if (has_index(entry, record)) result = add_column(it, entry, depth + 1);
        }
        const size_t passed = record.len + (bar != NULL);
        records = bytes_of(records.data + passed, records.len - passed);
    }
    return result;
}

/* `depth` 0: the operation itself. */
static outcome add_column(gathering *it, const catalogue_entry *entry, unsigned depth) {
    size_t count;
    const char *const *items = column(it, entry, &count);
    outcome result = ST_OK;
    for (size_t i = 0; i < count && result == ST_OK; i++) {
        if (begins_with(items[i], "all_of("))
            result = add_all_of(it, inside(items[i]), depth);
        else if (!begins_with(items[i], "complete("))
            result = add(it, items[i]);
        else if (depth == 0)
            result = add_complete(it, inside(items[i]), depth);
    }
    return result;
}

static outcome resolve(const catalogue *all, const catalogue_entry *entry, operation_effects *out,
                       failure *why) {
    gathering it = {.all = all, .of = entry, .kind = INGEST_INDEX, .why = why};
    outcome result = add_column(&it, entry, 0);
    it.kind = INGEST_TABLE;
    if (result == ST_OK) result = add_column(&it, entry, 0);
    it.kind = entry->transaction ? INGEST_OPERATION : INGEST_NOTICE;
    if (result == ST_OK && it.count == 0) result = add(&it, entry->name);
    *out = (operation_effects){.operation = entry->name,
                               .items = it.items,
                               .count = (uint32_t)it.count,
                               .transaction = entry->transaction};
    return result;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static uint32_t crc_of(uint32_t crc, const operation_effects *one) {
    crc = crc32c_extend(crc, one->operation, strlen(one->operation) + 1);
    for (uint32_t i = 0; i < one->count; i++) {
        const uint8_t kind = (uint8_t)one->items[i].kind;
        crc = crc32c_extend(crc, &kind, 1);
        crc = crc32c_extend(crc, one->items[i].name, strlen(one->items[i].name) + 1);
    }
    return crc;
}

outcome effects_new(catalogue *all, effects **out, failure *why) {
    effects *it = calloc(1, sizeof *it);
    *out = NULL;
    if (it) it->own = calloc(catalogue_count(all), sizeof *it->own);
    if (!it || !it->own) {
        free(it);
        catalogue_free(all);
        return fail(why, ST_NO_MEMORY, "catalogue", "no memory");
    }
    it->all = all;
    outcome result = ST_OK;
    while (it->count < catalogue_count(all) && result == ST_OK) {
        operation_effects *one = &it->own[it->count];
        result = resolve(all, catalogue_at(all, it->count++), one, why);
        if (result == ST_OK) it->crc = crc_of(it->crc, one);
    }
    if (result == ST_OK)
        *out = it;
    else
        effects_free(it);
    return result;
}

void effects_free(effects *it) {
    if (!it) return;
    for (size_t i = 0; i < it->count; i++)
        free(it->own[i].items);
    free(it->own);
    catalogue_free(it->all);
    free(it);
}

const operation_effects *effects_of(const effects *it, bytes operation) {
    const catalogue_entry *entry = catalogue_find(it->all, operation);
    return entry ? &it->own[entry - catalogue_at(it->all, 0)] : NULL;
}

uint32_t effects_crc(const effects *it) { return it->crc; }

outcome effects_bind(effects *it, bool (*find)(const void *arg, effect *one), const void *arg,
                     failure *why) {
    static const char *const KINDS[] = {"the index", "the table", "the operation", "the notice"};
    for (size_t i = 0; i < it->count; i++)
        for (uint32_t k = 0; k < it->own[i].count; k++) {
            effect *one = &it->own[i].items[k];
            if (!find(arg, one))
                return fail(why, ST_PRECONDITION, "handlers",
                            "%s %s of %s has none: name one with ingest_consumer_handle, or one "
                            "of INGEST_ANY for all that have none",
                            KINDS[one->kind], one->name, it->own[i].operation);
        }
    return ST_OK;
}
