#include "server/trial.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>

#define BROKERS 1

struct trial_kafka {
    rd_kafka_t *host; /* the handle whose threads the mock runs on */
    rd_kafka_mock_cluster_t *cluster;
};

outcome trial_kafka_start(const char *const *topics, size_t topic_count, int partitions,
                          trial_kafka **out, failure *why) {
    char text[200] = "out of memory";
    trial_kafka *it = calloc(1, sizeof *it);
    if (!it) return fail(why, ST_NO_MEMORY, "", "%s", text);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    (void)rd_kafka_conf_set(conf, "log_level", "2", text, sizeof text); /* it has no brokers */
    it->host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    if (!it->host)
        rd_kafka_conf_destroy(conf);
    else
        it->cluster = rd_kafka_mock_cluster_new(it->host, BROKERS);
    if (!it->cluster) goto failed;
    for (size_t i = 0; i < topic_count; i++) {
        rd_kafka_resp_err_t code =
            rd_kafka_mock_topic_create(it->cluster, topics[i], partitions, BROKERS);
        if (!code) continue;
        snprintf(text, sizeof text, "topic %s: %s", topics[i], rd_kafka_err2str(code));
        goto failed;
    }
    *out = it;
    return ST_OK;
failed:
    trial_kafka_stop(it);
    return fail(why, ST_INTERNAL, "", "the trial's Kafka cannot start: %s", text);
}

const char *trial_kafka_brokers(const trial_kafka *it) {
    return rd_kafka_mock_cluster_bootstraps(it->cluster);
}

void trial_kafka_stop(trial_kafka *it) {
    if (!it) return;
    if (it->cluster) rd_kafka_mock_cluster_destroy(it->cluster);
    if (it->host) rd_kafka_destroy(it->host);
    free(it);
}
