/* Events from JSON: the same event again from what the server writes, and what is no event. */
#include "cmocka_includes.h"

#include <stdio.h>
#include <string.h>

#include "client/publisher/event.h"
#include "server/event_json.h"

static ingest_event *from(const char *json) { return ingest_event_from_json(json, strlen(json)); }

static void assert_round_trip(const char *json) {
    char first[8192], second[8192];
    ingest_event *event = from(json);
    assert_null(ingest_event_error(event));
    const size_t len = event_json_write(event_message(event), first, sizeof first);
    assert_in_range(len, 1, sizeof first);
    ingest_event *again = ingest_event_from_json(first, len);
    assert_null(ingest_event_error(again));
    assert_int_equal(event_json_write(event_message(again), second, sizeof second), len);
    assert_memory_equal(first, second, len);
    ingest_event_free(again);
    ingest_event_free(event);
}

static void test_round_trips(void **state) {
    (void)state;
    assert_round_trip("{\"id\":\"a\",\"source\":\"s\",\"transaction\":{\"operations\":["
                      "{\"name\":\"create_user\"}]}}");
    assert_round_trip("{\"id\":\"\\u00e9\",\"source\":\"s\",\"key\":\"k\","
                      "\"time\":\"2026-01-31T12:00:00.250Z\",\"attributes\":{\"a\":\"1\"},"
                      "\"transaction\":{\"name\":\"signup\",\"operations\":[{\"name\":\"x\","
                      "\"entityId\":\"e\",\"data\":{\"n\":1.5,\"list\":[1,null,{\"deep\":true}]}},"
                      "{\"name\":\"y\",\"raw\":\"AAEC/w==\"}]}}");
    assert_round_trip("{\"id\":\"a\",\"source\":\"s\",\"informative\":{\"name\":\"otp\","
                      "\"entity_id\":\"e\",\"data\":{}}}");
}

static void test_times(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds;
        int32_t nanos;
    } CASES[] = {{"1970-01-01T00:00:00Z", 0, 0},
                 {"2026-01-31T12:00:00+02:00", 1769853600, 0},
                 {"2026-01-31T10:00:00.250-00:30", 1769855400, 250000000},
                 {"1969-12-31T23:59:59.5Z", -1, 500000000},
                 {"2024-02-29T23:59:59.123456789Z", 1709251199, 123456789}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char json[256];
        (void)snprintf(json, sizeof json,
                       "{\"source\":\"s\",\"time\":\"%s\",\"informative\":{\"name\":\"n\"}}",
                       CASES[i].text);
        ingest_event *event = from(json);
        assert_null(ingest_event_error(event));
        assert_int_equal(event_message(event)->time->seconds, CASES[i].seconds);
        assert_int_equal(event_message(event)->time->nanos, CASES[i].nanos);
        ingest_event_free(event);
    }
}

/* What is wrong, and where it says so. */
static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *says;
    } CASES[] = {
        {"", "event: "},
        {"[]", "event: "},
        {"{}", "event: needs either"},
        {"{\"source\":\"s\",\"transaction\":{},\"informative\":{}}", "event: needs either"},
        {"{\"source\":1,\"transaction\":{}}", "\"source\" is not a string"},
        {"{\"sauce\":\"s\",\"transaction\":{}}", "event: \"sauce\" is not a field"},
        {"{\"source\":\"s\",\"transaction\":[]}", "\"transaction\" is not an object"},
        {"{\"source\":\"s\",\"transaction\":{\"operations\":{}}}",
         "event.transaction: \"operations\" is not a list"},
        {"{\"source\":\"s\",\"transaction\":{\"operations\":[1]}}",
         "event.transaction.operations[0]: is not an object"},
        {"{\"source\":\"s\",\"transaction\":{\"operations\":[{},{\"raw\":\"?\"}]}}",
         "event.transaction.operations[1]: \"raw\" is not base64"},
        {"{\"source\":\"s\",\"transaction\":{\"operations\":[{\"raw\":\"\",\"data\":{}}]}}",
         "has both data and raw"},
        {"{\"source\":\"s\",\"transaction\":{\"operations\":[{\"entityId\":\"a\","
         "\"entity_id\":\"b\"}]}}",
         "\"entity_id\" is there twice"},
        {"{\"source\":\"s\",\"informative\":{\"name\":\"n\",\"operations\":[]}}",
         "event.informative: \"operations\" is not a field"},
        {"{\"source\":\"s\",\"time\":\"2026-13-01T00:00:00Z\",\"transaction\":{}}", "event.time: "},
        {"{\"source\":\"s\",\"time\":\"2026-01-01T00:00:00\",\"transaction\":{}}", "event.time: "},
        {"{\"source\":\"s\",\"time\":\"2026-02-29T00:00:00Z\",\"transaction\":{}}", "event.time: "},
        {"{\"source\":\"s\",\"time\":\"2026-01-01T24:00:00Z\",\"transaction\":{}}", "event.time: "},
        {"{\"source\":\"s\",\"time\":\"2026-01-01T00:00:00.Z\",\"transaction\":{}}",
         "event.time: "},
        {"{\"source\":\"s\",\"time\":\"2026- 1-01T00:00:00Z\",\"transaction\":{}}", "event.time: "},
        {"{\"source\":\"s\",\"time\":\"2026-01-01T00:00:00+00:000\",\"transaction\":{}}",
         "event.time: "},
        {"{\"source\":\"s\",\"attributes\":{\"a\":1},\"transaction\":{}}",
         "event.attributes: \"a\" is not a string"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        ingest_event *event = from(CASES[i].json);
        const char *error = ingest_event_error(event);
        if (!error || !strstr(error, CASES[i].says))
            fail_msg("%s: \"%s\" instead of \"%s\"", CASES[i].json, error ? error : "no error",
                     CASES[i].says);
        ingest_event_free(event);
    }
}

static void test_ids(void **state) {
    (void)state;
    ingest_event *none = from("{\"source\":\"s\",\"id\":\"\",\"informative\":{\"name\":\"n\"}}");
    ingest_event *own = from("{\"source\":\"s\",\"id\":\"7\",\"informative\":{\"name\":\"n\"}}");
    assert_false(event_has_own_id(none));
    assert_int_equal(strlen(ingest_event_id(none)), 36);
    assert_true(event_has_own_id(own));
    ingest_event_free(none);
    ingest_event_free(own);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
