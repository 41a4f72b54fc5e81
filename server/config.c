/*
 * config: flags, file and environment become lists of settings; they are applied over the defaults
 * in rising order of precedence, then checked as a whole. Keys and their bounds: config_table.c.
 */
#include "server/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config_rules.h"
#include "server/config_source.h"
#include "server/config_table.h"

#ifndef INGEST_VERSION
#define INGEST_VERSION "unknown"
#endif

#define PROPERTIES "kafka.properties."

/* ---- defaults -------------------------------------------------------------------------- */

static const char *const DEFAULT_ROUTES[] = {"transactions", "informative"};

static void add_route(config *all, const char *name, route_format format) {
    route_config *route = &all->routes[all->route_count++];
    *route = (route_config){0};
    key_set_presets(ROUTE_KEYS, ROUTE_KEY_COUNT, route);
    (void)snprintf(route->name, sizeof route->name, "%s", name);
    route->format = format;
}

static const struct {
    const char *path, *value;
} TRIAL_PRESETS[] = {
    {"storage.backlog_budget", "1GiB"},
    {"storage.dead_budget", "64MiB"},
    {"storage.reserve_free", "64MiB"},
    {"storage.ballast", "0"},
};

static outcome set_defaults(config *all, failure *why) {
    key_set_presets(CONFIG_KEYS, CONFIG_KEY_COUNT, all);
    for (size_t i = 0; i < sizeof DEFAULT_ROUTES / sizeof *DEFAULT_ROUTES; i++)
        add_route(all, DEFAULT_ROUTES[i], all->trial ? FORMAT_JSON : FORMAT_PROTOBUF);
    if (!all->trial) return ST_OK;
    for (size_t i = 0; i < sizeof TRIAL_PRESETS / sizeof *TRIAL_PRESETS; i++) {
        const config_key *key = key_find(CONFIG_KEYS, CONFIG_KEY_COUNT, TRIAL_PRESETS[i].path);
        outcome result = key_set(key, all, TRIAL_PRESETS[i].value, why);
        if (result != ST_OK) return result;
    }
    return ST_OK;
}

/* ---- flags ----------------------------------------------------------------------------- */

typedef struct command_line {
    const char *config_file;
    const char *trial_address_file;
    bool trial, check, version, help;
    settings settings; /* of flags that stand for a key */
} command_line;

static const struct flag {
    const char *name;
    const char *argument; /* NULL: takes none */
    const char *path;     /* the key it sets; NULL: see take_flag */
    const char *doc;
} FLAGS[] = {
    {"--config", "FILE", NULL, "read this YAML file"},
    {"--listen", "ADDRESS", "listen.address", "where gRPC is served"},
    {"--insecure", NULL, "listen.insecure", "allow plaintext on an address that other hosts reach"},
    {"--data-dir", "DIR", "data_dir", "folder of the event store"},
    {"--kafka", "BROKERS", "kafka.brokers", "host:port,host:port"},
    {"--http", "ADDRESS", "http.address", "where metrics are served"},
    {"--log-level", "LEVEL", "log.level", "debug, info, warning or error"},
    {"--trial", NULL, NULL, "run with a Kafka inside the process and throwaway data"},
    {"--trial-address-file", "FILE", NULL, "with --trial: write the addresses there"},
    {"--check-config", NULL, NULL, "print the configuration in force and exit"},
    {"--version", NULL, NULL, "print the version and exit"},
    {"--help", NULL, NULL, "print this and exit"},
};
#define FLAG_COUNT (sizeof FLAGS / sizeof *FLAGS)

/* The flag that `argument` names, alone or before '='; NULL when there is none. */
static const struct flag *find_flag(const char *argument) {
    size_t len = strcspn(argument, "=");
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (strlen(FLAGS[i].name) == len && strncmp(FLAGS[i].name, argument, len) == 0)
            return &FLAGS[i];
    return NULL;
}

static outcome take_flag(command_line *out, const struct flag *flag, const char *value,
                         failure *why) {
    if (flag->path)
        return settings_add(&out->settings, flag->path, value ? value : "true", flag->name, why);
    const char *name = flag->name + 2;
    if (strcmp(name, "config") == 0) out->config_file = value;
    if (strcmp(name, "trial-address-file") == 0) out->trial_address_file = value;
    if (strcmp(name, "trial") == 0) out->trial = true;
    if (strcmp(name, "check-config") == 0) out->check = true;
    if (strcmp(name, "version") == 0) out->version = true;
    if (strcmp(name, "help") == 0) out->help = true;
    return ST_OK;
}

static outcome parse_flags(command_line *out, int argc, char **argv, failure *why) {
    for (int i = 1; i < argc; i++) {
        const struct flag *flag = find_flag(argv[i]);
        if (!flag) return fail(why, ST_INVALID, argv[i], "unknown flag; see --help");
        const char *value = strchr(argv[i], '=');
        if (value) value++;
        if (value && !flag->argument)
            return fail(why, ST_INVALID, flag->name, "takes no value; see --help");
        if (!value && flag->argument) {
            if (i + 1 == argc)
                return fail(why, ST_INVALID, flag->name, "needs %s; see --help", flag->argument);
            value = argv[++i];
        }
        outcome result = take_flag(out, flag, value, why);
        if (result != ST_OK) return result;
    }
    return ST_OK;
}

static void print_help(void) {
    printf("ingestd %s: takes events over gRPC, keeps them on disk, carries them to Kafka.\n\n"
           "Flags (--flag VALUE or --flag=VALUE):\n",
           INGEST_VERSION);
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        int used = printf("  %s %s", FLAGS[i].name, FLAGS[i].argument ? FLAGS[i].argument : "");
        printf("%*s%s\n", used < 32 ? 32 - used : 1, "", FLAGS[i].doc);
    }
    printf(
        "\nKeys of the file; in the environment INGEST_ and the path in capitals with '_' for "
        "'.'\n(limits.threads: INGEST_LIMITS_THREADS). Flags win over the environment, that over "
        "the file.\n");
    for (size_t i = 0; i < CONFIG_KEY_COUNT + ROUTE_KEY_COUNT; i++) {
        bool of_route = i >= CONFIG_KEY_COUNT;
        const config_key *key = of_route ? &ROUTE_KEYS[i - CONFIG_KEY_COUNT] : &CONFIG_KEYS[i];
        printf("  %s%s  (", of_route ? "routes[]." : "", key->path);
        key_print_range(key, stdout);
        printf(")\n      %s\n", key->doc);
    }
    printf("  kafka.properties.NAME  (INGEST_KAFKA_PROPERTIES_NAME)\n"
           "      handed to librdkafka, but for those that the promise needs\n");
}

/* ---- kafka.properties ------------------------------------------------------------------ */

static outcome set_property(config *all, const char *name, const char *value, failure *why) {
    outcome result = config_check_property(name, value, why);
    if (result != ST_OK) return result;
    char *copy = strdup(value);
    if (!copy) return fail(why, ST_NO_MEMORY, "", "out of memory");
    for (size_t i = 0; i < all->kafka.property_count; i++) {
        property *it = &all->kafka.properties[i];
        if (strcmp(it->name, name) != 0) continue;
        free(it->value);
        it->value = copy;
        return ST_OK;
    }
    char *name_copy = strdup(name);
    size_t count = all->kafka.property_count;
    property *grown = realloc(all->kafka.properties, (count + 1) * sizeof *grown);
    if (grown) all->kafka.properties = grown;
    if (!grown || !name_copy) {
        free(copy);
        free(name_copy);
        return fail(why, ST_NO_MEMORY, "", "out of memory");
    }
    grown[count] = (property){name_copy, copy};
    all->kafka.property_count++;
    return ST_OK;
}

/* ---- applying settings ----------------------------------------------------------------- */

/* Reads "routes[N].KEY"; false when `path` is not of that form. */
static bool split_route_path(const char *path, size_t *index, const char **key) {
    static const char LIST[] = "routes[";
    if (strncmp(path, LIST, sizeof LIST - 1) != 0) return false;
    char *end;
    *index = strtoul(path + sizeof LIST - 1, &end, 10);
    if (end == path + sizeof LIST - 1 || strncmp(end, "].", 2) != 0) return false;
    *key = end + 2;
    return true;
}

static outcome set_route_key(config *all, size_t index, const char *name, const char *value,
                             failure *why) {
    const config_key *key = key_find(ROUTE_KEYS, ROUTE_KEY_COUNT, name);
    if (!key)
        return fail(why, ST_INVALID, "", "unknown key; the nearest known one is %s",
                    key_nearest(ROUTE_KEYS, ROUTE_KEY_COUNT, name)->path);
    if (index >= STORE_ROUTES_MAX)
        return fail(why, ST_INVALID, "", "more than %d routes", STORE_ROUTES_MAX);
    while (all->route_count <= index)
        add_route(all, "", FORMAT_PROTOBUF);
    return value ? key_set(key, &all->routes[index], value, why) : ST_OK;
}

/* A section without content, as in "limits:" alone. */
static bool is_section(const char *path) {
    size_t len = strlen(path);
    for (size_t i = 0; i < CONFIG_KEY_COUNT; i++)
        if (strncmp(CONFIG_KEYS[i].path, path, len) == 0 && CONFIG_KEYS[i].path[len] == '.')
            return true;
    return strcmp(path, "kafka.properties") == 0;
}

static outcome apply_one(config *all, const setting *it, failure *why) {
    size_t index;
    const char *name;
    if (split_route_path(it->path, &index, &name))
        return set_route_key(all, index, name, it->value, why);
    if (strncmp(it->path, PROPERTIES, strlen(PROPERTIES)) == 0)
        return it->value ? set_property(all, it->path + strlen(PROPERTIES), it->value, why) : ST_OK;
    if (strcmp(it->path, "routes") == 0 && !it->value) return ST_OK;
    if (strcmp(it->path, "routes") == 0 || strncmp(it->path, "routes[", 7) == 0)
        return fail(why, ST_INVALID, "", "is not a list of one mapping or more");
    const config_key *key = key_find(CONFIG_KEYS, CONFIG_KEY_COUNT, it->path);
    if (key) return it->value ? key_set(key, all, it->value, why) : ST_OK;
    if (is_section(it->path))
        return it->value ? fail(why, ST_INVALID, "", "is not a mapping") : ST_OK;
    return fail(why, ST_INVALID, "", "unknown key; the nearest known one is %s",
                key_nearest(CONFIG_KEYS, CONFIG_KEY_COUNT, it->path)->path);
}

/* Names the key and, at the end of the reason, where the value came from. */
static outcome blame(const setting *it, failure *why) {
    if (!why) return ST_INVALID;
    (void)snprintf(why->field, sizeof why->field, "%s", it->path);
    size_t len = strlen(why->reason);
    (void)snprintf(why->reason + len, sizeof why->reason - len, " [%s]", it->origin);
    return why->code;
}

static outcome apply(config *all, const settings *list, failure *why) {
    for (size_t i = 0; i < list->count; i++) {
        /* A list of routes takes the place of the default ones. */
        if (strncmp(list->items[i].path, "routes[", 7) == 0) {
            all->route_count = 0;
            break;
        }
    }
    for (size_t i = 0; i < list->count; i++)
        if (apply_one(all, &list->items[i], why) != ST_OK) return blame(&list->items[i], why);
    return ST_OK;
}

/* ---- public ---------------------------------------------------------------------------- */

static outcome load(config *out, const command_line *line, char **environment, failure *why) {
    settings file = {0}, variables = {0};
    out->trial = line->trial;
    outcome result = set_defaults(out, why);
    if (result == ST_OK && line->trial_address_file) {
        size_t room = sizeof out->trial_address_file;
        if ((size_t)snprintf(out->trial_address_file, room, "%s", line->trial_address_file) >= room)
            result = fail(why, ST_INVALID, "--trial-address-file", "too long");
    }
    if (result == ST_OK && line->config_file)
        result = settings_from_yaml(&file, line->config_file, why);
    if (result == ST_OK) result = settings_from_environment(&variables, environment, why);
    if (result == ST_OK) result = apply(out, &file, why);
    if (result == ST_OK) result = apply(out, &variables, why);
    if (result == ST_OK) result = apply(out, &line->settings, why);
    if (result == ST_OK) result = config_check(out, why);
    settings_free(&file);
    settings_free(&variables);
    return result;
}

outcome config_load(config *out, int argc, char **argv, char **environment, config_action *action,
                    failure *why) {
    *out = (config){0};
    command_line line = {0};
    outcome result = parse_flags(&line, argc, argv, why);
    if (result == ST_OK && (line.help || line.version)) {
        if (line.help)
            print_help();
        else
            printf("ingestd %s\n", INGEST_VERSION);
        *action = CONFIG_EXIT;
    } else if (result == ST_OK) {
        result = load(out, &line, environment, why);
        *action = line.check ? CONFIG_CHECK : CONFIG_RUN;
    }
    settings_free(&line.settings);
    if (result != ST_OK) config_free(out);
    return result;
}

static void print_properties(const config *all) {
    if (all->kafka.property_count == 0) return;
    printf("  properties:\n");
    for (size_t i = 0; i < all->kafka.property_count; i++) {
        const property *it = &all->kafka.properties[i];
        printf("    ");
        yaml_print_string(it->name, stdout);
        printf(": ");
        yaml_print_string(config_is_secret(it->name) ? CONFIG_SECRET_MARK : it->value, stdout);
        printf("\n");
    }
}

static void print_routes(const config *all) {
    printf("routes:\n");
    for (size_t i = 0; i < all->route_count; i++)
        for (size_t k = 0; k < ROUTE_KEY_COUNT; k++) {
            printf("  %c %s: ", k == 0 ? '-' : ' ', ROUTE_KEYS[k].path);
            key_print(&ROUTE_KEYS[k], &all->routes[i], stdout);
            printf("\n");
        }
}

void config_print(const config *all) {
    char section[64] = "";
    for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
        const config_key *key = &CONFIG_KEYS[i];
        const char *dot = strchr(key->path, '.');
        size_t len = dot ? (size_t)(dot - key->path) : 0;
        if (strncmp(section, key->path, len) != 0 || section[len] != '\0') {
            if (strcmp(section, "kafka") == 0) print_properties(all);
            (void)snprintf(section, sizeof section, "%.*s", (int)len, key->path);
            if (len) printf("%s:\n", section);
        }
        printf("%s%s: ", len ? "  " : "", dot ? dot + 1 : key->path);
        key_print(key, all, stdout);
        printf("\n");
    }
    print_routes(all);
    if (all->trial) printf("# --trial: Kafka inside the process, throwaway data\n");
}

void config_free(config *all) {
    for (size_t i = 0; i < all->kafka.property_count; i++) {
        free(all->kafka.properties[i].name);
        free(all->kafka.properties[i].value);
    }
    free(all->kafka.properties);
    *all = (config){0};
}
