/*
 * config_source: where settings come from. The YAML file and the environment both become lists of
 * (path, text, origin), which config.c applies in order. Behind config.c. Start-up only.
 */
#ifndef INGEST_SERVER_CONFIG_SOURCE_H
#define INGEST_SERVER_CONFIG_SOURCE_H

#include <stddef.h>

#include "storage/status.h"

typedef struct setting {
    char *path;   /* "limits.threads", "routes[0].name", "kafka.properties.sasl.password" */
    char *value;  /* NULL: YAML's null, which leaves the default */
    char *origin; /* for messages: "ingest.yaml:12", "INGEST_LIMITS_THREADS", "--listen" */
} setting;

/* Zero-initialise. */
typedef struct settings {
    setting *items;
    size_t count;
    size_t capacity;
} settings;

/* Copies all three. */
MUST_CHECK outcome settings_add(settings *all, const char *path, const char *value,
                                const char *origin, failure *why);
void settings_free(settings *all);

/*
 * Nested mappings become dotted paths, list items get [N]. ST_INVALID, with the file and line, for
 * bad YAML, for a key given twice (dotted or nested) and for a second document.
 */
MUST_CHECK outcome settings_from_yaml(settings *all, const char *file, failure *why);

/*
 * Takes the variables that begin with INGEST_. A name stands for the key whose path, in capitals
 * and with '_' for '.', follows; after INGEST_KAFKA_PROPERTIES_ comes a property of librdkafka
 * (SASL_PASSWORD: sasl.password). Left alone are INGEST_TOOLS and INGEST_TEST_*, which belong to
 * our scripts, and what Kubernetes sets for services whose names begin with "ingest"
 * (..._SERVICE_HOST, ..._SERVICE_PORT..., ..._PORT, ..._PORT_50051_TCP...). ST_INVALID for others.
 */
MUST_CHECK outcome settings_from_environment(settings *all, char **environment, failure *why);

#endif
