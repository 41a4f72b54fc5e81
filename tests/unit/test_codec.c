/* codec: what is refused, with which path, and what is let through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "ingest/v1/ingest_service.pb-c.h"
#include "server/codec.h"
#include "storage/utf8.h"

#include <cmocka.h> /* last: it has a macro `fail` */

#define PUBLISH (&ingest__v1__publish_request__descriptor)

/* ---- UTF-8 ----------------------------------------------------------------------------------- */

static void expect_prefix(const char *text, size_t len, size_t expected) {
    /* At every offset to the eight-byte steps, and in memory of its own, so that ASan sees more. */
    for (size_t before = 0; before < 17; before++) {
        char *copy = malloc(before + len + 1);
        memset(copy, 'a', before);
        memcpy(copy + before, text, len);
        assert_int_equal(utf8_prefix(bytes_of(copy, before + len)), before + expected);
        free(copy);
    }
}

#define GOOD(text) expect_prefix(text, sizeof text - 1, sizeof text - 1)
#define BAD_AT(text, at) expect_prefix(text, sizeof text - 1, at)

static void test_utf8(void **state) {
    (void)state;
    GOOD("");
    GOOD("plain ascii, longer than eight bytes \x7f");
    GOOD("\xC2\x80\xDF\xBF");
    GOOD("\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF");
    GOOD("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF");
    BAD_AT("ab\0cd", 2);
    BAD_AT("abcdefgh\0", 8);
    BAD_AT("\x80", 0);
    BAD_AT("a\xC0\x80", 1);        /* overlong NUL */
    BAD_AT("\xC1\xBF", 0);         /* overlong */
    BAD_AT("\xE0\x9F\xBF", 0);     /* overlong */
    BAD_AT("\xF0\x8F\xBF\xBF", 0); /* overlong */
    BAD_AT("\xED\xA0\x80", 0);     /* surrogates */
    BAD_AT("\xED\xBF\xBF", 0);
    BAD_AT("\xF4\x90\x80\x80", 0); /* beyond U+10FFFF */
    BAD_AT("\xF5\x80\x80\x80", 0);
    BAD_AT("\xFF", 0);
    BAD_AT("ok\xC3", 2); /* cut */
    BAD_AT("ok\xE2\x82", 2);
    BAD_AT("ok\xF0\x9F\x98", 2);
    BAD_AT("\xE2\x82\x41", 0);
    BAD_AT("\xF0\x9F\x41\x80", 0);
}

/* ---- building wire bytes -----------------------------------------------------------------------
 */

typedef struct wire {
    uint8_t data[8192];
    size_t len;
} wire;

static void put_varint(wire *to, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        to->data[to->len++] = (uint8_t)(value | 0x80);
    to->data[to->len++] = (uint8_t)value;
}

static void put_field(wire *to, uint32_t number, const void *body, size_t len) {
    put_varint(to, number << 3 | 2);
    put_varint(to, len);
    if (len) memcpy(to->data + to->len, body, len);
    to->len += len;
}

/* What is there becomes the body of field `number`. */
static void wrap(wire *in, uint32_t number) {
    wire out = {.len = 0};
    put_field(&out, number, in->data, in->len);
    *in = out;
}

static bytes wire_bytes(const wire *of) { return bytes_of(of->data, of->len); }

static void expect_refused(bytes body, const char *field, const char *reason) {
    uint8_t *exact = malloc(body.len ? body.len : 1); /* so that ASan sees a read past the end */
    memcpy(exact, body.data, body.len);
    failure why;
    assert_int_equal(codec_check(PUBLISH, bytes_of(exact, body.len), CODEC_LIMITS_DEFAULT, &why),
                     ST_INVALID);
    assert_string_equal(why.field, field);
    if (!strstr(why.reason, reason)) fail_msg("%s: %s", field, why.reason);
    free(exact);
}

static void expect_accepted(bytes body) {
    failure why;
    if (codec_check(PUBLISH, body, CODEC_LIMITS_DEFAULT, &why) != ST_OK)
        fail_msg("%s: %s", why.field, why.reason);
    Ingest__V1__PublishRequest *request = codec_unpack(PUBLISH, body, NULL);
    assert_non_null(request);
    ingest__v1__publish_request__free_unpacked(request, NULL);
}

/* ---- check -------------------------------------------------------------------------------------
 */

/* Repeated fields may come again and again, a message that is there once may not. */
static void test_message_twice(void **state) {
    (void)state;
    wire request = {.len = 0};
    put_field(&request, 1, "", 0);
    expect_accepted(wire_bytes(&request));
    put_field(&request, 1, "", 0);
    expect_refused(wire_bytes(&request), "event", "more than once");

    wire operations = {.len = 0};
    put_field(&operations, 2, "", 0);
    put_field(&operations, 2, "", 0);
    wrap(&operations, 10);
    wrap(&operations, 1);
    expect_accepted(wire_bytes(&operations));
}

/* event.transaction.operations[2].data.fields[3].value.string_value is not UTF-8. */
static void test_path(void **state) {
    (void)state;
    wire data = {.len = 0};
    for (int i = 0; i < 4; i++) {
        wire entry = {.len = 0};
        wire value = {.len = 0};
        put_field(&value, 3, i == 3 ? "\xFF" : "x", 1);
        put_field(&entry, 1, &"abcd"[i], 1);
        put_field(&entry, 2, value.data, value.len);
        put_field(&data, 1, entry.data, entry.len);
    }
    wire transaction = {.len = 0};
    put_field(&transaction, 1, "t", 1);
    for (int i = 0; i < 3; i++) {
        wire operation = {.len = 0};
        put_field(&operation, 1, "create_user", 11);
        if (i == 2) put_field(&operation, 3, data.data, data.len);
        put_field(&transaction, 2, operation.data, operation.len);
    }
    wrap(&transaction, 10);
    wrap(&transaction, 1);
    expect_refused(wire_bytes(&transaction),
                   "event.transaction.operations[2].data.fields[3].value.string_value",
                   "not valid UTF-8");
}

static void test_strings(void **state) {
    (void)state;
    wire event = {.len = 0};
    put_field(&event, 2, "us\0rs", 5);
    wrap(&event, 1);
    expect_refused(wire_bytes(&event), "event.source", "NUL");

    wire attribute = {.len = 0};
    put_field(&attribute, 1, "\xED\xA0\x80", 3);
    wrap(&attribute, 5);
    wrap(&attribute, 1);
    expect_refused(wire_bytes(&attribute), "event.attributes[0].key", "not valid UTF-8");

    wire raw = {.len = 0}; /* bytes may be anything */
    put_field(&raw, 4, "\0\xFF", 2);
    wrap(&raw, 2);
    wrap(&raw, 10);
    wrap(&raw, 1);
    expect_accepted(wire_bytes(&raw));
}

static void test_malformed(void **state) {
    (void)state;
    expect_accepted(bytes_of("", 0));
    expect_refused(bytes_of("\x0a", 1), "", "cut short");
    expect_refused(bytes_of("\x0a\x05\x0a", 3), "", "cut short");
    expect_refused(bytes_of("\x0a\x02\x0a\x05", 4), "event", "cut short");
    expect_refused(bytes_of("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), "", "malformed");
    expect_refused(bytes_of("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12), "",
                   "malformed");
    expect_refused(bytes_of("\x00\x00", 2), "", "malformed"); /* field 0 */
    expect_refused(bytes_of("\x0b\x0c", 2), "", "groups");
    expect_refused(bytes_of("\x0f", 1), "", "malformed"); /* wire type 7 */
    expect_refused(bytes_of("\x08\x01", 2), "event", "another type");
    expect_refused(bytes_of("\x12\x01\x01", 3), "ack", "another type");
    expect_accepted(bytes_of("\x10\x02", 2));
    expect_accepted(bytes_of("\xa2\x06\x03xyz\x10\x01", 8)); /* unknown field 100 */
}

/* data = {"k": {"k": ... }}: three levels of messages for each of JSON. */
static void nest(wire *value, int levels) {
    value->len = 0;
    put_field(value, 3, "x", 1);
    for (int i = 0; i < levels; i++) {
        wrap(value, 2);                     /* FieldsEntry.value */
        wrap(value, 1);                     /* Struct.fields */
        if (i + 1 < levels) wrap(value, 5); /* Value.struct_value */
    }
    wrap(value, 3); /* Operation.data */
    wrap(value, 2);
    wrap(value, 10);
    wrap(value, 1);
}

static void test_depth(void **state) {
    (void)state;
    wire value;
    nest(&value, 19); /* 4 + 3 * 20 - ... stays within 64 */
    expect_accepted(wire_bytes(&value));
    nest(&value, 25);
    failure why;
    assert_int_equal(codec_check(PUBLISH, wire_bytes(&value), CODEC_LIMITS_DEFAULT, &why),
                     ST_INVALID);
    assert_memory_equal(why.field, "event.transaction.operations[0].data.fields[0].value", 52);
    assert_string_equal(why.reason, "nested too deep");
    nest(&value, 200); /* beyond the stack, too */
    codec_limits limits = {.max_depth = UINT32_MAX, .max_fields = UINT32_MAX};
    assert_int_equal(codec_check(PUBLISH, wire_bytes(&value), limits, &why), ST_INVALID);
}

static void test_max_fields(void **state) {
    (void)state;
    codec_limits limits = {.max_depth = 64, .max_fields = 3};
    failure why;
    assert_int_equal(codec_check(PUBLISH, bytes_of("\x10\1\x10\1\x10\1", 6), limits, &why), ST_OK);
    assert_int_equal(codec_check(PUBLISH, bytes_of("\x10\1\x10\1\x10\1\x10\1", 8), limits, &why),
                     ST_INVALID);
}

static void test_find_field(void **state) {
    (void)state;
    bytes body;
    unsigned count;
    const bytes twice = bytes_of("\x0a\x01x\x10\x01\x0a\x02yz", 9);
    assert_true(codec_find_field(twice, 1, &body, &count));
    assert_int_equal(count, 2);
    assert_true(bytes_equal(body, bytes_of_string("yz")));
    assert_ptr_equal(body.data, twice.data + 7); /* not a copy */
    assert_false(codec_find_field(twice, 3, &body, &count));
    assert_false(codec_find_field(bytes_of("\x0a\x01x\x0a\x09", 5), 1, &body, &count));
}

/* Whatever passes the check, protobuf-c must unpack: mutations of a good message. */
static void test_agrees_with_protobuf_c(void **state) {
    (void)state;
    wire good;
    nest(&good, 5);
    unsigned seed = 11;
    unsigned accepted = 0;
    for (int i = 0; i < 200000; i++) {
        wire copy = good;
        for (int n = rand_r(&seed) % 4; n >= 0; n--)
            copy.data[(size_t)rand_r(&seed) % copy.len] = (uint8_t)rand_r(&seed);
        if (i % 3 == 0) copy.len = (size_t)rand_r(&seed) % (copy.len + 1);
        if (codec_check(PUBLISH, wire_bytes(&copy), CODEC_LIMITS_DEFAULT, NULL) != ST_OK) continue;
        accepted++;
        Ingest__V1__PublishRequest *request = codec_unpack(PUBLISH, wire_bytes(&copy), NULL);
        assert_non_null(request);
        ingest__v1__publish_request__free_unpacked(request, NULL);
    }
    assert_true(accepted > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_message_twice),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_max_fields),
        cmocka_unit_test(test_find_field),
        cmocka_unit_test(test_agrees_with_protobuf_c),
    };
    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
