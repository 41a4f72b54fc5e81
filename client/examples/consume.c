/*
 * Consumes events and prints each effect: consume BROKERS GROUP TOPIC DIRECTORY
 * ^C ends it: what runs comes to its end, and is recorded.
 */
#include <ingest/consumer.h>
#include <signal.h>
#include <stdio.h>

static ingest_consumer *consumer;

static void on_signal(int number) {
    (void)number;
    ingest_consumer_stop(consumer, 10000); // NOLINT(bugprone-signal-handler): it may be called here
}

static ingest_verdict print(void *arg, const ingest_effect *effect, ingest_trouble *trouble) {
    (void)arg;
    (void)trouble;
    printf("%s: %s of %s: %s\n", effect->idempotency_key, effect->operation, effect->entity_id,
           ingest_effect_json(effect, NULL));
    return fflush(stdout) == 0 ? INGEST_DONE : INGEST_RETRY;
}

int main(int argc, char **argv) {
    ingest_error error;
    ingest_consumer_options options;
    if (argc != 5) {
        fprintf(stderr, "usage: consume BROKERS GROUP TOPIC DIRECTORY\n");
        return 64;
    }
    const char *const topics[] = {argv[3], NULL};
    ingest_consumer_options_init(&options);
    options.brokers = argv[1];
    options.group = argv[2];
    options.topics = topics;
    options.data_dir = argv[4];
    consumer = ingest_consumer_open(&options, &error);
    if (consumer) {
        ingest_consumer_handle(consumer, INGEST_ANY, NULL, print, NULL);
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
    }
    if (!consumer || ingest_consumer_run(consumer, &error) != INGEST_OK) {
        fprintf(stderr, "%s\n", error.reason);
        ingest_consumer_close(consumer);
        return 1;
    }
    ingest_consumer_close(consumer);
    return 0;
}
