/* event_json: fixed vectors; what google.protobuf's own json_format makes of the same messages. */
#include "server/event_json.h"

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

static void assert_json(const Ingest__V1__Event *event, const char *expected) {
    char text[4096];
    size_t len = event_json_write(event, NULL, 0);
    assert_true(len < sizeof text);
    assert_int_equal(event_json_write(event, text, sizeof text), len);
    text[len] = '\0';
    assert_string_equal(text, expected);
    /* Cut anywhere: the size stays, and not a byte past the end is touched. */
    for (size_t capacity = 0; capacity <= len; capacity++) {
        char *small = malloc(capacity + 1);
        small[capacity] = '#';
        assert_int_equal(event_json_write(event, small, capacity), len);
        assert_memory_equal(small, expected, capacity);
        assert_int_equal(small[capacity], '#');
        free(small);
    }
}

static void empty(void **state) {
    (void)state;
    Ingest__V1__Event event = INGEST__V1__EVENT__INIT;
    assert_json(&event, "{}");
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Ingest__V1__Informative notice = INGEST__V1__INFORMATIVE__INIT;
    event.time = &time;
    event.body_case = INGEST__V1__EVENT__BODY_INFORMATIVE;
    event.informative = &notice;
    assert_json(&event, "{\"time\":\"1970-01-01T00:00:00Z\",\"informative\":{}}");
    notice.payload_case = INGEST__V1__INFORMATIVE__PAYLOAD_RAW; /* set, though empty */
    assert_json(&event, "{\"time\":\"1970-01-01T00:00:00Z\",\"informative\":{\"raw\":\"\"}}");
    Ingest__V1__Transaction transaction = INGEST__V1__TRANSACTION__INIT;
    event.time = NULL;
    event.body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    event.transaction = &transaction;
    assert_json(&event, "{\"transaction\":{}}");
}

static void every_field(void **state) {
    (void)state;
    Google__Protobuf__Value values[8];
    Google__Protobuf__Value *items[8];
    for (int i = 0; i < 8; i++) {
        google__protobuf__value__init(&values[i]);
        items[i] = &values[i];
    }
    values[0].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
    values[1].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    values[1].number_value = 1.5;
    values[2].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    values[2].string_value = "";
    values[3].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
    values[3].bool_value = 1;
    values[4].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
    Google__Protobuf__ListValue inner = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    values[5].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    values[5].list_value = &inner;
    Google__Protobuf__Struct none = GOOGLE__PROTOBUF__STRUCT__INIT;
    values[6].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    values[6].struct_value = &none;
    Google__Protobuf__ListValue list = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    list.n_values = 8; /* the last has no kind */
    list.values = items;

    Google__Protobuf__Value all = GOOGLE__PROTOBUF__VALUE__INIT;
    all.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    all.list_value = &list;
    Google__Protobuf__Struct__FieldsEntry field = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    field.key = "a";
    field.value = &all;
    Google__Protobuf__Struct__FieldsEntry *fields[] = {&field};
    Google__Protobuf__Struct data = GOOGLE__PROTOBUF__STRUCT__INIT;
    data.n_fields = 1;
    data.fields = fields;

    Ingest__V1__Operation first = INGEST__V1__OPERATION__INIT;
    first.name = "create_user";
    first.entity_id = "u1";
    first.payload_case = INGEST__V1__OPERATION__PAYLOAD_DATA;
    first.data = &data;
    Ingest__V1__Operation second = INGEST__V1__OPERATION__INIT;
    uint8_t raw[] = {0xff, 0xef, 0xbe, 0x00};
    second.payload_case = INGEST__V1__OPERATION__PAYLOAD_RAW;
    second.raw = (ProtobufCBinaryData){sizeof raw, raw};
    Ingest__V1__Operation *operations[] = {&first, &second};
    Ingest__V1__Transaction transaction = INGEST__V1__TRANSACTION__INIT;
    transaction.name = "create_user";
    transaction.n_operations = 2;
    transaction.operations = operations;

    Ingest__V1__Event__AttributesEntry attributes[2];
    Ingest__V1__Event__AttributesEntry *entries[] = {&attributes[0], &attributes[1]};
    for (int i = 0; i < 2; i++)
        ingest__v1__event__attributes_entry__init(entries[i]);
    attributes[0].key = "x";
    attributes[0].value = "1";
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    time.seconds = 1709210096;
    time.nanos = 120000;
    Ingest__V1__Event event = INGEST__V1__EVENT__INIT;
    event.id = "i\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9\xe2\x80\xa8<";
    event.source = "s";
    event.key = "k";
    event.time = &time;
    event.n_attributes = 2;
    event.attributes = entries;
    event.body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    event.transaction = &transaction;
    assert_json(&event,
                "{\"id\":\"i\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\xe2\x80\xa8<\","
                "\"source\":\"s\",\"key\":\"k\",\"time\":\"2024-02-29T12:34:56.000120Z\","
                "\"attributes\":{\"x\":\"1\",\"\":\"\"},\"transaction\":{\"name\":\"create_user\","
                "\"operations\":[{\"name\":\"create_user\",\"entityId\":\"u1\",\"data\":{\"a\":"
                "[null,1.5,\"\",true,false,[],{},null]}},{\"raw\":\"/+++AA==\"}]}}");
}

static void assert_number(double value, const char *expected) {
    Google__Protobuf__Value number = GOOGLE__PROTOBUF__VALUE__INIT;
    number.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    number.number_value = value;
    Google__Protobuf__Struct__FieldsEntry field = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    field.key = "n";
    field.value = &number;
    Google__Protobuf__Struct__FieldsEntry *fields[] = {&field};
    Google__Protobuf__Struct data = GOOGLE__PROTOBUF__STRUCT__INIT;
    data.n_fields = 1;
    data.fields = fields;
    Ingest__V1__Informative notice = INGEST__V1__INFORMATIVE__INIT;
    notice.payload_case = INGEST__V1__INFORMATIVE__PAYLOAD_DATA;
    notice.data = &data;
    Ingest__V1__Event event = INGEST__V1__EVENT__INIT;
    event.body_case = INGEST__V1__EVENT__BODY_INFORMATIVE;
    event.informative = &notice;
    char text[128];
    (void)snprintf(text, sizeof text, "{\"informative\":{\"data\":{\"n\":%s}}}", expected);
    assert_json(&event, text);
}

static void numbers(void **state) {
    (void)state;
    assert_number(0, "0");
    assert_number(-0.0, "-0.0");
    assert_number(42, "42");
    assert_number(-9007199254740991, "-9007199254740991");
    assert_number(9007199254740992, "9007199254740992");
    assert_number(0.1, "0.1");
    assert_number(0.1 + 0.2, "0.30000000000000004");
    assert_number(1.0 / 3, "0.3333333333333333");
    assert_number(1e21, "1e+21");
    assert_number(-1.5e-7, "-1.5e-07");
    assert_number(1.7976931348623157e308, "1.7976931348623157e+308");
    assert_number(5e-324, "4.94065645841247e-324");
    assert_number(NAN, "null");
}

/* Only where such a locale is installed; LOCPATH may name a folder of them. */
static void a_locale_with_another_decimal_point(void **state) {
    (void)state;
    static const char *const LOCALES[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "ps_AF.UTF-8"};
    for (size_t i = 0; i < sizeof LOCALES / sizeof *LOCALES; i++) {
        if (!setlocale(LC_NUMERIC, LOCALES[i])) continue;
        print_message("%s\n", LOCALES[i]);
        assert_number(1.5, "1.5");
        assert_number(-1.25e-300, "-1.25e-300");
        assert_number(1e21, "1e+21");
    }
    setlocale(LC_NUMERIC, "C");
}

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        cmocka_unit_test(empty),
        cmocka_unit_test(every_field),
        cmocka_unit_test(numbers),
        cmocka_unit_test(a_locale_with_another_decimal_point),
    };
    return cmocka_run_group_tests_name("event_json", TESTS, NULL, NULL);
}
