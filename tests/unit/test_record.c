/* The on-disk record: what goes in comes out, and no changed byte goes unnoticed. */
#include "store_fixture.h"

#include "storage/crc32c.h"
#include "storage/record.h"

static event_record sample(void) {
    return (event_record){.kind = RECORD_EVENT,
                          .sequence = 77,
                          .cumulative_bytes = 1u << 30,
                          .accepted_ms = 1700000000123,
                          .id = bytes_of_string("id-1"),
                          .source = bytes_of_string("/lms"),
                          .key = bytes_of_string("user-9"),
                          .type = bytes_of_string("create_user"),
                          .time_seconds = -5,
                          .time_nanos = 999999999,
                          .transaction = true,
                          .operations = 3,
                          .traceparent = bytes_of_string("00-abc-01"),
                          .event = bytes_of_string("the encoded event")};
}

static void round_trip(void **state) {
    (void)state;
    uint8_t value[512];
    event_record in = sample();
    event_record out;
    size_t size = record_encoded_size(&in);
    assert_true(size <= sizeof value);
    memset(value, 0xa5, sizeof value);
    record_encode(&in, value);
    assert_int_equal(value[size], 0xa5); /* exactly the size */
    assert_int_equal(record_decode(77, bytes_of(value, size), &out, NULL), ST_OK);
    assert_int_equal(out.kind, RECORD_EVENT);
    assert_int_equal(out.sequence, 77);
    assert_int_equal(out.cumulative_bytes, in.cumulative_bytes);
    assert_int_equal(out.accepted_ms, in.accepted_ms);
    assert_int_equal(out.time_seconds, -5);
    assert_int_equal(out.time_nanos, 999999999);
    assert_int_equal(out.operations, 3);
    assert_true(out.transaction);
    assert_true(bytes_equal(out.id, in.id) && bytes_equal(out.source, in.source));
    assert_true(bytes_equal(out.key, in.key) && bytes_equal(out.type, in.type));
    assert_true(bytes_equal(out.traceparent, in.traceparent) && out.tracestate.len == 0);
    assert_true(bytes_equal(out.event, in.event));

    in.kind = RECORD_MOVED;
    size = record_encoded_size(&in);
    record_encode(&in, value);
    assert_int_equal(record_decode(77, bytes_of(value, size), &out, NULL), ST_OK);
    assert_int_equal(out.kind, RECORD_MOVED);
    assert_int_equal(out.event.len, 0);
    assert_int_equal(out.cumulative_bytes, in.cumulative_bytes);
}

static void every_changed_byte_is_found(void **state) {
    (void)state;
    uint8_t value[512];
    event_record in = sample();
    event_record out;
    failure why;
    size_t size = record_encoded_size(&in);
    record_encode(&in, value);
    for (size_t i = 0; i < size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            value[i] ^= (uint8_t)(1 << bit);
            assert_int_equal(record_decode(77, bytes_of(value, size), &out, &why), ST_CORRUPT);
            value[i] ^= (uint8_t)(1 << bit);
        }
        assert_int_equal(record_decode(77, bytes_of(value, i), &out, &why), ST_CORRUPT);
    }
    assert_int_equal(record_decode(78, bytes_of(value, size), &out, &why), ST_CORRUPT);
    assert_int_equal(record_decode(77, bytes_of(value, size + 1), &out, &why), ST_CORRUPT);
}

static void checksum_is_crc32c(void **state) {
    (void)state;
    uint8_t data[100];
    assert_int_equal(crc32c_extend(0, "123456789", 9), 0xe3069283);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i <= sizeof data; i++) {
        uint32_t whole = crc32c_extend(0, data, sizeof data);
        assert_int_equal(crc32c_extend(crc32c_extend(0, data, i), data + i, sizeof data - i),
                         whole);
        assert_int_equal(crc32c_extend_portable(0, data, i), crc32c_extend(0, data, i));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip),
                                       cmocka_unit_test(every_changed_byte_is_found),
                                       cmocka_unit_test(checksum_is_crc32c)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
