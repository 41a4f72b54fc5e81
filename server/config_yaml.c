/* The file, by libyaml, flattened: "a: {b: 1}" gives a.b = 1, "a: [{b: 1}]" gives a[0].b = 1. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "server/config_source.h"

#define DEPTH_MAX 8       /* also ends an alias that holds itself */
#define SETTINGS_MAX 4096 /* aliases could multiply without end */
#define PATH_MAX_CHARS 200

typedef struct walk {
    settings *all;
    const char *file;
    yaml_document_t *document;
    failure *why;
} walk;

static outcome bad(const walk *it, const yaml_node_t *node, const char *path, const char *reason) {
    return fail(it->why, ST_INVALID, path, "%s [%s:%zu]", reason, it->file,
                node->start_mark.line + 1);
}

/* null as YAML 1.2 writes it: plain null or ~, or nothing at all. */
static bool is_null(const yaml_node_t *node) {
    const char *text = (const char *)node->data.scalar.value;
    return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static outcome add(const walk *it, const yaml_node_t *node, const char *path, const char *value) {
    if (it->all->count >= SETTINGS_MAX) return bad(it, node, path, "too many settings");
    for (size_t i = 0; i < it->all->count; i++)
        if (strcmp(it->all->items[i].path, path) == 0) return bad(it, node, path, "given twice");
    char origin[300];
    (void)snprintf(origin, sizeof origin, "%s:%zu", it->file, node->start_mark.line + 1);
    return settings_add(it->all, path, value, origin, it->why);
}

static outcome walk_node(const walk *it, int index, const char *path, int depth);

static const char *key_text(const walk *it, const yaml_node_pair_t *pair) {
    const yaml_node_t *key = yaml_document_get_node(it->document, pair->key);
    return key->type == YAML_SCALAR_NODE ? (const char *)key->data.scalar.value : NULL;
}

static outcome walk_mapping(const walk *it, const yaml_node_t *node, const char *path, int depth) {
    const yaml_node_pair_t *begin = node->data.mapping.pairs.start;
    const yaml_node_pair_t *end = node->data.mapping.pairs.top;
    for (const yaml_node_pair_t *pair = begin; pair < end; pair++) {
        const yaml_node_t *value = yaml_document_get_node(it->document, pair->value);
        const char *name = key_text(it, pair);
        if (!name || !*name) return bad(it, node, path, "holds a key that is not a name");
        char inner[PATH_MAX_CHARS];
        int len = snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "", name);
        if (len >= (int)sizeof inner) return bad(it, value, path, "holds a key that is too long");
        for (const yaml_node_pair_t *other = begin; other < pair; other++)
            if (strcmp(key_text(it, other), name) == 0) return bad(it, value, inner, "given twice");
        outcome result = walk_node(it, pair->value, inner, depth + 1);
        if (result != ST_OK) return result;
    }
    return ST_OK;
}

static outcome walk_sequence(const walk *it, const yaml_node_t *node, const char *path, int depth) {
    const yaml_node_item_t *begin = node->data.sequence.items.start;
    const yaml_node_item_t *end = node->data.sequence.items.top;
    if (begin == end) return add(it, node, path, "");
    for (const yaml_node_item_t *item = begin; item < end; item++) {
        char inner[PATH_MAX_CHARS];
        int len = snprintf(inner, sizeof inner, "%s[%td]", path, item - begin);
        if (len >= (int)sizeof inner) return bad(it, node, path, "is too long a path");
        outcome result = walk_node(it, *item, inner, depth + 1);
        if (result != ST_OK) return result;
    }
    return ST_OK;
}

static outcome walk_node(const walk *it, int index, const char *path, int depth) {
    const yaml_node_t *node = yaml_document_get_node(it->document, index);
    if (depth > DEPTH_MAX) return bad(it, node, path, "nested too deep");
    switch (node->type) {
    case YAML_MAPPING_NODE:
        return walk_mapping(it, node, path, depth);
    case YAML_SEQUENCE_NODE:
        return walk_sequence(it, node, path, depth);
    default:
        if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length)
            return bad(it, node, path, "holds a NUL character");
        return add(it, node, path, is_null(node) ? NULL : (const char *)node->data.scalar.value);
    }
}

static outcome syntax_error(const char *file, const yaml_parser_t *parser, failure *why) {
    if (parser->error == YAML_MEMORY_ERROR)
        return fail(why, ST_NO_MEMORY, "config", "out of memory");
    size_t line = parser->problem_mark.line + 1;
    return fail(why, ST_INVALID, "config", "not YAML: %s [%s:%zu]",
                parser->problem ? parser->problem : "unreadable", file, line);
}

static outcome walk_document(settings *all, const char *file, yaml_document_t *document,
                             failure *why) {
    const yaml_node_t *root = yaml_document_get_root_node(document);
    if (!root) return ST_OK; /* an empty file */
    walk it = {all, file, document, why};
    if (root->type == YAML_SCALAR_NODE && is_null(root)) return ST_OK;
    if (root->type != YAML_MAPPING_NODE) return bad(&it, root, "config", "is not a mapping");
    return walk_mapping(&it, root, "", 0);
}

static outcome parse(settings *all, const char *file, yaml_parser_t *parser, failure *why) {
    yaml_document_t document;
    if (!yaml_parser_load(parser, &document)) return syntax_error(file, parser, why);
    outcome result = walk_document(all, file, &document, why);
    bool last = yaml_document_get_root_node(&document) == NULL;
    yaml_document_delete(&document);
    if (result != ST_OK || last) return result;

    if (!yaml_parser_load(parser, &document)) return syntax_error(file, parser, why);
    last = yaml_document_get_root_node(&document) == NULL;
    yaml_document_delete(&document);
    if (!last) return fail(why, ST_INVALID, "config", "holds more than one document [%s]", file);
    return ST_OK;
}

outcome settings_from_yaml(settings *all, const char *file, failure *why) {
    FILE *stream = fopen(file, "re");
    if (!stream) return fail(why, ST_INVALID, "config", "%s: %s", file, strerror(errno));
    outcome result = ST_NO_MEMORY;
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser)) {
        yaml_parser_set_input_file(&parser, stream);
        result = parse(all, file, &parser, why);
        yaml_parser_delete(&parser);
    } else {
        (void)fail(why, ST_NO_MEMORY, "config", "out of memory");
    }
    (void)fclose(stream);
    return result;
}
