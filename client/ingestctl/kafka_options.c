/* Plain functions; one thread. */
#include "client/ingestctl/kafka_options.h"

#include <stdlib.h>
#include <string.h>

const char *kafka_brokers(const arguments *given) {
    const char *brokers = argument(given, "kafka");
    if (!brokers) brokers = getenv("INGEST_KAFKA_BROKERS");
    return brokers && *brokers ? brokers : "localhost:9092";
}

bool kafka_properties_of(const arguments *given, kafka_properties *out) {
    *out = (kafka_properties){.count = 0};
    for (size_t i = 0; i < given->option_count; i++) {
        if (strcmp(given->options[i].name, "set") != 0) continue;
        char *text = strdup(given->options[i].value);
        char *value = text ? strchr(text, '=') : NULL;
        if (!value) {
            free(text);
            return complain(given, 0, "--set: \"%s\" is not NAME=VALUE", given->options[i].value);
        }
        *value++ = '\0';
        out->texts[out->count] = text;
        out->list[2 * out->count] = text;
        out->list[2 * out->count++ + 1] = value;
    }
    return true;
}

void kafka_properties_free(kafka_properties *it) {
    for (size_t i = 0; i < it->count; i++)
        free(it->texts[i]);
}
