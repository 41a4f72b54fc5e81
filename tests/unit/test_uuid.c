/* UUIDs: text both ways, version and variant bits, order in time, no repeats. */
#include "store_fixture.h"

#include "storage/uuid.h"

static void text_both_ways(void **state) {
    (void)state;
    char text[UUID_TEXT_SIZE];
    uuid id;
    assert_true(uuid_parse("0189ABCD-ef01-7234-9678-9abcdef01234", &id));
    uuid_format(&id, text);
    assert_string_equal(text, "0189abcd-ef01-7234-9678-9abcdef01234");
    static const char *const BAD[] = {"",
                                      "0189abcd",
                                      "0189abcd-ef01-7234-9678-9abcdef0123",
                                      "0189abcd-ef01-7234-9678-9abcdef012345",
                                      "0189abcd0ef01-7234-9678-9abcdef01234",
                                      "g189abcd-ef01-7234-9678-9abcdef01234"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_false(uuid_parse(BAD[i], &id));
}

static void versions(void **state) {
    (void)state;
    uuid random = uuid_random();
    uuid ordered = uuid_time_ordered(0x0123456789ab);
    assert_int_equal(random.octets[6] >> 4, 4);
    assert_int_equal(random.octets[8] >> 6, 2);
    assert_int_equal(ordered.octets[6] >> 4, 7);
    assert_int_equal(ordered.octets[8] >> 6, 2);
    assert_memory_equal(ordered.octets, "\x01\x23\x45\x67\x89\xab", 6);
}

static int by_octets(const void *a, const void *b) { return memcmp(a, b, sizeof(uuid)); }

static void no_repeats(void **state) {
    (void)state;
    enum { COUNT = 20000 };
    uuid *all = calloc(COUNT, sizeof *all);
    for (int i = 0; i < COUNT; i++)
        all[i] = uuid_time_ordered(1);
    qsort(all, COUNT, sizeof *all, by_octets);
    for (int i = 1; i < COUNT; i++)
        assert_false(uuid_equal(&all[i - 1], &all[i]));
    uuid later = uuid_time_ordered(2);
    assert_true(by_octets(&all[COUNT - 1], &later) < 0);
    free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_both_ways), cmocka_unit_test(versions),
                                       cmocka_unit_test(no_repeats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
