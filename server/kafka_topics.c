#include "server/kafka_topics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"
#include "storage/clock.h"

#define ANSWER_MS 10000
#define VISIBLE_MS 5000 /* until a topic just made is known to the brokers */
#define TOPICS_MAX 256  /* of one route; more are not looked after */
#define POSITIONS_PARTITIONS 32
#define POSITIONS_SEGMENT_BYTES "4194304" /* small, so that compaction keeps settling short */
#define SAFE_REPLICAS 3
#define SAFE_MIN_INSYNC 2
#define TRANSACTION_TOPIC "__transaction_state"

typedef struct topic_list {
    const char *names[TOPICS_MAX];
    size_t count;
} topic_list;

static void add(topic_list *list, const char *name) {
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->names[i], name) == 0) return;
    if (list->count < TOPICS_MAX) list->names[list->count++] = name;
}

/* The route's topic, and those that its catalogue entries name. */
static topic_list topics_of(const route_config *route, const catalogue *entries) {
    topic_list list = {.count = 0};
    add(&list, route->topic);
    for (size_t i = 0; entries && i < catalogue_count(entries); i++) {
        const catalogue_entry *entry = catalogue_at(entries, i);
        if (entry->topic && strcmp(entry->route, route->name) == 0) add(&list, entry->topic);
    }
    return list;
}

static bool is_away(rd_kafka_resp_err_t code) {
    return code == RD_KAFKA_RESP_ERR__TIMED_OUT || code == RD_KAFKA_RESP_ERR__TRANSPORT ||
           code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
           code == RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT;
}

/* ---- making them ----------------------------------------------------------------------------- */

static rd_kafka_NewTopic_t *new_topic(const char *name, bool positions, const config *all) {
    int partitions = positions ? POSITIONS_PARTITIONS : (int)all->kafka.topic_partitions;
    int replicas = all->kafka.replication_factor ? (int)all->kafka.replication_factor : -1;
    char text[200];
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(name, partitions, replicas, text, sizeof text);
    if (!topic) {
        log_line(LOG_WARNING, "topic cannot be made", "topic=%s error=%s", name, text);
        return NULL;
    }
    if (positions) {
        rd_kafka_NewTopic_set_config(topic, "cleanup.policy", "compact");
        rd_kafka_NewTopic_set_config(topic, "segment.bytes", POSITIONS_SEGMENT_BYTES);
    }
    return topic;
}

/* Waits until every broker that we ask knows the topic's leaders. */
static void await_visible(rd_kafka_t *rk, const char *name) {
    int64_t deadline = clock_monotonic_ms() + VISIBLE_MS;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
    bool visible = !topic;
    while (!visible && clock_monotonic_ms() < deadline) {
        const rd_kafka_metadata_t *found;
        if (rd_kafka_metadata(rk, 0, topic, &found, VISIBLE_MS)) break;
        visible = found->topic_cnt == 1 && !found->topics[0].err;
        for (int i = 0; visible && i < found->topics[0].partition_cnt; i++)
            visible = found->topics[0].partitions[i].leader >= 0;
        rd_kafka_metadata_destroy(found);
        if (!visible) rd_kafka_poll(rk, 100);
    }
    if (topic) rd_kafka_topic_destroy(topic);
}

/* False when Kafka is away. */
static bool take_created(rd_kafka_t *rk, rd_kafka_event_t *event) {
    const rd_kafka_CreateTopics_result_t *result = rd_kafka_event_CreateTopics_result(event);
    size_t count = 0;
    if (rd_kafka_event_error(event) || !result) {
        if (is_away(rd_kafka_event_error(event))) return false;
        log_line(LOG_WARNING, "topics cannot be made", "error=%s",
                 rd_kafka_event_error_string(event));
        return true;
    }
    const rd_kafka_topic_result_t **topics = rd_kafka_CreateTopics_result_topics(result, &count);
    for (size_t i = 0; i < count; i++) {
        const char *name = rd_kafka_topic_result_name(topics[i]);
        rd_kafka_resp_err_t code = rd_kafka_topic_result_error(topics[i]);
        if (is_away(code)) return false;
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
            log_line(LOG_INFO, "topic made", "topic=%s", name);
            await_visible(rk, name);
        } else if (code != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
            log_line(LOG_WARNING, "topic cannot be made", "topic=%s error=%s", name,
                     rd_kafka_err2str(code));
        }
    }
    return true;
}

static bool make_missing(rd_kafka_t *rk, const topic_list *events, const config *all) {
    rd_kafka_NewTopic_t *topics[TOPICS_MAX + 1];
    size_t count = 0;
    for (size_t i = 0; i < events->count; i++)
        if ((topics[count] = new_topic(events->names[i], false, all))) count++;
    if ((topics[count] = new_topic(all->kafka.positions_topic, true, all))) count++;

    char text[200];
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, ANSWER_MS, text, sizeof text);
    rd_kafka_AdminOptions_set_operation_timeout(options, ANSWER_MS / 2, text, sizeof text);
    rd_kafka_CreateTopics(rk, topics, count, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 2 * ANSWER_MS);
    bool answered = event && take_created(rk, event);
    if (event) rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy_array(topics, count);
    return answered;
}

/* ---- checking them --------------------------------------------------------------------------- */

/* Replicas of the partition that has the fewest; 0 when not known. */
static int replicas_of(rd_kafka_t *rk, const char *name) {
    const rd_kafka_metadata_t *found;
    int least = 0;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
    if (topic && !rd_kafka_metadata(rk, 0, topic, &found, ANSWER_MS)) {
        for (int i = 0; found->topic_cnt == 1 && i < found->topics[0].partition_cnt; i++) {
            int replicas = found->topics[0].partitions[i].replica_cnt;
            if (i == 0 || replicas < least) least = replicas;
        }
        rd_kafka_metadata_destroy(found);
    }
    if (topic) rd_kafka_topic_destroy(topic);
    return least;
}

static const char *entry_value(const rd_kafka_ConfigResource_t *resource, const char *name) {
    size_t count = 0;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(rd_kafka_ConfigEntry_name(entries[i]), name) == 0) {
            const char *value = rd_kafka_ConfigEntry_value(entries[i]);
            return value ? value : "";
        }
    return "";
}

static void check_topic(rd_kafka_t *rk, const rd_kafka_ConfigResource_t *resource,
                        const char *positions_topic) {
    const char *name = rd_kafka_ConfigResource_name(resource);
    rd_kafka_resp_err_t code = rd_kafka_ConfigResource_error(resource);
    if (code) { /* no such topic yet, or no right to ask */
        log_line(LOG_INFO, "topic settings not checked", "topic=%s error=%s", name,
                 rd_kafka_err2str(code));
        return;
    }
    const char *policy = entry_value(resource, "cleanup.policy");
    const char *min_insync = entry_value(resource, "min.insync.replicas");
    const char *unclean = entry_value(resource, "unclean.leader.election.enable");
    int replicas = replicas_of(rk, name);
    if (replicas < SAFE_REPLICAS || strtol(min_insync, NULL, 10) < SAFE_MIN_INSYNC ||
        strcmp(unclean, "true") == 0)
        log_line(LOG_WARNING, "topic may lose what it has committed",
                 "topic=%s replicas=%d min_insync_replicas=%s unclean_leader_election=%s "
                 "advice=%s",
                 name, replicas, min_insync, unclean,
                 "3 replicas, min.insync.replicas 2, no unclean election");
    if (strcmp(name, positions_topic) == 0 && strcmp(policy, "compact") != 0)
        log_line(LOG_ERROR, "positions topic must be compacted, and not deleted from",
                 "topic=%s cleanup_policy=%s advice=%s", name, policy,
                 "set cleanup.policy=compact before positions expire, or routes will halt");
}

static bool check(rd_kafka_t *rk, const topic_list *topics, const char *positions_topic) {
    rd_kafka_ConfigResource_t *resources[TOPICS_MAX];
    char text[200];
    bool answered = false;
    for (size_t i = 0; i < topics->count; i++)
        resources[i] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topics->names[i]);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_AdminOptions_set_request_timeout(options, ANSWER_MS, text, sizeof text);
    rd_kafka_DescribeConfigs(rk, resources, topics->count, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 2 * ANSWER_MS);
    if (event && !rd_kafka_event_error(event)) {
        size_t count = 0;
        const rd_kafka_ConfigResource_t **found = rd_kafka_DescribeConfigs_result_resources(
            rd_kafka_event_DescribeConfigs_result(event), &count);
        for (size_t i = 0; i < count; i++)
            check_topic(rk, found[i], positions_topic);
        answered = true;
    } else if (event && !is_away(rd_kafka_event_error(event))) {
        log_line(LOG_INFO, "topic settings not checked", "error=%s",
                 rd_kafka_event_error_string(event));
        answered = true;
    }
    if (event) rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_ConfigResource_destroy_array(resources, topics->count);
    return answered;
}

bool kafka_topics_prepare(rd_kafka_t *rk, const config *all, const route_config *route,
                          const catalogue *entries) {
    topic_list topics = topics_of(route, entries);
    if (all->kafka.create_topics && !make_missing(rk, &topics, all)) return false;
    if (route == &all->routes[0]) {
        if (topics.count > TOPICS_MAX - 2) topics.count = TOPICS_MAX - 2;
        add(&topics, all->kafka.positions_topic);
        add(&topics, TRANSACTION_TOPIC);
    }
    return check(rk, &topics, all->kafka.positions_topic);
}
