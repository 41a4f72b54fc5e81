/*
 * A worker that does what the catalogue says: documents into a search index, rows into tables. An
 * operation without either is only told of, as is an informative event.
 *
 *   worker BROKERS GROUP DIRECTORY http://INDEX_HOST:PORT TABLE_HOST:PORT TOPIC... [NAME=VALUE...]
 *
 * NAME=VALUE is for librdkafka; with a group.instance.id that lasts, such as its pod's name, a
 * member that comes back has its partitions at once (but see `properties` in ingest/consumer.h).
 *
 * Every write is idempotent (document_index.h, table_store.h), so an effect that is run again after
 * a crash does no harm. ^C ends it: what runs comes to its end, and is recorded.
 */
#include <curl/curl.h>
#include <ingest/consumer.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "document_index.h"
#include "table_store.h"

enum { WORKERS = 8, GRACE_MS = 15000, USAGE = 64, OPERANDS_MAX = 64 };

static ingest_consumer *consumer;

static void on_signal(int number) {
    (void)number;
    // NOLINTNEXTLINE(bugprone-signal-handler): it may be called here
    ingest_consumer_stop(consumer, GRACE_MS);
}

static ingest_verdict tell(void *arg, const ingest_effect *effect, ingest_trouble *trouble) {
    (void)arg, (void)trouble;
    (void)fprintf(stderr, "%s of %s\n", effect->name, effect->event_id);
    return INGEST_DONE;
}

static void on_alarm(void *arg, ingest_alarm what, const char *text) {
    (void)arg, (void)what;
    (void)fprintf(stderr, "%s\n", text);
}

static int work(const ingest_consumer_options *options, document_index *index,
                table_store *tables) {
    ingest_error error;
    consumer = ingest_consumer_open(options, &error);
    if (consumer) {
        ingest_consumer_handle(consumer, INGEST_INDEX, NULL, document_index_put, index);
        ingest_consumer_handle(consumer, INGEST_TABLE, NULL, table_store_put, tables);
        ingest_consumer_handle(consumer, INGEST_ANY, NULL, tell, NULL);
        (void)signal(SIGINT, on_signal);
        (void)signal(SIGTERM, on_signal);
    }
    const bool good = consumer && ingest_consumer_run(consumer, &error) == INGEST_OK;
    if (!good) (void)fprintf(stderr, "%s\n", error.reason);
    ingest_consumer_close(consumer);
    return good ? 0 : 1;
}

/* Topics, and properties as names and values in turn; both end with NULL. The number of topics. */
static int split(char **operands, const char **topics, const char **properties) {
    int topic_count = 0, property_count = 0;
    for (; *operands; operands++) {
        char *value = strchr(*operands, '=');
        if (value) *value++ = '\0';
        if (value) properties[property_count++] = *operands;
        if (value) properties[property_count++] = value;
        if (!value) topics[topic_count++] = *operands;
    }
    topics[topic_count] = properties[property_count] = NULL;
    return topic_count;
}

int main(int argc, char **argv) {
    const char *topics[OPERANDS_MAX + 1], *properties[2 * OPERANDS_MAX + 1];
    const bool enough = argc > 6 && argc - 6 <= OPERANDS_MAX;
    const int topic_count = enough ? split(argv + 6, topics, properties) : 0;
    if (topic_count == 0) {
        (void)fprintf(stderr, "usage: worker BROKERS GROUP DIRECTORY INDEX_URL TABLES TOPIC... "
                              "[NAME=VALUE...]\n");
        return USAGE;
    }
    const ingest_retry_policy patient = {
        .attempts = 20, .backoff_ms = 200, .backoff_last_ms = 30000};
    ingest_consumer_options options;
    ingest_consumer_options_init(&options);
    options.brokers = argv[1];
    options.group = argv[2];
    options.data_dir = argv[3];
    options.topics = topics;
    options.properties = properties;
    options.groups_span_topics = topic_count > 1;
    options.workers = WORKERS;
    options.policies = &patient;
    options.policy_count = 1;
    options.alarm = on_alarm;
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    document_index *index = document_index_new(argv[4]);
    table_store *tables = table_store_new(argv[5], "ingest");
    const int code = work(&options, index, tables);
    table_store_free(tables);
    document_index_free(index);
    curl_global_cleanup();
    return code;
}
