#include "server/config_rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/address.h"

/* ---- kafka.properties ------------------------------------------------------------------ */

/* Properties that decide whether an event is lost, doubled or out of order. */
static const struct {
    const char *name;
    const char *why;
} REFUSED[] = {
    {"bootstrap.servers", "set kafka.brokers instead"},
    {"metadata.broker.list", "set kafka.brokers instead"},
    {"transactional.id", "it is made from the store's id and the route, so that a rival is fenced"},
    {"enable.idempotence", "always on: without it a retry doubles an event"},
    {"enable.gapless.guarantee", "the publisher itself sees to gaps"},
    {"acks", "always all: less would lose acknowledged events"},
    {"request.required.acks", "always all: less would lose acknowledged events"},
    {"partitioner", "always murmur2_random: another one breaks the order of a key"},
    {"partitioner_cb", "always murmur2_random: another one breaks the order of a key"},
    {"queuing.strategy", "always fifo: another one breaks the order of a key"},
    {"isolation.level", "the publisher reads its position both ways"},
    {"auto.offset.reset", "a position that is gone must be noticed, not passed over"},
    {"enable.partition.eof", "the publisher needs it to find its position"},
    {"delivery.timeout.ms", "the publisher's time-outs fit each other; this one decides retries"},
    {"message.timeout.ms", "the publisher's time-outs fit each other; this one decides retries"},
    {"transaction.timeout.ms", "the publisher's time-outs fit each other; this one ends commits"},
    {"retry.backoff.ms", "the publisher tells by it whether a commit is in doubt"},
    {"test.mock.num.brokers", "events would go to a mock; try --trial"},
};

outcome config_check_property(const char *name, const char *value, failure *why) {
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++)
        if (strcmp(REFUSED[i].name, name) == 0)
            return fail(why, ST_INVALID, "", "cannot be set: %s", REFUSED[i].why);
    long number = strtol(value, NULL, 10);
    bool retries = strcmp(name, "retries") == 0 || strcmp(name, "message.send.max.retries") == 0;
    bool in_flight = strcmp(name, "max.in.flight") == 0 ||
                     strcmp(name, "max.in.flight.requests.per.connection") == 0;
    if (retries && number < 1)
        return fail(why, ST_INVALID, "", "%s is below 1: idempotence needs retries", value);
    if (in_flight && (number < 1 || number > 5))
        return fail(why, ST_INVALID, "", "%s is not 1 to 5, the most with idempotence", value);
    if (strcmp(value, CONFIG_SECRET_MARK) == 0)
        return fail(why, ST_INVALID, "", "%s stands for a secret that was left out of a print-out",
                    CONFIG_SECRET_MARK);
    return ST_OK;
}

bool config_is_secret(const char *name) {
    return strstr(name, "password") || strstr(name, "secret") || strncmp(name, "ssl.key", 7) == 0 ||
           strncmp(name, "ssl_key", 7) == 0 ||
           (strncmp(name, "sasl.", 5) == 0 && strncmp(name, "sasl.mechanism", 14) != 0);
}

/* ---- checking the whole ---------------------------------------------------------------- */

static outcome check_addresses(const config *all, failure *why) {
    static const char FORM[] = "\"%s\" is not host:port, [v6]:port%s";
    net_address listen, http;
    if (!address_parse(all->listen.address, &listen))
        return fail(why, ST_INVALID, "listen.address", FORM, all->listen.address, " or unix:/path");
    if (!address_is_local(&listen) && !all->listen.insecure)
        return fail(why, ST_INVALID, "listen.address",
                    "%s can be reached from other hosts, in plaintext: if that is wanted, set "
                    "listen.insecure: true (--insecure, INGEST_LISTEN_INSECURE)",
                    all->listen.address);
    if (all->http.address[0] && (!address_parse(all->http.address, &http) || http.is_unix))
        return fail(why, ST_INVALID, "http.address", FORM, all->http.address, "");
    return ST_OK;
}

static outcome check_required(const config *all, failure *why) {
    if (all->trial && all->kafka.brokers[0])
        return fail(why, ST_INVALID, "kafka.brokers",
                    "--trial brings a Kafka of its own: leave out --kafka (kafka.brokers, "
                    "INGEST_KAFKA_BROKERS) or --trial");
    if (all->trial) return ST_OK;
    if (all->trial_address_file[0])
        return fail(why, ST_INVALID, "--trial-address-file", "only works with --trial");
    if (!all->data_dir[0])
        return fail(why, ST_INVALID, "data_dir",
                    "required: the folder of the event store (--data-dir DIR, key data_dir, "
                    "INGEST_DATA_DIR); to try without Kafka: --trial");
    if (!all->kafka.brokers[0])
        return fail(why, ST_INVALID, "kafka.brokers",
                    "required: the bootstrap servers (--kafka BROKERS, key kafka.brokers, "
                    "INGEST_KAFKA_BROKERS); to try without Kafka: --trial");
    return ST_OK;
}

static outcome check_limits(const config *all, failure *why) {
    if (all->limits.max_message_bytes < all->limits.max_event_bytes)
        return fail(why, ST_INVALID, "limits.max_message_bytes",
                    "is below limits.max_event_bytes: such an event could never be sent");
    if (all->storage.queue_max_bytes < all->limits.max_message_bytes)
        return fail(why, ST_INVALID, "storage.queue_max_bytes",
                    "is below limits.max_message_bytes: such a message could never be stored");
    return ST_OK;
}

static bool made_of(const char *text, const char *characters) {
    return *text && text[strspn(text, characters)] == '\0';
}

/* Kafka's rules; the length is bounded by the field. */
static bool is_topic(const char *name) {
    return made_of(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static outcome check_topic(const char *field, const char *topic, failure *why) {
    if (is_topic(topic)) return ST_OK;
    return fail(why, ST_INVALID, field,
                "\"%s\" is not a topic name: 1 to 249 of [a-zA-Z0-9._-], not . or ..", topic);
}

static outcome check_route(const config *all, size_t index, failure *why) {
    const route_config *route = &all->routes[index];
    char field[64];
#define FIELD(key) (snprintf(field, sizeof field, "routes[%zu]." key, index), field)
    if (!made_of(route->name, "abcdefghijklmnopqrstuvwxyz0123456789._-"))
        return fail(why, ST_INVALID, FIELD("name"), "\"%s\" is not a name: 1 to %zu of [a-z0-9._-]",
                    route->name, sizeof route->name - 1);
    for (size_t i = 0; i < index; i++)
        if (strcmp(all->routes[i].name, route->name) == 0)
            return fail(why, ST_INVALID, FIELD("name"), "\"%s\" is the name of routes[%zu] too",
                        route->name, i);
    outcome result = check_topic(FIELD("topic"), route->topic, why);
    if (result != ST_OK) return result;
    if (strcmp(route->topic, all->kafka.positions_topic) == 0)
        return fail(why, ST_INVALID, FIELD("topic"), "%s is kafka.positions_topic", route->topic);
    if (route->layout == LAYOUT_SPLIT && route->delivery == DELIVERY_AT_LEAST_ONCE)
        return fail(why, ST_INVALID, FIELD("delivery"),
                    "at_least_once cannot keep the records of a split event together: use "
                    "exactly_once, or layout: whole");
    if (route->max_record_bytes > route->transaction_max_bytes)
        return fail(why, ST_INVALID, FIELD("max_record_bytes"),
                    "is above transaction_max_bytes: such a record fits no transaction");
#undef FIELD
    return ST_OK;
}

outcome config_check(config *all, failure *why) {
    outcome result = check_required(all, why);
    if (result == ST_OK) result = check_addresses(all, why);
    if (result == ST_OK) result = check_limits(all, why);
    if (result == ST_OK)
        result = check_topic("kafka.positions_topic", all->kafka.positions_topic, why);
    for (size_t i = 0; i < all->route_count && result == ST_OK; i++) {
        route_config *route = &all->routes[i];
        if (!route->topic[0])
            (void)snprintf(route->topic, sizeof route->topic, "ingest.%s", route->name);
        result = check_route(all, i, why);
    }
    return result;
}
