/*
 * ingestctl consume: libingest-consumer with a command as the handler of every effect. The main
 * thread drives the consumer, its workers wait for the commands.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "client/ingestctl/effect_command.h"
#include "client/ingestctl/failed.h"
#include "client/ingestctl/kafka_options.h"
#include "client/ingestctl/stop.h"

enum { TOPICS_MAX = 64, HOUR_MS = 3600000, TIMEOUT_MS = 60000, GRACE_MS = 10000 };

typedef struct consuming {
    const arguments *given;
    effect_command command;
    ingest_consumer_options options;
    ingest_retry_policy policy;
    const char *topics[TOPICS_MAX + 1];
    kafka_properties properties;
} consuming;

/* The signal handler has no other way to know it. */
static ingest_consumer *volatile running;
static uint32_t stop_grace_ms;

static void stop(void) {
    if (running) ingest_consumer_stop(running, stop_grace_ms);
}

/* ---- what the library calls: any thread ----------------------------------------------------- */

static ingest_verdict run_command(void *arg, const ingest_effect *effect, ingest_trouble *trouble) {
    const consuming *it = arg;
    size_t len;
    const void *payload = ingest_effect_raw(effect, &len);
    if (!payload) payload = ingest_effect_json(effect, &len);
    return effect_command_run(&it->command, effect, bytes_of(payload, len), trouble);
}

static void log_line(void *arg, const char *line) {
    const consuming *it = arg;
    if (!flag(it->given, "quiet")) (void)complain(it->given, 0, "%s", line);
}

static void alarm_line(void *arg, ingest_alarm what, const char *text) {
    const consuming *it = arg;
    (void)what;
    (void)complain(it->given, 0, "%s", text);
}

/* ---- what was given -------------------------------------------------------------------------- */

static bool take_topics(consuming *it) {
    size_t count = 0;
    for (size_t i = 0; i < it->given->option_count; i++)
        if (strcmp(it->given->options[i].name, "topic") == 0)
            it->topics[count++] = it->given->options[i].value;
    if (count == 0) it->topics[0] = "ingest.transactions";
    it->options.topics = it->topics;
    return kafka_properties_of(it->given, &it->properties);
}

static bool number(const consuming *it, const char *name, uint32_t fallback, uint32_t most,
                   uint32_t *out) {
    uint64_t value;
    if (!argument_number(it->given, name, fallback, fallback ? 1 : 0, most, &value)) return false;
    *out = (uint32_t)value;
    return true;
}

static bool take_numbers(consuming *it) {
    ingest_consumer_options *to = &it->options;
    return number(it, "workers", to->workers, 256, &to->workers) &&
           number(it, "attempts", 10, 1000000, &it->policy.attempts) &&
           number(it, "backoff-ms", 500, HOUR_MS, &it->policy.backoff_ms) &&
           number(it, "backoff-last-ms", 60000, 24 * HOUR_MS, &it->policy.backoff_last_ms) &&
           number(it, "timeout-ms", TIMEOUT_MS, 24 * HOUR_MS, &it->command.timeout_ms) &&
           number(it, "grace-ms", GRACE_MS, HOUR_MS, &stop_grace_ms);
}

static bool take_options(consuming *it) {
    ingest_consumer_options *to = &it->options;
    ingest_consumer_options_init(to);
    it->command = (effect_command){.argv = it->given->operands, .grace_ms = STOP_GRACE_MS};
    if (!take_topics(it) || !take_numbers(it)) return false;
    to->brokers = kafka_brokers(it->given);
    to->group = argument(it->given, "group");
    to->data_dir = argument(it->given, "data-dir");
    to->catalogue = argument(it->given, "catalogue");
    to->properties = it->properties.list;
    to->groups_span_topics = flag(it->given, "groups-span-topics");
    to->from_latest = flag(it->given, "from-latest");
    to->order = flag(it->given, "wait") ? INGEST_KEY_WAITS : INGEST_KEY_PASSES;
    to->policies = &it->policy;
    to->policy_count = 1;
    to->log = log_line;
    to->alarm = alarm_line;
    to->arg = it;
    if (to->group && to->data_dir) return true;
    return complain(it->given, 0, "--%s is required", to->group ? "data-dir" : "group");
}

/* ---- running ----------------------------------------------------------------------------------
 */

static void print_summary(ingest_consumer *consumer) {
    ingest_consumer_stats stats;
    ingest_consumer_stats_get(consumer, &stats);
    (void)fprintf(stderr,
                  "%llu events, %llu effects done, %llu attempts failed, %llu events seen before; "
                  "failed events in the store: %llu\n",
                  (unsigned long long)stats.events_done, (unsigned long long)stats.effects_done,
                  (unsigned long long)stats.effects_failed,
                  (unsigned long long)stats.events_skipped,
                  (unsigned long long)stats.failed_events);
}

static int consume(consuming *it) {
    ingest_error error = {0};
    ingest_consumer *consumer = ingest_consumer_open(&it->options, &error);
    if (!consumer && error.status == INGEST_INVALID)
        return complain(it->given, EX_USAGE, "%s", error.reason);
    if (!consumer) return failed_complain(it->given, &error);
    (void)ingest_consumer_handle(consumer, INGEST_ANY, NULL, run_command, it);
    running = consumer;
    stop_calls(stop);
    stop_on_signals();
    const ingest_status ended = ingest_consumer_run(consumer, &error);
    running = NULL;
    if (!flag(it->given, "quiet")) print_summary(consumer);
    ingest_consumer_close(consumer);
    return ended == INGEST_OK ? EX_OK : failed_complain(it->given, &error);
}

static int run(const arguments *given) {
    consuming it = {.given = given};
    (void)signal(SIGPIPE, SIG_IGN); /* a command need not read its stdin */
    const int code = take_options(&it) ? consume(&it) : EX_USAGE;
    kafka_properties_free(&it.properties);
    return code;
}

static const command_option OPTIONS[] = {
    KAFKA_OPTION,
    {"group", "NAME", "the consumer group; required"},
    {"topic", "TOPIC", "may be repeated; default ingest.transactions"},
    {"data-dir", "DIR", "holds the failed events; made when missing; required"},
    {"catalogue", "FILE", "the operations and their effects; default: as the servers'"},
    {"workers", "N", "commands side by side; default 4"},
    {"wait", NULL, "later events of a key wait behind one that failed; else they pass it"},
    {"attempts", "N", "at each effect, in all; default 10"},
    {"backoff-ms", "N", "before the second attempt, doubling; default 500"},
    {"backoff-last-ms", "N", "the longest; default 60000"},
    {"timeout-ms", "N", "then a command is ended, and tried again; default 60000"},
    {"grace-ms", "N", "for the commands that run when ^C comes; default 10000"},
    {"groups-span-topics", NULL, "split groups have records in several of the topics"},
    {"from-latest", NULL, "a new group begins with what comes from now on"},
    KAFKA_SET_OPTION,
    {"quiet", NULL, "only what somebody should look at"},
    {0}};

const command COMMAND_CONSUME = {
    .group = "",
    .name = "consume",
    .operands = "-- COMMAND [ARGUMENT...]",
    .least = 1,
    .most = -1,
    .summary = "run a command for each effect of each event, once and in order",
    .help =
        "Joins a consumer group and runs COMMAND for each effect that the catalogue has for an\n"
        "event's operations: an event's one after the other, a key's events in order, different\n"
        "keys side by side. What is done is recorded in Kafka before the next one begins, so that\n"
        "after a crash or a rebalance it goes on where it stopped; only a command that was\n"
        "running then is run again, with the same INGEST_IDEMPOTENCY_KEY.\n"
        "\n"
        "The operation's data comes as JSON on stdin (raw bytes as they are); in the environment\n"
        "stand INGEST_SOURCE, INGEST_EVENT_ID, INGEST_EVENT_TYPE, INGEST_KEY, INGEST_OPERATION,\n"
        "INGEST_OPERATION_INDEX, INGEST_ENTITY_ID, INGEST_EFFECT_KIND (index, table, operation,\n"
        "notice), INGEST_EFFECT, INGEST_EFFECT_INDEX, INGEST_ATTEMPT and INGEST_IDEMPOTENCY_KEY.\n"
        "Exit code 0: done. 65: no attempt will help. Others: tried again. An event that cannot\n"
        "be finished goes to the failed events of the data folder (ingestctl failed); the last\n"
        "line of stderr is the reason.\n"
        "\n"
        "^C or SIGTERM ends it when the commands that run have ended.",
    .example = "  ingestctl consume --group profiles --data-dir /var/lib/profiles -- ./apply.sh",
    .options = OPTIONS,
    .run = run,
};
