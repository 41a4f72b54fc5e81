#include "server/config_source.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config_table.h"

#define PREFIX "INGEST_"
#define PROPERTIES_PREFIX "INGEST_KAFKA_PROPERTIES_"
#define VARIABLE_MAX_CHARS 192

outcome settings_add(settings *all, const char *path, const char *value, const char *origin,
                     failure *why) {
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 32;
        setting *items = realloc(all->items, capacity * sizeof *items);
        if (!items) return fail(why, ST_NO_MEMORY, path, "out of memory");
        all->items = items;
        all->capacity = capacity;
    }
    setting *it = &all->items[all->count++];
    *it = (setting){strdup(path), value ? strdup(value) : NULL, strdup(origin)};
    if (!it->path || (value && !it->value) || !it->origin)
        return fail(why, ST_NO_MEMORY, path, "out of memory");
    return ST_OK;
}

void settings_free(settings *all) {
    for (size_t i = 0; i < all->count; i++) {
        free(all->items[i].path);
        free(all->items[i].value);
        free(all->items[i].origin);
    }
    free(all->items);
    *all = (settings){0};
}

/* ---- the environment ------------------------------------------------------------------- */

/* Whether `text` begins with `word` and then ends or goes on with '_'. */
static bool begins_with_word(const char *text, const char *word) {
    size_t len = strlen(word);
    return strncmp(text, word, len) == 0 && (text[len] == '\0' || text[len] == '_');
}

/* What Kubernetes injects for each service of the namespace, with its name in capitals in front. */
static bool is_service_link(const char *name) {
    for (const char *at = strchr(name, '_'); at; at = strchr(at, '_')) {
        at++;
        if (strcmp(at, "PORT") == 0 || strcmp(at, "SERVICE_HOST") == 0) return true;
        if (begins_with_word(at, "SERVICE_PORT")) return true;
        if (strncmp(at, "PORT_", 5) != 0) continue;
        const char *protocol = at + 5 + strspn(at + 5, "0123456789");
        if (protocol > at + 5 &&
            (begins_with_word(protocol, "_TCP") || begins_with_word(protocol, "_UDP") ||
             begins_with_word(protocol, "_SCTP")))
            return true;
    }
    return false;
}

static bool is_for_scripts(const char *name) {
    return strcmp(name, "INGEST_TOOLS") == 0 || strncmp(name, "INGEST_TEST_", 12) == 0;
}

/* "limits.threads" -> "INGEST_LIMITS_THREADS" */
static void variable_of_path(const char *path, char out[VARIABLE_MAX_CHARS]) {
    (void)snprintf(out, VARIABLE_MAX_CHARS, PREFIX "%s", path);
    for (char *at = out; *at; at++)
        *at = *at == '.' ? '_' : (char)toupper((unsigned char)*at);
}

static const config_key *key_of_variable(const char *name) {
    char variable[VARIABLE_MAX_CHARS];
    for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
        variable_of_path(CONFIG_KEYS[i].path, variable);
        if (strcmp(variable, name) == 0) return &CONFIG_KEYS[i];
    }
    return NULL;
}

static outcome unknown_variable(const char *name, failure *why) {
    if (strncmp(name, "INGEST_ROUTES", 13) == 0)
        return fail(why, ST_INVALID, name, "routes can be set in the file only (--config)");
    char path[VARIABLE_MAX_CHARS], nearest[VARIABLE_MAX_CHARS];
    (void)snprintf(path, sizeof path, "%s", name + strlen(PREFIX));
    for (char *at = path; *at; at++)
        *at = *at == '_' ? '.' : (char)tolower((unsigned char)*at);
    variable_of_path(key_nearest(CONFIG_KEYS, CONFIG_KEY_COUNT, path)->path, nearest);
    return fail(why, ST_INVALID, name, "unknown variable; the nearest known one is %s", nearest);
}

static outcome add_variable(settings *all, const char *name, const char *value, failure *why) {
    const config_key *key = key_of_variable(name);
    if (key) return settings_add(all, key->path, value, name, why);
    if (strncmp(name, PROPERTIES_PREFIX, strlen(PROPERTIES_PREFIX)) == 0) {
        char path[VARIABLE_MAX_CHARS];
        (void)snprintf(path, sizeof path, "kafka.properties.%s", name + strlen(PROPERTIES_PREFIX));
        for (char *at = path; *at; at++)
            *at = *at == '_' ? '.' : (char)tolower((unsigned char)*at);
        return settings_add(all, path, value, name, why);
    }
    if (is_for_scripts(name) || is_service_link(name)) return ST_OK;
    return unknown_variable(name, why);
}

outcome settings_from_environment(settings *all, char **environment, failure *why) {
    outcome result = ST_OK;
    for (char **at = environment; at && *at && result == ST_OK; at++) {
        const char *equals = strchr(*at, '=');
        if (!equals || strncmp(*at, PREFIX, strlen(PREFIX)) != 0) continue;
        char *name = strndup(*at, (size_t)(equals - *at));
        if (!name) return fail(why, ST_NO_MEMORY, "", "out of memory");
        result = add_variable(all, name, equals + 1, why);
        free(name);
    }
    return result;
}
