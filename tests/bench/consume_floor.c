/*
 * The floor: a bare librdkafka consumer, read_committed, that counts records and commits by itself.
 *
 *   consume_floor BROKERS GROUP TOPIC COUNT
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>

#include "storage/clock.h"

enum { BATCH = 1000 };

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char text[200];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text)) {
        (void)fprintf(stderr, "%s\n", text);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 5) return fprintf(stderr, "consume_floor BROKERS GROUP TOPIC COUNT\n"), 2;
    const unsigned long count = strtoul(argv[4], NULL, 10);
    char text[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", argv[1]);
    set(conf, "group.id", argv[2]);
    set(conf, "isolation.level", "read_committed");
    set(conf, "auto.offset.reset", "earliest");
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    if (!rk) return fprintf(stderr, "%s\n", text), 1;
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, argv[3], RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(rk, topics);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(rk);
    int64_t first_us = 0;
    for (unsigned long seen = 0; seen < count;) {
        rd_kafka_message_t *batch[BATCH];
        const ssize_t got = rd_kafka_consume_batch_queue(queue, 1000, batch, BATCH);
        for (ssize_t i = 0; i < got; i++) {
            seen += !batch[i]->err;
            rd_kafka_message_destroy(batch[i]);
        }
        if (!first_us && seen) first_us = clock_monotonic_us();
    }
    printf("%lu records in %.6f s\n", count, (double)(clock_monotonic_us() - first_us) / 1e6);
    rd_kafka_queue_destroy(queue);
    rd_kafka_topic_partition_list_destroy(topics);
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return 0;
}
