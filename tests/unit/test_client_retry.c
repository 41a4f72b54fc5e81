/* What a refusal means, how long to wait, and what the details of a status say. */
#include "cmocka_includes.h"

#include <string.h>

#include "client/publisher/retry.h"
#include "server/status_details.h"

static verdict judge(int code) {
    refusal why;
    refusal_of(code, "", &why);
    return retry_judge(&why);
}

static void test_only_passing_troubles_are_retried(void **state) {
    (void)state;
    static const bool AGAIN[17] = {
        [0] = true, [1] = true, [4] = true, [8] = true, [10] = true, [14] = true};
    for (int code = 0; code < 17; code++)
        assert_int_equal(judge(code).again, AGAIN[code]);
    assert_false(judge(-1).again);
    assert_false(judge(17).again);
    assert_int_equal(judge(3).status, INGEST_INVALID);
    assert_int_equal(judge(6).status, INGEST_CONFLICT);
    assert_int_equal(judge(7).status, INGEST_DENIED);
    assert_int_equal(judge(16).status, INGEST_DENIED);
    assert_int_equal(judge(12).status, INGEST_UNSUPPORTED);
    assert_int_equal(judge(13).status, INGEST_FAILED);
}

/* What the server's own outcomes become: the two tables agree. */
static void test_every_outcome_of_the_server(void **state) {
    (void)state;
    for (outcome each = ST_OK + 1; each < OUTCOME_COUNT; each++) {
        failure failed;
        (void)fail(&failed, each, "", "text");
        Google__Rpc__Status *status =
            status_details_make(&failed, outcome_retry(each) ? 250 : 0, NULL);
        assert_non_null(status);
        refusal why;
        refusal_from_status(status, &why);
        google__rpc__status__free_unpacked(status, NULL);
        assert_int_equal(why.code, outcome_grpc_code(each));
        assert_string_equal(why.reason, outcome_name(each));
        assert_int_equal(why.retry_ms, outcome_retry(each) ? 250 : 0);
        assert_int_equal(retry_judge(&why).again, outcome_retry(each));
        if (each == ST_DEAD_LETTER) {
            assert_int_equal(retry_judge(&why).status, INGEST_DEAD);
            assert_int_equal(retry_judge(&why).stored, STORED_YES);
        }
    }
}

static void test_the_field_comes_along(void **state) {
    (void)state;
    failure failed;
    refusal why;
    (void)fail(&failed, ST_INVALID, "event.key", "is odd");
    Google__Rpc__Status *status = status_details_make(&failed, 0, NULL);
    refusal_from_status(status, &why);
    assert_string_equal(why.message, "event.key: is odd");
    uint8_t wire[1024];
    const size_t len = google__rpc__status__pack(status, wire);
    google__rpc__status__free_unpacked(status, NULL);
    refusal_from_call(3, bytes_of_string("short"), bytes_of(wire, len), &why);
    assert_string_equal(why.message, "event.key: is odd");
    refusal_from_call(14, bytes_of_string("broken details"), bytes_of("\xff\xff", 2), &why);
    assert_int_equal(why.code, 14);
    assert_string_equal(why.message, "broken details");
    assert_int_equal(why.retry_ms, 0);
}

static void test_texts_are_cut_between_characters(void **state) {
    (void)state;
    char out[4];
    copy_text(out, sizeof out, bytes_of_string("a\xc3\xa9\xc3\xa9"));
    assert_string_equal(out, "a\xc3\xa9");
    copy_text(out, sizeof out, bytes_of(NULL, 0));
    assert_string_equal(out, "");
}

static void test_pauses(void **state) {
    (void)state;
    backoff it = {50, 2000, 42};
    for (uint32_t failures = 0; failures < 40; failures++) {
        uint64_t full = failures < 1 ? 50 : failures > 7 ? 2000 : UINT64_C(50) << (failures - 1);
        if (full > 2000) full = 2000;
        uint32_t least = UINT32_MAX, most = 0;
        for (int i = 0; i < 2000; i++) {
            const uint32_t pause = backoff_pause_ms(&it, failures, 0);
            least = pause < least ? pause : least;
            most = pause > most ? pause : most;
        }
        assert_in_range(least, full / 2, full / 2 + full / 10);
        assert_in_range(most, full - full / 10, full);
    }
    for (int i = 0; i < 2000; i++)
        assert_in_range(backoff_pause_ms(&it, 1, 1000), 1000, 1250);
    assert_in_range(backoff_pause_ms(&it, 20, 1), 1000, 2000);
    backoff smallest = {1, 1, 1};
    assert_int_equal(backoff_pause_ms(&smallest, 9, 0), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_passing_troubles_are_retried),
        cmocka_unit_test(test_every_outcome_of_the_server),
        cmocka_unit_test(test_the_field_comes_along),
        cmocka_unit_test(test_texts_are_cut_between_characters),
        cmocka_unit_test(test_pauses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
