/*
 * config_table: every key that can be set, and the one way to read, bound and print a value of
 * each type. Behind config.c; nobody else needs it. Pure; any thread.
 */
#ifndef INGEST_SERVER_CONFIG_TABLE_H
#define INGEST_SERVER_CONFIG_TABLE_H

#include <stdio.h>

#include "server/config.h"

typedef enum key_type {
    KEY_STRING,   /* char[max] */
    KEY_BOOL,     /* bool: true | false */
    KEY_INTEGER,  /* uint64_t */
    KEY_SIZE,     /* uint64_t bytes: 65536, 64KiB, 1MiB, 20GiB */
    KEY_DURATION, /* uint64_t milliseconds: 500ms, 20s, 5m, 24h */
    KEY_ENUM,     /* an enum whose values count `choices` from 0 */
} key_type;

typedef struct config_key {
    const char *path; /* dotted; inside `routes`, the name alone */
    key_type type;
    size_t offset;              /* in config, or in route_config */
    const char *preset;         /* the default, as one would write it */
    uint64_t min, max;          /* numbers: inclusive; KEY_STRING: max is the array's size */
    const char *const *choices; /* KEY_ENUM: ends with NULL */
    const char *doc;
} config_key;

extern const config_key CONFIG_KEYS[]; /* in config; a section's keys stand together */
extern const size_t CONFIG_KEY_COUNT;
extern const config_key ROUTE_KEYS[]; /* in route_config */
extern const size_t ROUTE_KEY_COUNT;

/* NULL when there is none. */
const config_key *key_find(const config_key *keys, size_t count, const char *path);
/* The key whose path is most like `path`. */
const config_key *key_nearest(const config_key *keys, size_t count, const char *path);

/* Reads `text` into the key's place in `base` (a config or a route_config). ST_INVALID fills the
 * reason only, with value, bounds and unit. */
MUST_CHECK outcome key_set(const config_key *key, void *base, const char *text, failure *why);
void key_set_presets(const config_key *keys, size_t count, void *base);

/* The value as YAML that key_set reads back. */
void key_print(const config_key *key, const void *base, FILE *to);
/* Default and bounds for --help: "768KiB; 1KiB to 16MiB". */
void key_print_range(const config_key *key, FILE *to);
/* A double-quoted YAML scalar. */
void yaml_print_string(const char *text, FILE *to);

#endif
