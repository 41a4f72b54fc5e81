/* The position record: what is written is read back, and nothing else is believed. */
/* Before cmocka, whose fail() is another one. */
#include "server/position.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void round_trip(void **state) {
    (void)state;
    const uint64_t SEQUENCES[] = {0, 1, 255, 256, 0x0123456789abcdef, UINT64_MAX};
    for (size_t i = 0; i < sizeof SEQUENCES / sizeof *SEQUENCES; i++) {
        position in = {.incarnation = uuid_random(), .sequence = SEQUENCES[i]}, out;
        uint8_t value[POSITION_SIZE];
        position_encode(&in, value);
        assert_int_equal(position_decode(bytes_of(value, sizeof value), &out, NULL), ST_OK);
        assert_true(uuid_equal(&in.incarnation, &out.incarnation));
        assert_true(in.sequence == out.sequence);
    }
}

/* What is pinned on the topic: older stores must stay readable. */
static void bytes_are_pinned(void **state) {
    (void)state;
    position in = {.sequence = 0x0102030405060708};
    uint8_t value[POSITION_SIZE];
    memset(in.incarnation.octets, 0xaa, sizeof in.incarnation.octets);
    position_encode(&in, value);
    const uint8_t EXPECTED[POSITION_SIZE] = {1,    0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
                                             0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 1,
                                             2,    3,    4,    5,    6,    7,    8};
    assert_memory_equal(value, EXPECTED, POSITION_SIZE);
}

static void refuses_what_is_not_ours(void **state) {
    (void)state;
    uint8_t value[POSITION_SIZE + 1] = {1};
    position out;
    failure why;
    for (size_t length = 0; length <= POSITION_SIZE + 1; length++) {
        outcome expected = length == POSITION_SIZE ? ST_OK : ST_CORRUPT;
        assert_int_equal(position_decode(bytes_of(value, length), &out, &why), expected);
    }
    value[0] = 2;
    assert_int_equal(position_decode(bytes_of(value, POSITION_SIZE), &out, &why), ST_CORRUPT);
    assert_non_null(strstr(why.reason, "version 2"));
}

static void key_names_store_and_route(void **state) {
    (void)state;
    uuid store;
    char key[POSITION_KEY_SIZE];
    assert_true(uuid_parse("0d9d9f0e-8a8e-4b0e-9b0e-8a8e4b0e9b0e", &store));
    position_key(&store, "transactions", key);
    assert_string_equal(key, "0d9d9f0e-8a8e-4b0e-9b0e-8a8e4b0e9b0e/transactions");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(bytes_are_pinned),
        cmocka_unit_test(refuses_what_is_not_ours),
        cmocka_unit_test(key_names_store_and_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
