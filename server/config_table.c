#include "server/config_table.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)
#define SECOND UINT64_C(1000)
#define HOUR (3600 * SECOND)

/* ---- the tables ------------------------------------------------------------------------ */

static const char *const LEVELS[] = {"debug", "info", "warning", "error", NULL};
static const char *const LOG_FORMATS[] = {"logfmt", "json", NULL};
static const char *const LAYOUTS[] = {"whole", "split", NULL};
static const char *const FORMATS[] = {"protobuf", "json", NULL};
static const char *const DELIVERIES[] = {"exactly_once", "at_least_once", NULL};
_Static_assert(sizeof(log_level) == sizeof(unsigned) && sizeof(log_format) == sizeof(unsigned) &&
                   sizeof(route_layout) == sizeof(unsigned) &&
                   sizeof(route_format) == sizeof(unsigned) &&
                   sizeof(route_delivery) == sizeof(unsigned),
               "KEY_ENUM writes an unsigned");

#define FIELD_SIZE(type, field) sizeof(((type *)0)->field)

/* clang-format off */
#define IN config
#define AT(field) offsetof(IN, field)
#define STRING(path, field, preset, doc) \
    {path, KEY_STRING, AT(field), preset, 0, FIELD_SIZE(IN, field), NULL, doc}
#define BOOL(path, field, preset, doc) {path, KEY_BOOL, AT(field), preset, 0, 0, NULL, doc}
#define NUMBER(type, path, field, preset, min, max, doc) \
    {path, type, AT(field), preset, min, max, NULL, doc}
#define ENUM(path, field, preset, choices, doc) {path, KEY_ENUM, AT(field), preset, 0, 0, choices, doc}

const config_key CONFIG_KEYS[] = {
    STRING("data_dir", data_dir, "", "folder of the event store; required"),
    STRING("catalogue_file", catalogue_file, "", "operations, effects and routes; empty: the built-in"),

    STRING("listen.address", listen.address, "127.0.0.1:50051", "gRPC: host:port, [v6]:port or unix:/path"),
    BOOL("listen.insecure", listen.insecure, "false", "allow plaintext on an address that other hosts reach"),
    STRING("http.address", http.address, "127.0.0.1:9464", "metrics and health over HTTP; empty: off"),

    ENUM("log.level", log.level, "info", LEVELS, "least level that is written"),
    ENUM("log.format", log.format, "logfmt", LOG_FORMATS, "form of the lines on standard error"),

    NUMBER(KEY_INTEGER, "limits.threads", limits.threads, "0", 0, 64, "rpc threads; 0: one a core but one, at most 8"),
    NUMBER(KEY_SIZE, "limits.max_event_bytes", limits.max_event_bytes, "768KiB", KIB, 16 * MIB, "an encoded event"),
    NUMBER(KEY_SIZE, "limits.max_message_bytes", limits.max_message_bytes, "4MiB", 4 * KIB, 64 * MIB, "a gRPC message"),
    NUMBER(KEY_INTEGER, "limits.max_batch_events", limits.max_batch_events, "10000", 1, 100000, "events of one PublishBatch"),
    NUMBER(KEY_INTEGER, "limits.max_operations", limits.max_operations, "1000", 1, 10000, "operations of a transaction"),
    NUMBER(KEY_INTEGER, "limits.max_concurrent_streams", limits.max_concurrent_streams, "1000", 1, 1000000, "calls in flight per connection"),
    NUMBER(KEY_INTEGER, "limits.max_calls", limits.max_calls, "20000", 1, 1000000, "calls in flight over all connections"),
    NUMBER(KEY_INTEGER, "limits.stream_window", limits.stream_window, "4096", 1, 65536, "events in flight of one PublishStream"),
    NUMBER(KEY_SIZE, "limits.memory_bytes", limits.memory_bytes, "512MiB", 16 * MIB, TIB, "gRPC's resource quota"),

    NUMBER(KEY_SIZE, "storage.backlog_budget", storage.backlog_budget_bytes, "20GiB", MIB, 1024 * TIB, "pending events on disk; above it new ones are refused"),
    NUMBER(KEY_SIZE, "storage.dead_budget", storage.dead_budget_bytes, "1GiB", MIB, 1024 * TIB, "dead letters on disk; above it their route waits"),
    NUMBER(KEY_SIZE, "storage.reserve_free", storage.reserve_free_bytes, "1GiB", 0, 1024 * TIB, "free space of the volume below which events are refused"),
    NUMBER(KEY_SIZE, "storage.ballast", storage.ballast_bytes, "256MiB", 0, TIB, "held on the volume, released when a full one could not be opened"),
    NUMBER(KEY_DURATION, "storage.ids_window", storage.ids_window_ms, "24h", SECOND, 720 * HOUR, "how long a published id is remembered"),
    NUMBER(KEY_SIZE, "storage.ids_budget", storage.ids_budget_bytes, "1GiB", 16 * MIB, 1024 * TIB, "ids of published events on disk; above it they are remembered for less long"),
    NUMBER(KEY_INTEGER, "storage.queue_max_requests", storage.queue_max_requests, "65536", 1, 16777216, "requests waiting for the disk"),
    NUMBER(KEY_SIZE, "storage.queue_max_bytes", storage.queue_max_bytes, "256MiB", MIB, 16 * GIB, "bytes waiting for the disk"),
    NUMBER(KEY_SIZE, "storage.memtable", storage.memtable_bytes, "32MiB", MIB, 4 * GIB, "write buffer of the outbox"),

    STRING("storage.accept_loss", storage.accept_loss, "", "repair the damage that a refused start named so, and accept what is lost"),

    STRING("kafka.brokers", kafka.brokers, "", "bootstrap servers, host:port,host:port; required"),
    STRING("kafka.positions_topic", kafka.positions_topic, "ingest.positions", "compacted topic that holds the positions"),
    BOOL("kafka.create_topics", kafka.create_topics, "true", "create the topics that are missing"),
    NUMBER(KEY_INTEGER, "kafka.topic_partitions", kafka.topic_partitions, "12", 1, 10000, "partitions of a topic that we create"),
    NUMBER(KEY_INTEGER, "kafka.replication_factor", kafka.replication_factor, "0", 0, 100, "replicas of a topic that we create; 0: the broker's default"),

    NUMBER(KEY_DURATION, "shutdown.grace", shutdown_grace_ms, "20s", 0, HOUR, "time to drain and flush at a stop"),
};
const size_t CONFIG_KEY_COUNT = sizeof CONFIG_KEYS / sizeof *CONFIG_KEYS;

#undef IN
#define IN route_config
const config_key ROUTE_KEYS[] = {
    STRING("name", name, "", "[a-z0-9._-]+; required"),
    STRING("topic", topic, "", "empty: \"ingest.\" and the name"),
    ENUM("layout", layout, "whole", LAYOUTS, "one record an event, or one an operation"),
    ENUM("format", format, "protobuf", FORMATS, "of the record's value; --trial: json"),
    ENUM("delivery", delivery, "exactly_once", DELIVERIES, "at_least_once works without Kafka transactions"),
    NUMBER(KEY_DURATION, "linger", linger_ms, "5ms", 0, 10 * SECOND, "how long an open transaction waits for more events"),
    NUMBER(KEY_INTEGER, "transaction_max_events", transaction_max_events, "100000", 1, 1000000, "a transaction closes at so many events, or after half a second"),
    NUMBER(KEY_SIZE, "transaction_max_bytes", transaction_max_bytes, "64MiB", 64 * KIB, GIB, "a transaction closes at so many bytes"),
    NUMBER(KEY_SIZE, "max_record_bytes", max_record_bytes, "1000000", 1000, 64 * MIB, "the topic's limit for a record with key and headers"),
};
const size_t ROUTE_KEY_COUNT = sizeof ROUTE_KEYS / sizeof *ROUTE_KEYS;
/* clang-format on */

/* ---- finding a key --------------------------------------------------------------------- */

const config_key *key_find(const config_key *keys, size_t count, const char *path) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(keys[i].path, path) == 0) return &keys[i];
    return NULL;
}

#define DISTANCE_MAX_CHARS 127

/* Levenshtein's, to the first characters of `b`. */
static size_t distance(const char *a, const char *b, size_t b_len) {
    size_t a_len = strnlen(a, DISTANCE_MAX_CHARS);
    if (b_len > DISTANCE_MAX_CHARS) b_len = DISTANCE_MAX_CHARS;
    size_t row[DISTANCE_MAX_CHARS + 1];
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

static const char *last_part(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

const config_key *key_nearest(const config_key *keys, size_t count, const char *path) {
    const config_key *nearest = &keys[0];
    bool top = strchr(path, '.') == NULL; /* may be a section's name */
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t here = distance(path, keys[i].path, strlen(keys[i].path));
        size_t section = distance(path, keys[i].path, strcspn(keys[i].path, "."));
        if (top && section < here) here = section;
        if (strcmp(last_part(path), last_part(keys[i].path)) == 0) here = 0; /* wrong section */
        if (here < least) {
            least = here;
            nearest = &keys[i];
        }
    }
    return nearest;
}

/* ---- numbers with units ---------------------------------------------------------------- */

typedef struct unit {
    const char *name;
    uint64_t factor;
} unit;

/* From small to large, for each type. */
static const unit NO_UNITS[] = {{"", 1}, {NULL, 0}};
static const unit SIZES[] = {{"", 1},      {"B", 1},     {"KiB", KIB}, {"MiB", MIB},
                             {"GiB", GIB}, {"TiB", TIB}, {NULL, 0}};
static const unit DURATIONS[] = {
    {"ms", 1}, {"s", SECOND}, {"m", 60 * SECOND}, {"h", HOUR}, {NULL, 0}};

static const unit *units_of(key_type type) {
    return type == KEY_SIZE ? SIZES : type == KEY_DURATION ? DURATIONS : NO_UNITS;
}

typedef struct number_text {
    char text[32];
} number_text;

/* In the largest unit that divides it. */
static number_text format_number(key_type type, uint64_t value) {
    const unit *units = units_of(type), *best = &units[0];
    for (const unit *u = units; u->name; u++)
        if (value != 0 && value % u->factor == 0 && u->factor > best->factor) best = u;
    number_text out;
    (void)snprintf(out.text, sizeof out.text, "%" PRIu64 "%s", value / best->factor, best->name);
    return out;
}

/* Digits, at most one space, a unit of the type. What overflows becomes UINT64_MAX. */
static bool parse_number(key_type type, const char *text, uint64_t *value) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0) return false;
    const char *name = text + digits;
    if (*name == ' ' && name[1] != '\0') name++;
    const unit *u = units_of(type);
    while (u->name && strcmp(u->name, name) != 0)
        u++;
    if (!u->name && strcmp(text, "0") != 0) return false; /* nought needs no unit */

    uint64_t sum = 0, factor = u->name ? u->factor : 1;
    for (size_t i = 0; i < digits; i++) {
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, digit, &sum))
            sum = UINT64_MAX;
    }
    *value = sum > UINT64_MAX / factor ? UINT64_MAX : sum * factor;
    return true;
}

static outcome set_number(const config_key *key, uint64_t *place, const char *text, failure *why) {
    static const char *const FORMS[] = {
        [KEY_INTEGER] = "a whole number",
        [KEY_SIZE] = "a size: write bytes, or 64KiB, 1MiB, 20GiB",
        [KEY_DURATION] = "a duration: write it with its unit, as 500ms, 20s, 5m, 24h",
    };
    uint64_t value;
    if (!parse_number(key->type, text, &value))
        return fail(why, ST_INVALID, "", "\"%s\" is not %s", text, FORMS[key->type]);
    if (value < key->min || value > key->max) {
        number_text min = format_number(key->type, key->min);
        number_text max = format_number(key->type, key->max);
        bool below = value < key->min;
        return fail(why, ST_INVALID, "", "%s is %s %s (bounds %s to %s)", text,
                    below ? "below" : "above", below ? min.text : max.text, min.text, max.text);
    }
    *place = value;
    return ST_OK;
}

/* ---- values of every type -------------------------------------------------------------- */

static outcome set_string(const config_key *key, char *place, const char *text, failure *why) {
    size_t len = strlen(text);
    if (len >= key->max)
        return fail(why, ST_INVALID, "", "%zu bytes are too long (at most %" PRIu64 ")", len,
                    key->max - 1);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return fail(why, ST_INVALID, "", "holds a line break or another control character");
    memcpy(place, text, len + 1);
    return ST_OK;
}

static outcome set_bool(bool *place, const char *text, failure *why) {
    *place = strcmp(text, "true") == 0;
    if (*place || strcmp(text, "false") == 0) return ST_OK;
    return fail(why, ST_INVALID, "", "\"%s\" is neither true nor false", text);
}

static outcome set_enum(const config_key *key, unsigned *place, const char *text, failure *why) {
    char known[128] = "";
    for (unsigned i = 0; key->choices[i]; i++) {
        if (strcmp(key->choices[i], text) == 0) {
            *place = i;
            return ST_OK;
        }
        size_t len = strlen(known);
        (void)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", key->choices[i]);
    }
    return fail(why, ST_INVALID, "", "\"%s\" is not one of %s", text, known);
}

outcome key_set(const config_key *key, void *base, const char *text, failure *why) {
    void *place = (char *)base + key->offset;
    switch (key->type) {
    case KEY_STRING:
        return set_string(key, place, text, why);
    case KEY_BOOL:
        return set_bool(place, text, why);
    case KEY_ENUM:
        return set_enum(key, place, text, why);
    default:
        return set_number(key, place, text, why);
    }
}

void key_set_presets(const config_key *keys, size_t count, void *base) {
    for (size_t i = 0; i < count; i++) {
        outcome good = key_set(&keys[i], base, keys[i].preset, NULL);
        assert(good == ST_OK);
        (void)good;
    }
}

/* ---- printing -------------------------------------------------------------------------- */

void yaml_print_string(const char *text, FILE *to) {
    fputc('"', to);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < ' ' || c == 0x7f)
            fprintf(to, "\\x%02x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

void key_print(const config_key *key, const void *base, FILE *to) {
    const void *place = (const char *)base + key->offset;
    switch (key->type) {
    case KEY_STRING:
        yaml_print_string(place, to);
        break;
    case KEY_BOOL:
        fputs(*(const bool *)place ? "true" : "false", to);
        break;
    case KEY_ENUM:
        fputs(key->choices[*(const unsigned *)place], to);
        break;
    default:
        fputs(format_number(key->type, *(const uint64_t *)place).text, to);
    }
}

void key_print_range(const config_key *key, FILE *to) {
    fputs(*key->preset ? key->preset : "\"\"", to);
    if (key->type == KEY_BOOL)
        fputs("; true or false", to);
    else if (key->type == KEY_ENUM)
        for (size_t i = 0; key->choices[i]; i++)
            fprintf(to, "%s%s", i ? " | " : "; ", key->choices[i]);
    else if (key->type != KEY_STRING)
        fprintf(to, "; %s to %s", format_number(key->type, key->min).text,
                format_number(key->type, key->max).text);
}
