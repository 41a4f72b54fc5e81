/*
 * The floor: a bare idempotent librdkafka producer, without store and transactions, that sends
 * the same records as the publisher. Prints events/s.
 *
 *   kafka_floor BROKERS TOPIC COUNT SIZE
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/clock.h"

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char text[200];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text)) {
        fprintf(stderr, "%s\n", text);
        exit(1);
    }
}

static unsigned long failures;

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    (void)rk, (void)opaque;
    if (message->err) failures++;
}

int main(int argc, char **argv) {
    if (argc < 5) return fprintf(stderr, "kafka_floor BROKERS TOPIC COUNT SIZE\n"), 2;
    unsigned long count = strtoul(argv[3], NULL, 10);
    size_t size = strtoul(argv[4], NULL, 10);
    char text[200], key[32];
    unsigned char *body = malloc(size);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", argv[1]);
    set(conf, "enable.idempotence", "true");
    set(conf, "partitioner", "murmur2_random");
    set(conf, "compression.type", "lz4");
    set(conf, "linger.ms", "5");
    set(conf, "queue.buffering.max.messages", "500000");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, argv[2], NULL);
    const rd_kafka_metadata_t *known;
    if (rd_kafka_metadata(rk, 0, topic, &known, 10000) == 0) rd_kafka_metadata_destroy(known);

    int64_t started = clock_monotonic_us();
    for (unsigned long number = 0; number < count; number++) {
        int length =
            snprintf(key, sizeof key, "%llx-%lx", (unsigned long long)clock_wall_ms(), number);
        for (size_t i = 0; i < size; i++)
            body[i] = (unsigned char)((number * 31 + i * (i ^ number)) >> 3);
        static const char *const NAMES[] = {"ce_specversion", "ce_id",     "ce_source",
                                            "ce_type",        "ce_time",   "content-type",
                                            "ce_sequence",    "ce_storeid"};
        static const char *const VALUES[] = {"1.0",
                                             NULL,
                                             "bench",
                                             "create_user",
                                             "2026-01-01T00:00:00Z",
                                             "application/protobuf",
                                             "1234567",
                                             "0d9d9f0e-8a8e-4b0e-9b0e-8a8e4b0e9b0e"};
        rd_kafka_headers_t *headers = rd_kafka_headers_new(8);
        for (size_t i = 0; i < 8; i++)
            rd_kafka_header_add(headers, NAMES[i], -1, VALUES[i] ? VALUES[i] : key, -1);
        while (rd_kafka_producev(rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_KEY(key, (size_t)length),
                                 RD_KAFKA_V_VALUE(body, size), RD_KAFKA_V_HEADERS(headers),
                                 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END))
            rd_kafka_poll(rk, 10);
    }
    rd_kafka_flush(rk, 60000);
    printf("bare idempotent producer %.0f events/s, %lu failed\n",
           count * 1e6 / (clock_monotonic_us() - started), failures);
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(rk);
    free(body);
    return 0;
}
