/*
 * config: everything that can be set, from a YAML file, the environment (INGEST_ and the path in
 * capitals, dots as '_') and flags, in rising order of precedence. One table in config_table.c
 * holds every key with its type, default, bounds, unit and meaning (ingestd --help prints it); an
 * unknown key or a value out of bounds stops the start. Immutable after loading: any thread.
 *
 * Sizes are written 65536, 64KiB, 1MiB, 20GiB; durations 500ms, 20s, 5m, 24h.
 *
 *   config.c         flags; applies the settings in order; prints
 *   config_source.c  settings from the environment       config_yaml.c  from the file
 *   config_table.c   the keys, and values of each type   config_rules.c what goes together
 */
#ifndef INGEST_SERVER_CONFIG_H
#define INGEST_SERVER_CONFIG_H

#include "server/log.h"
#include "storage/event_store.h"
#include "storage/status.h"

typedef enum route_layout { LAYOUT_WHOLE, LAYOUT_SPLIT } route_layout;
typedef enum route_format { FORMAT_PROTOBUF, FORMAT_JSON } route_format;
typedef enum route_delivery { DELIVERY_EXACTLY_ONCE, DELIVERY_AT_LEAST_ONCE } route_delivery;

/* routes: a list; each item has these keys. Default: transactions and informative. */
typedef struct route_config {
    char name[64];
    char topic[250];         /* default: "ingest." and the name */
    route_layout layout;     /* whole | split */
    route_format format;     /* protobuf | json */
    route_delivery delivery; /* exactly_once | at_least_once (not with split) */
    uint64_t linger_ms;      /* key linger: how long an open transaction waits for more events */
    uint64_t transaction_max_events; /* a transaction closes at this many */
    uint64_t transaction_max_bytes;
    uint64_t max_record_bytes; /* a record with key and headers must fit; the topic's limit */
} route_config;

typedef struct property {
    char *name;
    char *value;
} property;

typedef struct config {
    struct {
        char address[256]; /* host:port, [v6]:port or unix:/path; default 127.0.0.1:50051 */
        bool insecure;     /* plaintext on other than loopback or unix */
    } listen;
    struct {
        char address[256]; /* default 127.0.0.1:9464; empty: off */
    } http;
    char data_dir[1024];       /* required, but for --trial */
    char catalogue_file[1024]; /* empty: the built-in */
    struct {
        log_level level;   /* debug | info | warning | error */
        log_format format; /* logfmt | json */
    } log;
    struct {
        uint64_t threads;                /* rpc threads; 0: one a core but one, at most 8 */
        uint64_t max_event_bytes;        /* 768 KiB; 1 KiB .. 16 MiB */
        uint64_t max_message_bytes;      /* a gRPC message; 4 MiB */
        uint64_t max_batch_events;       /* of PublishBatch; 10,000 */
        uint64_t max_operations;         /* of a transaction; 1,000 */
        uint64_t max_concurrent_streams; /* per connection; 1,000 */
        uint64_t max_calls;              /* in flight over all connections; 20,000 */
        uint64_t stream_window;          /* events of one PublishStream in flight; 4,096 */
        uint64_t memory_bytes;           /* the C core's resource quota; 512 MiB */
    } limits;
    struct {
        uint64_t backlog_budget_bytes; /* key storage.backlog_budget; 20 GiB */
        uint64_t dead_budget_bytes;    /* key storage.dead_budget; 1 GiB */
        uint64_t reserve_free_bytes;   /* key storage.reserve_free; 1 GiB */
        uint64_t ballast_bytes;        /* key storage.ballast; 256 MiB */
        uint64_t ids_window_ms;        /* key storage.ids_window; 24 h */
        uint64_t ids_budget_bytes;     /* key storage.ids_budget; 1 GiB */
        uint64_t queue_max_requests;   /* 65,536 */
        uint64_t queue_max_bytes;      /* 256 MiB */
        uint64_t memtable_bytes;       /* key storage.memtable; 32 MiB */
        char accept_loss[16]; /* name of the one damage that a start may repair; empty: none */
    } storage;                /* see store_options */
    struct {
        char brokers[2048];
        char positions_topic[250];   /* ingest.positions */
        bool create_topics;          /* missing topics are created; default true */
        uint64_t topic_partitions;   /* of topics that we create; default 12 */
        uint64_t replication_factor; /* of topics that we create; 0: the broker's default */
        property *properties;        /* kafka.properties: passed to librdkafka */
        size_t property_count;
    } kafka;
    uint64_t shutdown_grace_ms; /* key shutdown.grace: drain and flush within it; 20 s */
    route_config routes[STORE_ROUTES_MAX];
    size_t route_count;
    bool trial;                    /* --trial: mock Kafka inside, JSON, throwaway data */
    char trial_address_file[1024]; /* --trial-address-file */
} config;

typedef enum config_action {
    CONFIG_RUN,
    CONFIG_CHECK, /* --check-config: print the configuration in force and exit 0 */
    CONFIG_EXIT   /* --version, --help: printed already */
} config_action;

/* Reads flags, file and environment. `environment` is as environ. On failure `why` names the key,
 * flag or variable, and `out` needs no config_free. */
MUST_CHECK outcome config_load(config *out, int argc, char **argv, char **environment,
                               config_action *action, failure *why);
/* Prints the configuration in force as YAML; secrets of kafka.properties as "(set)". */
void config_print(const config *all);
void config_free(config *all);

#endif
