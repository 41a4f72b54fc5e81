/*
 * ingestctl tail: follows the topics, as a read_committed consumer sees them. Assigned by hand, in
 * no group and committing nothing, so that nobody is disturbed. One thread.
 */
#include <librdkafka/rdkafka.h>
#include <string.h>

#include "client/ingestctl/kafka_options.h"
#include "client/ingestctl/output.h"
#include "client/ingestctl/stop.h"
#include "ingest/v1/events.pb-c.h"
#include "storage/utf8.h"

enum { METADATA_MS = 10000, POLL_MS = 200, TOPICS_MAX = 64 };

typedef struct follower {
    const arguments *given;
    rd_kafka_t *consumer;
    char *topics[TOPICS_MAX]; /* borrowed */
    size_t topic_count;
    uint64_t left; /* records to be shown */
} follower;

/* ---- a record ------------------------------------------------------------------------------ */

static bytes header_of(const rd_kafka_headers_t *all, const char *name) {
    const void *value;
    size_t size;
    if (!all || rd_kafka_header_get_last(all, name, &value, &size)) return bytes_of(NULL, 0);
    return bytes_of(value, size);
}

/* JSON as a line of its own may hold it. */
static bool is_json(bytes value, bytes content_type) {
    const bytes json = bytes_of_string("application/json");
    if (content_type.len < json.len || memcmp(content_type.data, json.data, json.len) != 0)
        return false;
    if (utf8_prefix(value) < value.len) return false;
    for (size_t i = 0; i < value.len; i++)
        if (value.data[i] < 0x20 || value.data[i] == 0x7f) return false;
    return true;
}

/* What stands in the record: JSON as it is, an event in protobuf as JSON, other bytes as text. */
static void print_value(bytes value, bytes content_type) {
    Ingest__V1__Event *event = NULL;
    if (!value.data) {
        (void)fputs("null", stdout);
    } else if (is_json(value, content_type)) {
        (void)fwrite(value.data, 1, value.len, stdout);
    } else if ((event = ingest__v1__event__unpack(NULL, value.len, value.data)) != NULL) {
        print_message_json(stdout, &event->base);
        ingest__v1__event__free_unpacked(event, NULL);
    } else {
        print_json_bytes(stdout, value);
    }
}

static void print_named(const char *name, bytes text) {
    (void)printf("%s=", name);
    print_plain(stdout, text);
    (void)putchar(' ');
}

static void print_for_people(const rd_kafka_message_t *it, const rd_kafka_headers_t *headers) {
    const bytes group = header_of(headers, "ce_groupid");
    const int64_t ms = rd_kafka_message_timestamp(it, NULL);
    const Google__Protobuf__Timestamp time = {.seconds = ms / 1000,
                                              .nanos = (int32_t)(ms % 1000) * 1000000};
    (void)printf("%s %s/%d@%lld ", time_text(&time), rd_kafka_topic_name(it->rkt), it->partition,
                 (long long)it->offset);
    print_plain(stdout, header_of(headers, "ce_type"));
    (void)putchar(' ');
    print_named("id", header_of(headers, "ce_id"));
    print_named("key", bytes_of(it->key, it->key_len));
    if (group.data) {
        print_named("group", group);
        print_named("index", header_of(headers, "ce_groupindex"));
        print_named("of", header_of(headers, "ce_groupsize"));
    }
    print_value(bytes_of(it->payload, it->len), header_of(headers, "content-type"));
    (void)putchar('\n');
}

static void print_json(const rd_kafka_message_t *it, const rd_kafka_headers_t *headers) {
    const char *name;
    const void *value;
    size_t size;
    (void)printf("{\"topic\":\"%s\",\"partition\":%d,\"offset\":%lld,\"timestampMs\":%lld,\"key\":",
                 rd_kafka_topic_name(it->rkt), it->partition, (long long)it->offset,
                 (long long)rd_kafka_message_timestamp(it, NULL));
    print_json_bytes(stdout, bytes_of(it->key, it->key_len));
    (void)printf(",\"headers\":{");
    for (size_t i = 0; headers && !rd_kafka_header_get_all(headers, i, &name, &value, &size); i++) {
        if (i) (void)putchar(',');
        print_json_text(stdout, name);
        (void)putchar(':');
        print_json_bytes(stdout, bytes_of(value, size));
    }
    (void)printf("},\"value\":");
    print_value(bytes_of(it->payload, it->len), header_of(headers, "content-type"));
    (void)printf("}\n");
}

static void show(follower *it, const rd_kafka_message_t *record) {
    rd_kafka_headers_t *headers = NULL;
    (void)rd_kafka_message_headers(record, &headers);
    if (flag(it->given, "json"))
        print_json(record, headers);
    else
        print_for_people(record, headers);
    (void)fflush(stdout);
    it->left--;
}

/* ---- following ----------------------------------------------------------------------------- */

static bool set(const follower *it, rd_kafka_conf_t *conf, const char *name, const char *value) {
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) == RD_KAFKA_CONF_OK) return true;
    return complain(it->given, 0, "%s: %s", name, why);
}

static bool set_given(const follower *it, rd_kafka_conf_t *conf) {
    kafka_properties properties;
    bool good = kafka_properties_of(it->given, &properties);
    for (const char *const *each = properties.list; good && *each; each += 2)
        good = set(it, conf, each[0], each[1]);
    kafka_properties_free(&properties);
    return good;
}

static bool open_consumer(follower *it) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char why[512];
    if (set(it, conf, "bootstrap.servers", kafka_brokers(it->given)) &&
        set(it, conf, "group.id", "ingestctl-tail") && /* demanded, and never joined */
        set(it, conf, "enable.auto.commit", "false") &&
        set(it, conf, "isolation.level", "read_committed") && set_given(it, conf))
        it->consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    else
        return rd_kafka_conf_destroy(conf), false;
    if (it->consumer) return rd_kafka_poll_set_consumer(it->consumer), true;
    rd_kafka_conf_destroy(conf);
    return complain(it->given, 0, "%s", why);
}

/* The partitions of a topic into the list. */
static int add_topic(const follower *it, rd_kafka_topic_partition_list_t *list, const char *name) {
    const int64_t from =
        flag(it->given, "from-beginning") ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END;
    const struct rd_kafka_metadata *found;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(it->consumer, name, NULL);
    rd_kafka_resp_err_t error = rd_kafka_metadata(it->consumer, 0, topic, &found, METADATA_MS);
    rd_kafka_topic_destroy(topic);
    if (error)
        return complain(it->given, EX_UNAVAILABLE, "Kafka cannot be reached: %s",
                        rd_kafka_err2str(error));
    error = found->topics[0].err;
    for (int i = 0; i < found->topics[0].partition_cnt; i++)
        rd_kafka_topic_partition_list_add(list, name, found->topics[0].partitions[i].id)->offset =
            from;
    rd_kafka_metadata_destroy(found);
    if (!error) return EX_OK;
    return complain(it->given, EX_NOINPUT, "topic %s: %s", name, rd_kafka_err2str(error));
}

static int assign(const follower *it) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
    int code = EX_OK;
    for (size_t i = 0; code == EX_OK && i < it->topic_count; i++)
        code = add_topic(it, list, it->topics[i]);
    if (code == EX_OK && rd_kafka_assign(it->consumer, list)) code = EX_SOFTWARE;
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

static int follow(follower *it) {
    while (it->left > 0 && !stop_asked() && !ferror(stdout)) {
        rd_kafka_message_t *record = rd_kafka_consumer_poll(it->consumer, POLL_MS);
        if (!record) continue;
        if (!record->err)
            show(it, record);
        else
            (void)complain(it->given, 0, "%s", rd_kafka_message_errstr(record));
        rd_kafka_message_destroy(record);
    }
    return EX_OK;
}

static int run(const arguments *given) {
    static char *usual[] = {"ingest.transactions", "ingest.informative"};
    follower it = {.given = given};
    if (given->operand_count > TOPICS_MAX) return complain(given, EX_USAGE, "too many topics");
    if (!argument_number(given, "count", UINT64_MAX, 1, UINT64_MAX, &it.left)) return EX_USAGE;
    it.topic_count = given->operand_count ? (size_t)given->operand_count : 2;
    memcpy(it.topics, given->operand_count ? given->operands : usual,
           it.topic_count * sizeof *it.topics);
    stop_on_signals();
    if (!open_consumer(&it)) return EX_USAGE;
    int code = assign(&it);
    if (code == EX_OK) code = follow(&it);
    (void)rd_kafka_consumer_close(it.consumer);
    rd_kafka_destroy(it.consumer);
    return code;
}

static const command_option OPTIONS[] = {
    KAFKA_OPTION,
    {"from-beginning", NULL, "all that is there, not only what comes from now on"},
    {"count", "N", "ends after so many records"},
    KAFKA_SET_OPTION,
    {"json", NULL, "a line of JSON for each, with all headers"},
    {0}};

const command COMMAND_TAIL = {
    .group = "",
    .name = "tail",
    .operands = "[TOPIC...]",
    .most = -1,
    .summary = "follow the topics in Kafka, as their consumers see them",
    .help =
        "Prints what is committed to the topics (default: ingest.transactions and\n"
        "ingest.informative), a line for each record: time, place, type, id, key, the group of\n"
        "a split transaction, and the value. Until ^C.",
    .example = "  ingestctl tail --kafka kafka-1:9092 --from-beginning --count 10",
    .options = OPTIONS,
    .run = run,
};
