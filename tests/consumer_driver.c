/*
 * The consuming library at work, for the tests and measurements: a handler for everything, which
 * writes what it did to a log that many processes may share.
 *
 *   consumer_driver BROKERS GROUP TOPIC[,TOPIC...] DIRECTORY [NAME=VALUE...]
 *
 * NAME=VALUE: options of the consumer by their names (order: passes or waits; attempts, backoff_ms
 * and backoff_last_ms of the policy of all; final_codes: one), properties of librdkafka (names with
 * a dot), and
 *   log=FILE        a line for each call that comes to its end, by tabs: VERDICT PID KEY EVENT
 *                   OPERATION EFFECT ATTEMPT NAME IDEMPOTENCY_KEY; OPERATION and EFFECT are
 *                   indexes. Written at once: a kill of the process takes nothing back
 *   calls=FILE      the same when a call begins
 *   cure=FILE       while it is not there, effects whose key begins with "sick" are to be tried
 *                   again (code "sick"), those with "lost" are final (code "lost")
 *   fail_percent=N  so many calls fail, by chance (code "chance")
 *   delay_us=N      a call takes so long
 *   grace_ms=N      on SIGTERM
 *   stats=FILE      the metrics, ten times a second
 *   until=N         ends after so many effects, and says how long they took
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ingest/consumer.h"
#include "storage/clock.h"

enum { PROPERTIES_MOST = 32, TOPICS_MOST = 16, LINE_SIZE = 4096 };

typedef struct setup {
    ingest_consumer_options options;
    ingest_retry_policy policy;
    const char *final_codes[2];
    const char *properties[2 * PROPERTIES_MOST + 1];
    size_t property_count;
    const char *topics[TOPICS_MOST + 1];
    const char *cure, *stats;
    int log, calls;
    uint64_t fail_percent, delay_us, grace_ms, until;
    _Atomic uint64_t effects;
    _Atomic int64_t first_us, last_us;
    _Atomic bool ended;
} setup;

static ingest_consumer *consumer;
static setup it = {.log = -1, .calls = -1, .grace_ms = 5000};

/* ---- the handler ----------------------------------------------------------------------------- */

static void note(int file, const char *verdict, const ingest_effect *effect) {
    char line[LINE_SIZE];
    if (file < 0) return;
    const int len =
        snprintf(line, sizeof line, "%s\t%d\t%s\t%s\t%u\t%u\t%u\t%s\t%s\n", verdict, (int)getpid(),
                 effect->key, effect->event_id, effect->operation_index, effect->effect_index,
                 effect->attempt, effect->name, effect->idempotency_key);
    if (len >= LINE_SIZE || write(file, line, (size_t)len) != len) abort();
}

static bool begins_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static ingest_verdict decide(const ingest_effect *effect, ingest_trouble *trouble) {
    static _Thread_local unsigned seed;
    if (!seed) seed = (unsigned)clock_monotonic_us() ^ (unsigned)getpid();
    const bool sick = begins_with(effect->key, "sick"), lost = begins_with(effect->key, "lost");
    if (it.cure && (sick || lost) && access(it.cure, F_OK) != 0) {
        (void)snprintf(trouble->code, sizeof trouble->code, "%s", sick ? "sick" : "lost");
        (void)snprintf(trouble->reason, sizeof trouble->reason, "there is no %s", it.cure);
        return sick ? INGEST_RETRY : INGEST_FINAL;
    }
    if ((uint64_t)rand_r(&seed) % 100 >= it.fail_percent) return INGEST_DONE;
    (void)snprintf(trouble->code, sizeof trouble->code, "chance");
    return INGEST_RETRY;
}

static void count_done(void) {
    int64_t none = 0;
    const int64_t now_us = clock_monotonic_us();
    atomic_compare_exchange_strong(&it.first_us, &none, now_us);
    if (++it.effects != it.until) return;
    it.last_us = now_us;
    ingest_consumer_stop(consumer, (uint32_t)it.grace_ms);
}

static ingest_verdict handle(void *arg, const ingest_effect *effect, ingest_trouble *trouble) {
    static const char *const VERDICTS[] = {"done", "retry", "final"};
    (void)arg;
    note(it.calls, "call", effect);
    if (it.delay_us) (void)usleep((useconds_t)it.delay_us);
    const ingest_verdict verdict = decide(effect, trouble);
    note(it.log, VERDICTS[verdict], effect);
    if (it.until && verdict == INGEST_DONE) count_done();
    return verdict;
}

/* ---- what it tells --------------------------------------------------------------------------- */

static void log_line(void *arg, const char *line) {
    (void)arg;
    (void)fprintf(stderr, "%s\n", line);
}

static void alarm_line(void *arg, ingest_alarm what, const char *text) {
    static const char *const NAMES[] = {"FAILED", "STORE", "STALLED", "OFFSETS", "KAFKA"};
    (void)arg;
    (void)fprintf(stderr, "ALARM %s %s\n", NAMES[what], text);
}

static void write_text(void *arg, const char *text, size_t len) { (void)fwrite(text, 1, len, arg); }

static void *write_stats(void *arg) {
    char path[LINE_SIZE];
    (void)arg;
    (void)snprintf(path, sizeof path, "%s.new", it.stats);
    while (!it.ended) {
        FILE *file = fopen(path, "w");
        if (!file) abort();
        ingest_consumer_metrics(consumer, write_text, file);
        if (fclose(file) != 0 || rename(path, it.stats) != 0) abort();
        (void)usleep(100000);
    }
    return NULL;
}

static void on_signal(int number) {
    (void)number;
    ingest_consumer_stop(consumer, (uint32_t)it.grace_ms);
}

/* ---- options --------------------------------------------------------------------------------- */

static bool set_text(const char *name, char *value) {
    const struct {
        const char *name, **value;
    } all[] = {{"catalogue", &it.options.catalogue},
               {"cure", &it.cure},
               {"stats", &it.stats},
               {"final_codes", &it.final_codes[0]}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) *all[i].value = value;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) return true;
    return false;
}

static bool set_number(const char *name, const char *value) {
    const uint64_t number = strtoull(value, NULL, 10);
    const struct {
        const char *name;
        uint32_t *small;
        uint64_t *large;
    } all[] = {{"workers", &it.options.workers, NULL},
               {"window", &it.options.window, NULL},
               {"attempts", &it.policy.attempts, NULL},
               {"backoff_ms", &it.policy.backoff_ms, NULL},
               {"backoff_last_ms", &it.policy.backoff_last_ms, NULL},
               {"buffer_bytes", NULL, &it.options.buffer_bytes},
               {"identity_window_ms", NULL, &it.options.identity_window_ms},
               {"identity_window_events", NULL, &it.options.identity_window_events},
               {"failed_max_events", NULL, &it.options.failed_max_events},
               {"failed_max_bytes", NULL, &it.options.failed_max_bytes},
               {"fail_percent", NULL, &it.fail_percent},
               {"delay_us", NULL, &it.delay_us},
               {"grace_ms", NULL, &it.grace_ms},
               {"until", NULL, &it.until}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) {
            if (all[i].small) *all[i].small = (uint32_t)number;
            if (all[i].large) *all[i].large = number;
            return true;
        }
    return false;
}

static int open_log(const char *path) {
    const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) exit(73);
    return file;
}

static void set_option(char *option) {
    char *value = strchr(option, '=');
    if (!value) exit(64);
    *value++ = '\0';
    if (strchr(option, '.') && it.property_count < PROPERTIES_MOST) {
        it.properties[2 * it.property_count] = option;
        it.properties[2 * it.property_count++ + 1] = value;
    } else if (strcmp(option, "order") == 0) {
        it.options.order = strcmp(value, "waits") == 0 ? INGEST_KEY_WAITS : INGEST_KEY_PASSES;
    } else if (strcmp(option, "groups_span_topics") == 0) {
        it.options.groups_span_topics = *value == '1';
    } else if (strcmp(option, "from_latest") == 0) {
        it.options.from_latest = *value == '1';
    } else if (strcmp(option, "log") == 0) {
        it.log = open_log(value);
    } else if (strcmp(option, "calls") == 0) {
        it.calls = open_log(value);
    } else if (!set_text(option, value) && !set_number(option, value)) {
        exit(64);
    }
}

static void set_up(int count, char **arguments) {
    ingest_consumer_options_init(&it.options);
    it.options.brokers = arguments[0];
    it.options.group = arguments[1];
    char *topics = arguments[2];
    for (size_t i = 0; topics && i < TOPICS_MOST; i++)
        it.topics[i] = strsep(&topics, ",");
    it.options.topics = it.topics;
    it.options.data_dir = arguments[3];
    it.options.log = log_line;
    it.options.alarm = alarm_line;
    for (int i = 4; i < count; i++)
        set_option(arguments[i]);
    it.options.properties = it.properties;
    it.policy.final_codes = it.final_codes;
    it.options.policies = &it.policy;
    it.options.policy_count = 1;
}

static int give_up(const char *what, const ingest_error *error) {
    (void)fprintf(stderr, "%s: %s: %s\n", what, ingest_status_text(error->status), error->reason);
    return 1;
}

int main(int count, char **arguments) {
    ingest_error error;
    pthread_t stats;
    if (count < 5) return 64;
    set_up(count - 1, arguments + 1);
    if (!(consumer = ingest_consumer_open(&it.options, &error))) return give_up("open", &error);
    if (!ingest_consumer_handle(consumer, INGEST_ANY, NULL, handle, NULL)) return 70;
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    if (it.stats && pthread_create(&stats, NULL, write_stats, NULL) != 0) return 71;
    const ingest_status ended = ingest_consumer_run(consumer, &error);
    it.ended = true;
    if (it.stats) (void)pthread_join(stats, NULL);
    ingest_consumer_close(consumer);
    if (it.until)
        (void)printf("%llu effects in %.6f s\n", (unsigned long long)it.until,
                     (double)(it.last_us - it.first_us) / 1e6);
    return ended == INGEST_OK ? 0 : give_up("run", &error);
}
