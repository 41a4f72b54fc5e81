/* kafka_record: values, headers and topics of each layout and format, and the size at the door. */
#include "server/kafka_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

static const char CATALOGUE[] = "create_user\ttransaction\tr\t-\tuser\tuser\n"
                                "create_org\ttransaction\tr\torgs\torg\torganisation\n";

typedef struct fixture {
    catalogue *catalogue;
    kafka_record_buffer buffer;
    route_config route;
    uuid store;
    char store_text[UUID_TEXT_SIZE];
    /* the event */
    Ingest__V1__Event event;
    Ingest__V1__Transaction transaction;
    Ingest__V1__Operation operations[3];
    Ingest__V1__Operation *operation_list[3];
    Ingest__V1__Event__AttributesEntry attribute;
    Ingest__V1__Event__AttributesEntry *attribute_list[1];
    Ingest__V1__Informative notice;
    event_record record;
    uint8_t packed[8192];
} fixture;

static void pack(fixture *it) {
    size_t len = ingest__v1__event__get_packed_size(&it->event);
    assert_true(len <= sizeof it->packed);
    ingest__v1__event__pack(&it->event, it->packed);
    it->record.event = bytes_of(it->packed, len);
}

static int begin(void **state) {
    static fixture it;
    memset(&it, 0, sizeof it);
    failure why;
    if (catalogue_parse(bytes_of_string(CATALOGUE), &it.catalogue, &why) != ST_OK) return -1;
    strcpy(it.route.name, "r");
    strcpy(it.route.topic, "ingest.r");
    memset(it.store.octets, 0xab, sizeof it.store.octets);
    uuid_format(&it.store, it.store_text);

    static const char *const NAMES[] = {"create_user", "create_org", "gone_by_now"};
    for (int i = 0; i < 3; i++) {
        ingest__v1__operation__init(&it.operations[i]);
        it.operations[i].name = (char *)NAMES[i];
        it.operation_list[i] = &it.operations[i];
    }
    it.operations[1].payload_case = INGEST__V1__OPERATION__PAYLOAD_RAW;
    it.operations[1].raw = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
    ingest__v1__transaction__init(&it.transaction);
    it.transaction.name = "create_user";
    it.transaction.n_operations = 3;
    it.transaction.operations = it.operation_list;
    ingest__v1__event__attributes_entry__init(&it.attribute);
    it.attribute.key = "tenant";
    it.attribute.value = "t1";
    it.attribute_list[0] = &it.attribute;
    ingest__v1__informative__init(&it.notice);
    it.notice.name = "generate_otp";
    ingest__v1__event__init(&it.event);
    it.event.id = "e1";
    it.event.source = "lms";
    it.event.key = "user-1";
    it.event.n_attributes = 1;
    it.event.attributes = it.attribute_list;
    it.event.body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    it.event.transaction = &it.transaction;
    it.record = (event_record){
        .kind = RECORD_EVENT,
        .sequence = 1234567890123,
        .id = bytes_of_string("e1"),
        .source = bytes_of_string("lms"),
        .key = bytes_of_string("user-1"),
        .type = bytes_of_string("create_user"),
        .time_seconds = 1709210096,
        .time_nanos = 120000000,
        .transaction = true,
        .operations = 3,
    };
    pack(&it);
    *state = &it;
    return 0;
}

static int end(void **state) {
    fixture *it = *state;
    kafka_record_buffer_free(&it->buffer);
    catalogue_free(it->catalogue);
    return 0;
}

static const kafka_record *make(fixture *it, size_t expected) {
    const kafka_record *records;
    size_t count;
    failure why = {0};
    outcome got = kafka_record_make(&it->record, &it->route, it->catalogue, &it->store, &it->buffer,
                                    &records, &count, &why);
    if (got != ST_OK) fail_msg("%s", why.reason);
    assert_int_equal(count, expected);
    return records;
}

static void assert_bytes(bytes got, const char *expected) {
    if (!bytes_equal(got, bytes_of_string(expected)))
        fail_msg("\"%.*s\" is not \"%s\"", (int)got.len, (const char *)got.data, expected);
}

/* `expected`: name and value in turn, ends with NULL. */
static void assert_headers(const kafka_record *record, const char *const *expected) {
    size_t i = 0;
    for (; expected[2 * i]; i++) {
        assert_true(i < record->header_count);
        assert_string_equal(record->headers[i].name, expected[2 * i]);
        assert_bytes(record->headers[i].value, expected[2 * i + 1]);
    }
    assert_int_equal(record->header_count, i);
}

static void whole_protobuf_is_the_stored_event(void **state) {
    fixture *it = *state;
    const kafka_record *record = make(it, 1);
    assert_string_equal(record->topic, "ingest.r");
    assert_bytes(record->key, "user-1");
    assert_ptr_equal(record->value.data, it->packed);
    assert_int_equal(record->value.len, it->record.event.len);
    assert_headers(record,
                   (const char *[]){"ce_specversion", "1.0", "ce_id", "e1", "ce_source", "lms",
                                    "ce_type", "create_user", "ce_time", "2024-02-29T12:34:56.120Z",
                                    "content-type", "application/protobuf", "ce_sequence",
                                    "1234567890123", "ce_storeid", it->store_text, NULL});

    /* It is not even decoded. */
    it->record.event = bytes_of("\xff\xff", 2);
    it->record.traceparent = bytes_of_string("00-1-2-01");
    it->record.tracestate = bytes_of_string("a=b");
    record = make(it, 1);
    assert_int_equal(record->value.len, 2);
    assert_int_equal(record->header_count, 10);
    assert_string_equal(record->headers[8].name, "traceparent");
    assert_bytes(record->headers[8].value, "00-1-2-01");
    assert_string_equal(record->headers[9].name, "tracestate");
}

static void whole_json(void **state) {
    fixture *it = *state;
    it->route.format = FORMAT_JSON;
    const kafka_record *record = make(it, 1);
    assert_bytes(record->value,
                 "{\"id\":\"e1\",\"source\":\"lms\",\"key\":\"user-1\",\"attributes\":{\"tenant\":"
                 "\"t1\"},\"transaction\":{\"name\":\"create_user\",\"operations\":[{\"name\":"
                 "\"create_user\"},{\"name\":\"create_org\",\"raw\":\"YWJj\"},{\"name\":"
                 "\"gone_by_now\"}]}}");
    assert_bytes(record->headers[5].value, "application/json");

    /* Longer than its first guess: control characters grow six times. */
    char id[201];
    memset(id, 1, sizeof id - 1);
    id[200] = '\0';
    it->event.id = id;
    it->event.transaction->n_operations = 1;
    pack(it);
    record = make(it, 1);
    assert_true(record->value.len > 1200);
    assert_memory_equal(record->value.data + record->value.len - 4, "}]}}", 4);
}

static void split(void **state) {
    fixture *it = *state;
    it->route.layout = LAYOUT_SPLIT;
    for (int json = 0; json < 2; json++) {
        it->route.format = json ? FORMAT_JSON : FORMAT_PROTOBUF;
        const kafka_record *records = make(it, 3);
        static const char *const TOPICS[] = {"ingest.r", "orgs", "ingest.r"};
        for (size_t i = 0; i < 3; i++) {
            char id[32], index[32];
            (void)snprintf(id, sizeof id, "e1/%zu", i);
            (void)snprintf(index, sizeof index, "%zu", i);
            assert_string_equal(records[i].topic, TOPICS[i]);
            assert_bytes(records[i].key, "user-1");
            assert_headers(&records[i],
                           (const char *[]){"ce_specversion",
                                            "1.0",
                                            "ce_id",
                                            id,
                                            "ce_source",
                                            "lms",
                                            "ce_type",
                                            "create_user",
                                            "ce_time",
                                            "2024-02-29T12:34:56.120Z",
                                            "content-type",
                                            json ? "application/json" : "application/protobuf",
                                            "ce_sequence",
                                            "1234567890123",
                                            "ce_storeid",
                                            it->store_text,
                                            "ce_groupid",
                                            "e1",
                                            "ce_groupindex",
                                            index,
                                            "ce_groupsize",
                                            "3",
                                            NULL});
        }
        if (json) {
            assert_bytes(records[1].value,
                         "{\"id\":\"e1\",\"source\":\"lms\",\"key\":\"user-1\",\"attributes\":{"
                         "\"tenant\":\"t1\"},\"transaction\":{\"name\":\"create_user\","
                         "\"operations\":[{\"name\":\"create_org\",\"raw\":\"YWJj\"}]}}");
            continue;
        }
        Ingest__V1__Event *part =
            ingest__v1__event__unpack(NULL, records[1].value.len, records[1].value.data);
        assert_non_null(part);
        assert_string_equal(part->id, "e1");
        assert_string_equal(part->attributes[0]->value, "t1");
        assert_string_equal(part->transaction->name, "create_user");
        assert_int_equal(part->transaction->n_operations, 1);
        assert_string_equal(part->transaction->operations[0]->name, "create_org");
        assert_memory_equal(part->transaction->operations[0]->raw.data, "abc", 3);
        ingest__v1__event__free_unpacked(part, NULL);
    }
}

static void an_informative_event_is_never_split(void **state) {
    fixture *it = *state;
    it->route.layout = LAYOUT_SPLIT;
    it->event.body_case = INGEST__V1__EVENT__BODY_INFORMATIVE;
    it->event.informative = &it->notice;
    it->record.transaction = false;
    it->record.operations = 0;
    pack(it);
    const kafka_record *record = make(it, 1);
    assert_ptr_equal(record->value.data, it->packed);
    assert_int_equal(record->header_count, 8);
    it->route.format = FORMAT_JSON;
    record = make(it, 1);
    assert_non_null(memmem(record->value.data, record->value.len, "\"informative\":{", 15));
}

static void damage_is_told(void **state) {
    fixture *it = *state;
    it->route.format = FORMAT_JSON;
    const kafka_record *records;
    size_t count;
    failure why;
    it->record.event = bytes_of("\xff\xff", 2);
    assert_int_equal(kafka_record_make(&it->record, &it->route, it->catalogue, &it->store,
                                       &it->buffer, &records, &count, &why),
                     ST_CORRUPT);
    it->record.event = bytes_of(NULL, 0); /* decodes, but holds no transaction */
    assert_int_equal(kafka_record_make(&it->record, &it->route, it->catalogue, &it->store,
                                       &it->buffer, &records, &count, &why),
                     ST_CORRUPT);
    assert_non_null(strstr(why.reason, "1234567890123"));
}

static size_t varint(size_t value) {
    size_t size = 1;
    for (value *= 2; value >= 128; value /= 128)
        size++;
    return size;
}

/* A record alone in a batch, as the broker has it. */
static size_t size_in_kafka(const kafka_record *record) {
    size_t body = 1 + 1 + 1 + varint(record->key.len) + record->key.len +
                  varint(record->value.len) + record->value.len + varint(record->header_count);
    for (size_t i = 0; i < record->header_count; i++) {
        size_t name = strlen(record->headers[i].name), value = record->headers[i].value.len;
        body += varint(name) + name + varint(value) + value;
    }
    return 61 + varint(body) + body;
}

static void the_size_at_the_door(void **state) {
    fixture *it = *state;
    static uint8_t raw[6000];
    it->record.traceparent = bytes_of_string("00-1-2-01");
    for (size_t i = 0; i < 60; i++) {
        it->operations[i % 3].payload_case = INGEST__V1__OPERATION__PAYLOAD_RAW;
        it->operations[i % 3].raw = (ProtobufCBinaryData){(i * 97) % 1500, raw};
        pack(it);
        for (int kind = 0; kind < 4; kind++) {
            it->route.layout = kind & 1 ? LAYOUT_SPLIT : LAYOUT_WHOLE;
            it->route.format = kind & 2 ? FORMAT_JSON : FORMAT_PROTOBUF;
            size_t count = kind & 1 ? 3 : 1, largest = 0;
            const kafka_record *records = make(it, count);
            for (size_t k = 0; k < count; k++) {
                size_t size = size_in_kafka(&records[k]);
                if (size > largest) largest = size;
            }
            uint64_t sequence = it->record.sequence;
            it->record.sequence = 0; /* not known at the door */
            size_t bound = kafka_record_max_size(&it->record, &it->event, &it->route);
            it->record.sequence = sequence;
            if (bound < largest || bound > largest + 160)
                fail_msg("%zu for %zu, kind %d", bound, largest, kind);
        }
    }
}

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        cmocka_unit_test_setup_teardown(whole_protobuf_is_the_stored_event, begin, end),
        cmocka_unit_test_setup_teardown(whole_json, begin, end),
        cmocka_unit_test_setup_teardown(split, begin, end),
        cmocka_unit_test_setup_teardown(an_informative_event_is_never_split, begin, end),
        cmocka_unit_test_setup_teardown(damage_is_told, begin, end),
        cmocka_unit_test_setup_teardown(the_size_at_the_door, begin, end),
    };
    return cmocka_run_group_tests_name("kafka_record", TESTS, NULL, NULL);
}
