/* config: each test gives a file, variables and flags, and looks at the result or the complaint. */
#include "server/address.h"
#include "server/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

static config loaded;
static failure why;
static config_action action;
static char file_name[64];

static void write_file(const char *text) {
    FILE *file = fopen(file_name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* `flags` and `variables` end with NULL; a --config for `yaml` is added unless it is NULL. */
static outcome load(const char *yaml, char **flags, char **variables) {
    char *argv[32] = {"ingestd"};
    int argc = 1;
    while (*flags)
        argv[argc++] = *flags++;
    if (yaml) {
        write_file(yaml);
        argv[argc++] = "--config";
        argv[argc++] = file_name;
    }
    config_free(&loaded);
    memset(&why, 0, sizeof why);
    return config_load(&loaded, argc, argv, variables, &action, &why);
}

#define LIST(...)                                                                                  \
    (char *[]) { __VA_ARGS__, NULL }
#define NONE                                                                                       \
    (char *[]) { NULL }
#define REQUIRED LIST("--data-dir=/d", "--kafka=k:9092")

#define assert_good(call)                                                                          \
    do {                                                                                           \
        outcome got = (call);                                                                      \
        if (got != ST_OK) fail_msg("%s: %s", why.field, why.reason);                               \
    } while (0)

/* The complaint as main prints it, the file's name left out. */
static void assert_complaint(outcome result, const char *expected) {
    char text[600];
    (void)snprintf(text, sizeof text, "%s: %s", why.field, why.reason);
    char *name = strstr(text, file_name);
    if (name) memmove(name, name + strlen(file_name), strlen(name + strlen(file_name)) + 1);
    assert_int_equal(result, ST_INVALID);
    assert_int_equal(why.code, ST_INVALID);
    assert_string_equal(text, expected);
}

static void assert_yaml_complaint(const char *yaml, const char *expected) {
    assert_complaint(load(yaml, REQUIRED, NONE), expected);
}

static int begin(void **state) {
    (void)state;
    strcpy(file_name, "/tmp/test_config.XXXXXX");
    int fd = mkstemp(file_name);
    return fd < 0 ? -1 : close(fd);
}

static int end(void **state) {
    (void)state;
    config_free(&loaded);
    return unlink(file_name);
}

static void defaults(void **state) {
    (void)state;
    assert_good(load(NULL, REQUIRED, NONE));
    assert_int_equal(action, CONFIG_RUN);
    assert_string_equal(loaded.listen.address, "127.0.0.1:50051");
    assert_string_equal(loaded.http.address, "127.0.0.1:9464");
    assert_string_equal(loaded.data_dir, "/d");
    assert_string_equal(loaded.kafka.brokers, "k:9092");
    assert_string_equal(loaded.kafka.positions_topic, "ingest.positions");
    assert_true(loaded.kafka.create_topics);
    assert_int_equal(loaded.log.level, LOG_INFO);
    assert_int_equal(loaded.limits.max_event_bytes, 768 * 1024);
    assert_int_equal(loaded.storage.backlog_budget_bytes, 20LL << 30);
    assert_int_equal(loaded.storage.ids_window_ms, 86400000);
    assert_int_equal(loaded.shutdown_grace_ms, 20000);
    assert_int_equal(loaded.route_count, 2);
    const route_config *route = &loaded.routes[0];
    assert_string_equal(route->name, "transactions");
    assert_string_equal(route->topic, "ingest.transactions");
    assert_int_equal(route->layout, LAYOUT_WHOLE);
    assert_int_equal(route->format, FORMAT_PROTOBUF);
    assert_int_equal(route->delivery, DELIVERY_EXACTLY_ONCE);
    assert_int_equal(route->linger_ms, 5);
    assert_int_equal(route->transaction_max_events, 100000);
    assert_int_equal(route->transaction_max_bytes, 64 << 20);
    assert_int_equal(route->max_record_bytes, 1000000);
    assert_string_equal(loaded.routes[1].topic, "ingest.informative");
}

static void flags_win_over_variables_over_the_file(void **state) {
    (void)state;
    const char *yaml = "data_dir: /file\nkafka:\n  brokers: file:1\nlog: {level: debug}\n";
    assert_good(load(yaml, LIST("--log-level", "error"),
                     LIST("INGEST_KAFKA_BROKERS=variable:1", "INGEST_LOG_LEVEL=warning",
                          "INGEST_LIMITS_MAX_EVENT_BYTES=1MiB", "PATH=/bin", "odd")));
    assert_string_equal(loaded.data_dir, "/file");
    assert_string_equal(loaded.kafka.brokers, "variable:1");
    assert_int_equal(loaded.log.level, LOG_ERROR);
    assert_int_equal(loaded.limits.max_event_bytes, 1 << 20);
}

static void units(void **state) {
    (void)state;
    assert_good(load("limits: {max_event_bytes: 65536, max_message_bytes: 8 MiB}\n"
                     "storage.ids_window: 90m\nstorage: {reserve_free: 0}\n"
                     "shutdown: {grace: 1500ms}\n",
                     REQUIRED, NONE));
    assert_int_equal(loaded.limits.max_event_bytes, 65536);
    assert_int_equal(loaded.limits.max_message_bytes, 8 << 20);
    assert_int_equal(loaded.storage.ids_window_ms, 90 * 60000);
    assert_int_equal(loaded.storage.reserve_free_bytes, 0);
    assert_int_equal(loaded.shutdown_grace_ms, 1500);
}

static void bad_values_name_key_bounds_and_place(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *complaint;
    } CASES[] = {
        {"limits: {max_event_bytes: 99}",
         "limits.max_event_bytes: 99 is below 1KiB (bounds 1KiB to 16MiB) [:1]"},
        {"\nlimits:\n  max_event_bytes: 99999999999999999999TiB",
         "limits.max_event_bytes: 99999999999999999999TiB is above 16MiB (bounds 1KiB to 16MiB) "
         "[:3]"},
        {"limits: {max_event_bytes: 1.5MiB}",
         "limits.max_event_bytes: \"1.5MiB\" is not a size: write bytes, or 64KiB, 1MiB, 20GiB "
         "[:1]"},
        {"limits: {threads: many}", "limits.threads: \"many\" is not a whole number [:1]"},
        {"limits: {threads: -1}", "limits.threads: \"-1\" is not a whole number [:1]"},
        {"limits: {threads: 65}", "limits.threads: 65 is above 64 (bounds 0 to 64) [:1]"},
        {"shutdown: {grace: 20}", "shutdown.grace: \"20\" is not a duration: write it with its "
                                  "unit, as 500ms, 20s, 5m, 24h [:1]"},
        {"storage: {ids_window: 1ms}",
         "storage.ids_window: 1ms is below 1s (bounds 1s to 720h) [:1]"},
        {"listen: {insecure: yes}", "listen.insecure: \"yes\" is neither true nor false [:1]"},
        {"log: {level: loud}",
         "log.level: \"loud\" is not one of debug, info, warning, error [:1]"},
        {"data_dir: \"a\\nb\"", "data_dir: holds a line break or another control character [:1]"},
        {"limits: {max_message_bytes: 64KiB}",
         "limits.max_message_bytes: is below limits.max_event_bytes: such an event could never be "
         "sent"},
        {"storage: {queue_max_bytes: 1MiB}",
         "storage.queue_max_bytes: is below limits.max_message_bytes: such a message could never "
         "be stored"},
        {"http: {address: 'unix:/x'}", "http.address: \"unix:/x\" is not host:port, [v6]:port"},
        {"listen: {address: localhost}",
         "listen.address: \"localhost\" is not host:port, [v6]:port or unix:/path"},
        {"kafka: {positions_topic: 'a b'}",
         "kafka.positions_topic: \"a b\" is not a topic name: 1 to 249 of [a-zA-Z0-9._-], not . or "
         ".."},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_yaml_complaint(CASES[i].yaml, CASES[i].complaint);
}

static void unknown_keys_name_the_nearest(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *complaint;
    } CASES[] = {
        {"limits: {max_events_bytes: 1}",
         "limits.max_events_bytes: unknown key; the nearest known one is limits.max_event_bytes "
         "[:1]"},
        {"limit:\n  threads: 1",
         "limit.threads: unknown key; the nearest known one is limits.threads [:2]"},
        {"brokers: k", "brokers: unknown key; the nearest known one is kafka.brokers [:1]"},
        {"lisen:", "lisen: unknown key; the nearest known one is listen.address [:1]"},
        {"kafka: {brokers: [a, b]}",
         "kafka.brokers[0]: unknown key; the nearest known one is kafka.brokers [:1]"},
        {"limits: 5", "limits: is not a mapping [:1]"},
        {"routes: [{name: a, topics: b}]",
         "routes[0].topics: unknown key; the nearest known one is topic [:1]"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_yaml_complaint(CASES[i].yaml, CASES[i].complaint);
}

static void yaml_that_is_refused(void **state) {
    (void)state;
    assert_yaml_complaint("data_dir: a\ndata_dir: b", "data_dir: given twice [:2]");
    assert_yaml_complaint("limits: {threads: 1}\nlimits: {max_calls: 1}",
                          "limits: given twice [:2]");
    assert_yaml_complaint("limits: {threads: 1}\nlimits.threads: 2",
                          "limits.threads: given twice [:2]");
    assert_yaml_complaint("- a", "config: is not a mapping [:1]");
}

static void odd_yaml(void **state) {
    (void)state;
    assert_int_equal(load("data_dir: /a\n---\ndata_dir: /b\n", REQUIRED, NONE), ST_INVALID);
    assert_non_null(strstr(why.reason, "more than one document"));
    assert_int_equal(load("a: [b", REQUIRED, NONE), ST_INVALID);
    assert_non_null(strstr(why.reason, "not YAML"));
    assert_int_equal(load("kafka: &k\n  properties: *k\n", REQUIRED, NONE), ST_INVALID);
    assert_int_equal(load("? [a]\n: b\n", REQUIRED, NONE), ST_INVALID);
    assert_int_equal(load("data_dir: \"a\\0b\"\n", REQUIRED, NONE), ST_INVALID);
    assert_int_equal(load(NULL, LIST("--config", "/nowhere/x"), NONE), ST_INVALID);
    assert_non_null(strstr(why.reason, "/nowhere/x: No such file"));

    /* Empty files, sections and null values leave the defaults. */
    assert_good(load("", REQUIRED, NONE));
    assert_good(load("---\n# nothing\n", REQUIRED, NONE));
    assert_good(load("limits:\nlog: ~\nroutes: null\nkafka:\n  properties: {}\nhttp: {address: }\n",
                     REQUIRED, NONE));
    assert_string_equal(loaded.http.address, "127.0.0.1:9464");
    assert_int_equal(loaded.route_count, 2);
    assert_good(load("http: {address: ''}\n", REQUIRED, NONE));
    assert_string_equal(loaded.http.address, "");
}

static void variables(void **state) {
    (void)state;
    assert_good(load(NULL, REQUIRED,
                     LIST("INGEST_SERVICE_HOST=10.0.0.1", "INGEST_SERVICE_PORT=50051",
                          "INGEST_SERVICE_PORT_GRPC=50051", "INGEST_PORT=tcp://10.0.0.1:50051",
                          "INGEST_PORT_50051_TCP=x", "INGEST_PORT_50051_TCP_ADDR=x",
                          "INGEST_HEADLESS_SERVICE_HOST=None", "INGEST_HEADLESS_PORT_1_UDP=x",
                          "INGEST_TOOLS=/t", "INGEST_TEST_ANY=1",
                          "INGEST_KAFKA_PROPERTIES_SASL_PASSWORD=p=q")));
    assert_int_equal(loaded.kafka.property_count, 1);
    assert_string_equal(loaded.kafka.properties[0].name, "sasl.password");
    assert_string_equal(loaded.kafka.properties[0].value, "p=q");

    assert_complaint(load(NULL, REQUIRED, LIST("INGEST_KAFKA_BROKER=x")),
                     "INGEST_KAFKA_BROKER: unknown variable; the nearest known one is "
                     "INGEST_KAFKA_BROKERS");
    assert_complaint(load(NULL, REQUIRED, LIST("INGEST_LIMITS_THREADS=65")),
                     "limits.threads: 65 is above 64 (bounds 0 to 64) [INGEST_LIMITS_THREADS]");
    assert_complaint(load(NULL, REQUIRED, LIST("INGEST_ROUTES_0_NAME=x")),
                     "INGEST_ROUTES_0_NAME: routes can be set in the file only (--config)");
    assert_int_equal(load(NULL, REQUIRED, LIST("INGEST_TESTS=x")), ST_INVALID);
    assert_int_equal(load(NULL, REQUIRED, LIST("INGEST_PORT_TCP=x")), ST_INVALID);
}

static void flags(void **state) {
    (void)state;
    assert_good(load(NULL,
                     LIST("--data-dir", "/d", "--kafka=k:1", "--listen=0.0.0.0:1", "--insecure",
                          "--http", "", "--check-config"),
                     NONE));
    assert_int_equal(action, CONFIG_CHECK);
    assert_true(loaded.listen.insecure);
    assert_string_equal(loaded.http.address, "");

    assert_complaint(load(NULL, LIST("--lisen=x"), NONE), "--lisen=x: unknown flag; see --help");
    assert_complaint(load(NULL, LIST("run"), NONE), "run: unknown flag; see --help");
    assert_complaint(load(NULL, LIST("--listen"), NONE), "--listen: needs ADDRESS; see --help");
    assert_complaint(load(NULL, LIST("--trial=yes"), NONE), "--trial: takes no value; see --help");
    assert_complaint(load(NULL, LIST("--data-dir=d", "--kafka=k", "--log-level=loud"), NONE),
                     "log.level: \"loud\" is not one of debug, info, warning, error [--log-level]");
}

static void what_is_required(void **state) {
    (void)state;
    assert_complaint(load(NULL, LIST("--kafka=k"), NONE),
                     "data_dir: required: the folder of the event store (--data-dir DIR, key "
                     "data_dir, INGEST_DATA_DIR); to try without Kafka: --trial");
    assert_complaint(load(NULL, LIST("--data-dir=d"), NONE),
                     "kafka.brokers: required: the bootstrap servers (--kafka BROKERS, key "
                     "kafka.brokers, INGEST_KAFKA_BROKERS); to try without Kafka: --trial");
    assert_int_equal(load(NULL, LIST("--data-dir=d", "--kafka=k", "--trial-address-file=f"), NONE),
                     ST_INVALID);
}

static void trial(void **state) {
    (void)state;
    assert_good(load(NULL, LIST("--trial", "--trial-address-file", "/a"), NONE));
    assert_true(loaded.trial);
    assert_string_equal(loaded.trial_address_file, "/a");
    assert_int_equal(loaded.routes[0].format, FORMAT_JSON);
    assert_int_equal(loaded.routes[1].format, FORMAT_JSON);
    assert_int_equal(loaded.storage.backlog_budget_bytes, 1 << 30);
    assert_good(
        load("storage: {backlog_budget: 2GiB}\nroutes: [{name: a}]\n", LIST("--trial"), NONE));
    assert_int_equal(loaded.storage.backlog_budget_bytes, 2LL << 30);
    assert_int_equal(loaded.routes[0].format, FORMAT_PROTOBUF);
    assert_int_equal(load(NULL, LIST("--trial", "--kafka=k"), NONE), ST_INVALID);
    assert_string_equal(why.field, "kafka.brokers");
}

static void plaintext_needs_consent_beyond_this_host(void **state) {
    (void)state;
    static const struct {
        char *flag;
        outcome result;
    } CASES[] = {
        {"--listen=127.0.0.1:0", ST_OK},
        {"--listen=127.9.9.9:1", ST_OK},
        {"--listen=[::1]:1", ST_OK},
        {"--listen=localhost:1", ST_OK},
        {"--listen=unix:/run/x", ST_OK},
        {"--listen=0.0.0.0:1", ST_INVALID},
        {"--listen=[::]:1", ST_INVALID},
        {"--listen=10.0.0.1:1", ST_INVALID},
        {"--listen=ingest.local:1", ST_INVALID},
        {"--listen=::1:1", ST_INVALID},
        {"--listen=:1", ST_INVALID},
        {"--listen=a:65536", ST_INVALID},
        {"--listen=a:", ST_INVALID},
        {"--listen=[x]:1", ST_INVALID},
        {"--listen=unix:", ST_INVALID},
        {"--listen=127.0.0.1:+1", ST_INVALID},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        outcome got = load(NULL, LIST("--data-dir=d", "--kafka=k", CASES[i].flag), NONE);
        if (got != CASES[i].result) fail_msg("%s: %d", CASES[i].flag, got);
    }
}

static void routes(void **state) {
    (void)state;
    assert_good(load("routes:\n"
                     "  - name: billing\n    topic: Billing_1\n    layout: split\n"
                     "    format: json\n    linger: 20ms\n    max_record_bytes: 2MiB\n"
                     "  - {name: logs, delivery: at_least_once}\n",
                     REQUIRED, NONE));
    assert_int_equal(loaded.route_count, 2);
    assert_string_equal(loaded.routes[0].topic, "Billing_1");
    assert_int_equal(loaded.routes[0].layout, LAYOUT_SPLIT);
    assert_int_equal(loaded.routes[0].linger_ms, 20);
    assert_int_equal(loaded.routes[0].max_record_bytes, 2 << 20);
    assert_int_equal(loaded.routes[0].transaction_max_events, 100000);
    assert_string_equal(loaded.routes[1].topic, "ingest.logs");
    assert_int_equal(loaded.routes[1].delivery, DELIVERY_AT_LEAST_ONCE);

    static const struct {
        const char *yaml, *complaint;
    } CASES[] = {
        {"routes: []", "routes: is not a list of one mapping or more [:1]"},
        {"routes: all", "routes: is not a list of one mapping or more [:1]"},
        {"routes: [a]", "routes[0]: is not a list of one mapping or more [:1]"},
        {"routes: [{name: A}]", "routes[0].name: \"A\" is not a name: 1 to 63 of [a-z0-9._-]"},
        {"routes: [{topic: t}]", "routes[0].name: \"\" is not a name: 1 to 63 of [a-z0-9._-]"},
        {"routes: [{name: a}, {name: a}]", "routes[1].name: \"a\" is the name of routes[0] too"},
        {"routes: [{name: a, topic: ..}]",
         "routes[0].topic: \"..\" is not a topic name: 1 to 249 of [a-zA-Z0-9._-], not . or .."},
        {"routes: [{name: positions}]",
         "routes[0].topic: ingest.positions is kafka.positions_topic"},
        {"routes: [{name: a, layout: split, delivery: at_least_once}]",
         "routes[0].delivery: at_least_once cannot keep the records of a split event together: "
         "use exactly_once, or layout: whole"},
        {"routes: [{name: a, transaction_max_bytes: 64KiB}]",
         "routes[0].max_record_bytes: is above transaction_max_bytes: such a record fits no "
         "transaction"},
        {"routes: [{name: a, linger: 11s}]",
         "routes[0].linger: 11s is above 10s (bounds 0ms to 10s) [:1]"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_yaml_complaint(CASES[i].yaml, CASES[i].complaint);

    char many[2048] = "routes:\n";
    for (int i = 0; i <= STORE_ROUTES_MAX; i++)
        (void)snprintf(many + strlen(many), sizeof many - strlen(many), "- name: r%d\n", i);
    assert_yaml_complaint(many, "routes[32].name: more than 32 routes [:34]");
}

static void properties(void **state) {
    (void)state;
    assert_good(load("kafka:\n  properties:\n    security.protocol: SASL_SSL\n"
                     "    sasl: {username: u}\n    retries: 3\n    max.in.flight: 5\n",
                     REQUIRED, LIST("INGEST_KAFKA_PROPERTIES_SASL_USERNAME=v")));
    assert_int_equal(loaded.kafka.property_count, 4);
    assert_string_equal(loaded.kafka.properties[1].name, "sasl.username");
    assert_string_equal(loaded.kafka.properties[1].value, "v");

    static const char *const REFUSED[] = {
        "transactional.id: x",
        "enable.idempotence: true",
        "acks: all",
        "request.required.acks: 1",
        "partitioner: random",
        "isolation.level: x",
        "delivery.timeout.ms: 1",
        "message.timeout.ms: 1",
        "transaction.timeout.ms: 1",
        "bootstrap.servers: k",
        "metadata.broker.list: k",
        "enable.gapless.guarantee: x",
        "retries: 0",
        "message.send.max.retries: 0",
        "max.in.flight: 6",
        "retry.backoff.ms: 5",
        "sasl.password: (set)",
        "test.mock.num.brokers: 3",
    };
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        char yaml[128];
        (void)snprintf(yaml, sizeof yaml, "kafka: {properties: {%s}}", REFUSED[i]);
        if (load(yaml, REQUIRED, NONE) != ST_INVALID) fail_msg("%s was taken", REFUSED[i]);
        assert_memory_equal(why.field, "kafka.properties.", 17);
        assert_non_null(strchr(why.reason, ':'));
    }
    assert_yaml_complaint("kafka: {properties: {acks: 1}}",
                          "kafka.properties.acks: cannot be set: always all: less would lose "
                          "acknowledged events [:1]");
}

/* What `print` writes to standard output. */
static const char *output_of(void (*print)(void)) {
    static char text[32768];
    FILE *file = tmpfile();
    assert_non_null(file);
    (void)fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    assert_true(kept >= 0 && dup2(fileno(file), STDOUT_FILENO) >= 0);
    print();
    (void)fflush(stdout);
    assert_true(dup2(kept, STDOUT_FILENO) >= 0);
    close(kept);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    return text;
}

static void print_loaded(void) { config_print(&loaded); }

static void the_print_out_loads_again(void **state) {
    (void)state;
    assert_good(load("data_dir: \"/a \\\"b\\\" \\\\ c\"\nlimits: {max_event_bytes: 64KiB}\n"
                     "kafka: {properties: {linger.ms: 1, ssl.ca.pem: \"a\\nb\"}}\n"
                     "routes: [{name: a, format: json, max_record_bytes: 1000001}, {name: b}]\n",
                     LIST("--kafka=k"), NONE));
    char first[32768];
    strcpy(first, output_of(print_loaded));
    assert_non_null(strstr(first, "\n  max_event_bytes: 64KiB\n"));
    assert_non_null(strstr(first, "\n  - name: \"a\"\n    topic: \"ingest.a\"\n"));
    assert_good(load(first, NONE, NONE));
    assert_string_equal(output_of(print_loaded), first);
    assert_string_equal(loaded.data_dir, "/a \"b\" \\ c");
    assert_string_equal(loaded.kafka.properties[1].value, "a\nb");
}

static void secrets_are_not_printed(void **state) {
    (void)state;
    assert_good(load("kafka: {properties: {sasl.password: hush, sasl.username: hush, "
                     "ssl.key.pem: hush, ssl.keystore.password: hush, "
                     "sasl.mechanisms: PLAIN, ssl.ca.location: /ca}}\n",
                     REQUIRED, NONE));
    const char *text = output_of(print_loaded);
    assert_null(strstr(text, "hush"));
    assert_non_null(strstr(text, "\"sasl.password\": \"(set)\"\n"));
    assert_non_null(strstr(text, "\"sasl.mechanisms\": \"PLAIN\"\n"));
    assert_non_null(strstr(text, "\"ssl.ca.location\": \"/ca\"\n"));
}

static void load_help(void) { assert_good(load(NULL, LIST("--help"), NONE)); }
static void load_version(void) { assert_good(load(NULL, LIST("--version"), NONE)); }

static void help_and_version(void **state) {
    (void)state;
    const char *text = output_of(load_help);
    assert_int_equal(action, CONFIG_EXIT);
    assert_non_null(strstr(text, "--trial-address-file FILE"));
    assert_non_null(strstr(text, "limits.max_event_bytes  (768KiB; 1KiB to 16MiB)"));
    assert_non_null(strstr(text, "routes[].layout  (whole; whole | split)"));
    assert_memory_equal(output_of(load_version), "ingestd ", 8);
}

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(flags_win_over_variables_over_the_file),
        cmocka_unit_test(units),
        cmocka_unit_test(bad_values_name_key_bounds_and_place),
        cmocka_unit_test(unknown_keys_name_the_nearest),
        cmocka_unit_test(yaml_that_is_refused),
        cmocka_unit_test(odd_yaml),
        cmocka_unit_test(variables),
        cmocka_unit_test(flags),
        cmocka_unit_test(what_is_required),
        cmocka_unit_test(trial),
        cmocka_unit_test(plaintext_needs_consent_beyond_this_host),
        cmocka_unit_test(routes),
        cmocka_unit_test(properties),
        cmocka_unit_test(the_print_out_loads_again),
        cmocka_unit_test(secrets_are_not_printed),
        cmocka_unit_test(help_and_version),
    };
    return cmocka_run_group_tests_name("config", TESTS, begin, end);
}
