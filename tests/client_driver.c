/*
 * The publishing library at work, for tests/integration/test_client.py: reads commands or makes
 * load, and tells every result as a line.
 *
 *   client_driver TARGET [NAME=VALUE...] publish
 *       A line of input is an event: "KEY ID OPERATION JSON", or "-" for what is left out;
 *       published and waited for.
 *   client_driver TARGET [NAME=VALUE...] load
 *       Events from several threads, with callbacks.
 *   client_driver - json
 *       A line of input is JSON; answered by the Struct in hexadecimal, or why it is none.
 *
 * NAME=VALUE: the publisher's options, and for load: threads, keys, events (of all threads), size,
 * bad (every so many events one that the server refuses; 0: none), linger_ms (of a thread between
 * two events).
 *
 * A result: ID KEY STATUS ROUTE SEQUENCE DUPLICATE STORE MAYBE_STORED RETRY MOVED ATTEMPTS REASON,
 * by tabs.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/publisher/event.h"
#include "ingest/publisher.h"

typedef struct setup {
    ingest_publisher_options options;
    unsigned threads, keys, size, bad, linger_ms, close_ms;
    unsigned long events;
    const char *prefix;
} setup;

static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

static void tell(const char *key, const ingest_result *result) {
    pthread_mutex_lock(&output);
    printf("%s\t%s\t%d\t%s\t%llu\t%d\t%s\t%d\t%d\t%d\t%u\t%s\n", result->id, key, result->status,
           result->route, (unsigned long long)result->sequence, result->duplicate, result->store,
           result->maybe_stored, result->retry, result->moved, result->attempts, result->reason);
    pthread_mutex_unlock(&output);
}

static void log_line(void *arg, const char *line) {
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

/* ---- options ------------------------------------------------------------------------------- */

static const char **text_option(ingest_publisher_options *options, const char *name) {
    const struct {
        const char *name, **value;
    } all[] = {
        {"ca_file", &options->ca_file},   {"certificate_file", &options->certificate_file},
        {"key_file", &options->key_file}, {"server_name", &options->server_name},
        {"token", &options->token},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) return all[i].value;
    return NULL;
}

static unsigned *number_option(setup *it, const char *name) {
    const struct {
        const char *name;
        unsigned *value;
    } all[] = {
        {"timeout_ms", &it->options.timeout_ms},
        {"window", &it->options.window},
        {"failover_ms", &it->options.failover_ms},
        {"backoff_first_ms", &it->options.backoff_first_ms},
        {"backoff_last_ms", &it->options.backoff_last_ms},
        {"threads", &it->threads},
        {"keys", &it->keys},
        {"size", &it->size},
        {"bad", &it->bad},
        {"linger_ms", &it->linger_ms},
        {"close_ms", &it->close_ms},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) return all[i].value;
    return NULL;
}

static void set_option(setup *it, char *option) {
    char *value = strchr(option, '=');
    if (!value) exit(64);
    *value++ = '\0';
    const char **text = text_option(&it->options, option);
    unsigned *number = number_option(it, option);
    if (text)
        *text = value;
    else if (number)
        *number = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(option, "events") == 0)
        it->events = strtoul(value, NULL, 10);
    else if (strcmp(option, "window_bytes") == 0)
        it->options.window_bytes = strtoul(value, NULL, 10);
    else if (strcmp(option, "max_event_bytes") == 0)
        it->options.max_event_bytes = strtoul(value, NULL, 10);
    else if (strcmp(option, "prefix") == 0)
        it->prefix = value;
    else if (strcmp(option, "ack") == 0)
        it->options.ack = strcmp(value, "published") == 0 ? INGEST_PUBLISHED : INGEST_PERSISTED;
    else if (strcmp(option, "tls") == 0)
        it->options.tls = true;
    else
        exit(64);
}

/* ---- publish ------------------------------------------------------------------------------- */

static bool given(const char *text) { return text && strcmp(text, "-") != 0; }

static int publish(ingest_publisher *publisher, FILE *input) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, input) > 0) {
        char *rest = line;
        line[strcspn(line, "\n")] = '\0';
        const char *key = strsep(&rest, " "), *id = strsep(&rest, " ");
        const char *operation = strsep(&rest, " ");
        ingest_event *event = ingest_transaction_new("tests", NULL);
        if (given(key)) ingest_event_set_key(event, key);
        if (given(id)) ingest_event_set_id(event, id);
        ingest_operation *op = ingest_event_add(event, operation, NULL);
        if (given(rest)) ingest_operation_data(op, rest);
        ingest_result result;
        (void)ingest_publish(publisher, event, &result);
        tell(key, &result);
        (void)fflush(stdout);
        ingest_event_free(event);
    }
    free(line);
    return 0;
}

/* ---- load ---------------------------------------------------------------------------------- */

typedef struct worker {
    const setup *setup;
    ingest_publisher *publisher;
    unsigned number;
} worker;

static void answered(void *arg, const ingest_result *result) { tell(arg, result); }

/* Events of a key count up from 1: "<prefix>.<key>-<counter>". */
static void load_one(const worker *it, char *key, unsigned long counter, bool bad) {
    char id[160], *text = calloc(1, it->setup->size + 1);
    if (!text) abort();
    memset(text, 'x', it->setup->size);
    (void)snprintf(id, sizeof id, "%s-%lu", key, counter);
    ingest_event *event = ingest_transaction_new("tests", NULL);
    ingest_event_set_key(event, key);
    ingest_event_set_id(event, id);
    ingest_operation *op = ingest_event_add(event, bad ? "no_such_operation" : "create_user", key);
    ingest_operation_set_string(op, "text", text);
    ingest_result result;
    if (ingest_publish_async(it->publisher, event, 600000, answered, key, &result) != INGEST_OK)
        tell(key, &result);
    ingest_event_free(event);
    free(text);
}

static void *work(void *of) {
    const worker *it = of;
    const setup *all = it->setup;
    const unsigned own = all->keys / all->threads;
    char(*keys)[64] = calloc(own + 1, sizeof *keys); /* the callbacks use them: never freed early */
    if (!keys) abort();
    for (unsigned i = 0; i < own; i++)
        (void)snprintf(keys[i], sizeof keys[i], "%s%u.%u", all->prefix, it->number, i);
    (void)snprintf(keys[own], sizeof keys[own], "bad%u", it->number);
    for (unsigned long n = 0; n < all->events / all->threads; n++) {
        load_one(it, keys[n % own], n / own + 1, false);
        if (all->bad && n % all->bad == 0) load_one(it, keys[own], n, true);
        const struct timespec pause = {.tv_sec = all->linger_ms / 1000,
                                       .tv_nsec = all->linger_ms % 1000 * 1000000L};
        if (all->linger_ms) nanosleep(&pause, NULL);
    }
    return keys;
}

static int load(ingest_publisher *publisher, const setup *all) {
    enum { MAX_THREADS = 64 };
    pthread_t threads[MAX_THREADS];
    worker workers[MAX_THREADS];
    void *keys[MAX_THREADS];
    for (unsigned i = 0; i < all->threads; i++) {
        workers[i] = (worker){all, publisher, i};
        if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0) abort();
    }
    for (unsigned i = 0; i < all->threads; i++)
        pthread_join(threads[i], &keys[i]);
    if (!all->close_ms && !ingest_flush(publisher, 600000)) return 1;
    ingest_publisher_stats stats;
    ingest_publisher_stats_get(publisher, &stats);
    fprintf(stderr, "stats published %llu failed %llu retried %llu moved %llu in_flight %u\n",
            (unsigned long long)stats.published, (unsigned long long)stats.failed,
            (unsigned long long)stats.retried, (unsigned long long)stats.moved, stats.in_flight);
    ingest_publisher_close(publisher, all->close_ms);
    for (unsigned i = 0; i < all->threads; i++)
        free(keys[i]);
    return 0;
}

/* ---- json ---------------------------------------------------------------------------------- */

static int json(FILE *input) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, input) > 0) {
        line[strcspn(line, "\n")] = '\0';
        ingest_event *event = ingest_transaction_new("tests", NULL);
        ingest_operation_data(ingest_event_add(event, "create_user", NULL), line);
        if (ingest_event_error(event)) {
            printf("error: %s\n", ingest_event_error(event));
        } else {
            const Google__Protobuf__Struct *data =
                event_message(event)->transaction->operations[0]->data;
            const size_t size = google__protobuf__struct__get_packed_size(data);
            uint8_t *packed = malloc(size + 1);
            if (!packed) abort();
            (void)google__protobuf__struct__pack(data, packed);
            for (size_t i = 0; i < size; i++)
                printf("%02x", packed[i]);
            printf("\n");
            free(packed);
        }
        ingest_event_free(event);
    }
    free(line);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return 64;
    const char *what = argv[argc - 1];
    if (strcmp(what, "json") == 0) return json(stdin);
    setup all = {.threads = 1, .keys = 1, .events = 1, .size = 100, .prefix = "k"};
    ingest_publisher_options_init(&all.options);
    all.options.target = argv[1];
    all.options.log = log_line;
    for (int i = 2; i < argc - 1; i++)
        set_option(&all, argv[i]);
    ingest_error error;
    ingest_publisher *publisher = ingest_publisher_open(&all.options, &error);
    if (!publisher) {
        fprintf(stderr, "refused: %s\n", error.reason);
        return 2;
    }
    if (strcmp(what, "load") == 0) return load(publisher, &all);
    const int code = publish(publisher, stdin);
    ingest_publisher_close(publisher, all.close_ms);
    return code;
}
