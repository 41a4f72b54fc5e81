/* What decides which event may run: identities, keys, groups, retries. */
#include "client/consumer/groups.h"
#include "client/consumer/identities.h"
#include "client/consumer/keys.h"
#include "client/consumer/retries.h"

#include "cmocka_includes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- identities ------------------------------------------------------------------------------ */

static identity number_of(int number) {
    char id[32];
    (void)snprintf(id, sizeof id, "event-%d", number);
    return identity_of(bytes_of_string("shop"), bytes_of_string(id));
}

static void test_identities_differ(void **state) {
    (void)state;
    identity one = identity_of(bytes_of_string("a"), bytes_of_string("bc"));
    identity other = identity_of(bytes_of_string("ab"), bytes_of_string("c"));
    assert_false(one.high == other.high && one.low == other.low);
}

static void test_oldest_identities_go_first(void **state) {
    (void)state;
    identities *it = identities_new(5000, 1000000);
    for (int i = 0; i < 20000; i++)
        assert_true(identities_add(it, number_of(i), 0, i));
    assert_int_equal(identities_count(it), 5000);
    assert_int_equal(identities_oldest_ms(it), 15000);
    for (int i = 0; i < 20000; i++)
        assert_int_equal(identities_known(it, number_of(i), 20000), i >= 15000);
    identities_free(it);
}

static void test_identities_expire(void **state) {
    (void)state;
    identities *it = identities_new(1000000, 100);
    for (int i = 0; i < 10000; i++)
        assert_true(identities_add(it, number_of(i), 0, i));
    assert_int_equal(identities_count(it), 100);
    assert_true(identities_known(it, number_of(9999), 10098));
    assert_false(identities_known(it, number_of(9999), 10099));
    identities_free(it);
}

static void test_identities_go_with_their_partition(void **state) {
    (void)state;
    identities *it = identities_new(1000000, 1000000);
    for (int i = 0; i < 3000; i++)
        assert_true(identities_add(it, number_of(i), (uint32_t)i % 3, i));
    identities_forget(it, 1);
    assert_int_equal(identities_count(it), 2000);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(identities_known(it, number_of(i), 3000), i % 3 != 1);
    for (int i = 1; i < 3000; i += 3)
        assert_true(identities_add(it, number_of(i), 4, i));
    assert_int_equal(identities_count(it), 3000);
    identities_free(it);
}

static void test_no_window_remembers_nothing(void **state) {
    (void)state;
    identities *it = identities_new(0, 1000);
    assert_true(identities_add(it, number_of(1), 0, 0));
    assert_false(identities_known(it, number_of(1), 0));
    identities_free(it);
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Against a plain list: of each key the oldest is at the front. */
static void test_keys_against_a_list(void **state) {
    (void)state;
    enum { PLACES = 3000 };
    static key_place places[PLACES];
    static unsigned order[PLACES];
    keys it;
    unsigned clock = 0;
    assert_true(keys_init(&it));
    srand(7);
    for (unsigned step = 0; step < 60000; step++) {
        unsigned at = (unsigned)rand() % PLACES;
        if (!places[at].queued) {
            uint64_t hash = (uint64_t)rand() % 1500;
            bool first = true;
            for (unsigned i = 0; i < PLACES; i++)
                first = first && !(places[i].queued && places[i].hash == hash);
            assert_int_equal(keys_push(&it, &places[at], hash), first);
            order[at] = clock++;
            continue;
        }
        key_place *expected = NULL;
        bool was_front = keys_is_front(&places[at]);
        for (unsigned i = 0; i < PLACES; i++)
            if (i != at && places[i].queued && places[i].hash == places[at].hash &&
                (!expected || order[i] < order[expected - places]))
                expected = &places[i];
        key_place *next = keys_remove(&it, &places[at]);
        assert_ptr_equal(next, was_front ? expected : NULL);
        if (next) assert_true(keys_is_front(next));
    }
    for (unsigned i = 0; i < PLACES; i++)
        keys_remove(&it, &places[i]);
    assert_int_equal(it.count, 0);
    keys_free(&it);
}

/* ---- groups ---------------------------------------------------------------------------------- */

typedef struct told {
    char text[512];
} told;

static void add_text(told *to, const char *prefix, const group_view *group) {
    size_t len = strlen(to->text);
    len += (size_t)snprintf(to->text + len, sizeof to->text - len, "%s", prefix);
    for (uint32_t i = 0; i < group->size; i++)
        len += (size_t)snprintf(to->text + len, sizeof to->text - len, "%s",
                                group->parts[i] ? (const char *)group->parts[i] : "-");
    (void)snprintf(to->text + len, sizeof to->text - len, " ");
}
static void on_ready(void *arg, const group_view *group) { add_text(arg, "", group); }
static void on_torn(void *arg, const group_view *group) { add_text(arg, "torn:", group); }

static outcome add_part(groups *it, told *to, uint64_t sequence, uint32_t index, uint32_t size,
                        const char *name, int64_t now_ms) {
    failure why;
    char id[32];
    (void)snprintf(id, sizeof id, "group-%llu", (unsigned long long)sequence);
    const group_part part = {.store = bytes_of_string("store"),
                             .source = bytes_of_string("shop"),
                             .id = bytes_of_string(id),
                             .key = bytes_of_string("key"),
                             .sequence = sequence,
                             .index = index,
                             .size = size,
                             .part = (void *)(uintptr_t)name};
    return groups_add(it, &part, now_ms, on_ready, to, &why);
}

static void test_parts_in_any_order(void **state) {
    (void)state;
    groups *it = groups_new();
    told to = {""};
    assert_int_equal(add_part(it, &to, 1, 2, 3, "c", 0), ST_OK);
    assert_int_equal(add_part(it, &to, 1, 0, 3, "a", 0), ST_OK);
    assert_string_equal(to.text, "");
    assert_int_equal(add_part(it, &to, 1, 1, 3, "b", 0), ST_OK);
    assert_string_equal(to.text, "abc ");
    assert_int_equal(groups_count(it), 0);
    groups_free(it);
}

static void test_groups_of_a_key_keep_their_sequence(void **state) {
    (void)state;
    groups *it = groups_new();
    told to = {""};
    assert_int_equal(add_part(it, &to, 7, 0, 2, "g", 0), ST_OK);
    assert_int_equal(add_part(it, &to, 5, 1, 2, "b", 0), ST_OK);
    assert_int_equal(add_part(it, &to, 7, 1, 2, "h", 0), ST_OK);
    assert_int_equal(add_part(it, &to, 8, 0, 1, "z", 0), ST_OK);
    assert_string_equal(to.text, "");
    assert_int_equal(add_part(it, &to, 5, 0, 2, "a", 0), ST_OK);
    assert_string_equal(to.text, "ab gh z ");
    groups_free(it);
}

static void test_torn_groups_are_given_up(void **state) {
    (void)state;
    groups *it = groups_new();
    told to = {""};
    assert_int_equal(add_part(it, &to, 1, 1, 3, "b", 100), ST_OK);
    assert_int_equal(add_part(it, &to, 2, 0, 1, "x", 150), ST_OK);
    groups_give_up(it, 100, on_torn, on_ready, &to);
    assert_string_equal(to.text, "");
    groups_give_up(it, 101, on_torn, on_ready, &to);
    assert_string_equal(to.text, "torn:-b- x ");
    assert_int_equal(groups_count(it), 0);
    groups_free(it);
}

static void test_bad_parts_are_refused(void **state) {
    (void)state;
    groups *it = groups_new();
    told to = {""};
    assert_int_equal(add_part(it, &to, 1, 2, 2, "x", 0), ST_INVALID);
    assert_int_equal(add_part(it, &to, 1, 0, 0, "x", 0), ST_INVALID);
    assert_int_equal(add_part(it, &to, 1, 0, GROUP_PARTS_MAX + 1, "x", 0), ST_INVALID);
    assert_int_equal(groups_count(it), 0);
    assert_int_equal(add_part(it, &to, 1, 0, 2, "a", 0), ST_OK);
    assert_int_equal(add_part(it, &to, 1, 0, 2, "x", 0), ST_INVALID);
    assert_int_equal(add_part(it, &to, 1, 1, 3, "x", 0), ST_INVALID);
    assert_int_equal(add_part(it, &to, 1, 1, 2, "b", 0), ST_OK);
    assert_string_equal(to.text, "ab ");
    groups_free(it);
}

static bool is_b(void *arg, const void *part) {
    (void)arg;
    return strcmp(part, "b") == 0;
}

static void test_dropped_groups(void **state) {
    (void)state;
    groups *it = groups_new();
    told to = {""};
    assert_int_equal(add_part(it, &to, 1, 1, 3, "b", 0), ST_OK);
    assert_int_equal(add_part(it, &to, 2, 0, 2, "a", 0), ST_OK);
    groups_drop(it, is_b, on_torn, &to);
    assert_string_equal(to.text, "torn:-b- ");
    assert_int_equal(add_part(it, &to, 2, 1, 2, "c", 0), ST_OK);
    assert_string_equal(to.text, "torn:-b- ac ");
    groups_free(it);
}

/* ---- retries --------------------------------------------------------------------------------- */

static void test_policies(void **state) {
    (void)state;
    const char *const codes[] = {"gone", NULL};
    const ingest_retry_policy given[] = {
        {.operation = "a", .attempts = 3, .backoff_ms = 100, .backoff_last_ms = 150},
        {.operation = NULL, .final_codes = codes},
    };
    retries it;
    int64_t ms;
    assert_true(retries_init(&it, given, 2));
    assert_true(retries_again(&it, "a", 1, INGEST_RETRY, "gone", 0, &ms));
    assert_int_equal(ms, 75);
    assert_true(retries_again(&it, "a", 2, INGEST_RETRY, "", UINT32_MAX, &ms));
    assert_in_range(ms, 113, 188);
    assert_false(retries_again(&it, "a", 3, INGEST_RETRY, "", 0, &ms));
    assert_false(retries_again(&it, "a", 1, INGEST_FINAL, "", 0, &ms));
    assert_false(retries_again(&it, "b", 1, INGEST_RETRY, "gone", 0, &ms));
    assert_true(retries_again(&it, "b", 9, INGEST_RETRY, "other", 0, &ms));
    assert_int_equal(ms, 45000); /* three quarters of the longest */
    assert_false(retries_again(&it, "b", 10, INGEST_RETRY, "other", 0, &ms));
    retries_free(&it);
    assert_true(retries_init(&it, NULL, 0));
    assert_true(retries_again(&it, "b", 1, INGEST_RETRY, "", 250, &ms));
    assert_int_equal(ms, 625);
    retries_free(&it);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identities_differ),
        cmocka_unit_test(test_oldest_identities_go_first),
        cmocka_unit_test(test_identities_expire),
        cmocka_unit_test(test_identities_go_with_their_partition),
        cmocka_unit_test(test_no_window_remembers_nothing),
        cmocka_unit_test(test_keys_against_a_list),
        cmocka_unit_test(test_parts_in_any_order),
        cmocka_unit_test(test_groups_of_a_key_keep_their_sequence),
        cmocka_unit_test(test_torn_groups_are_given_up),
        cmocka_unit_test(test_bad_parts_are_refused),
        cmocka_unit_test(test_dropped_groups),
        cmocka_unit_test(test_policies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
