/* The event builder, and its JSON: what is built, what is refused, and that errors stay. */
#include "cmocka_includes.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <string.h>

#include "client/publisher/event.h"
#include "client/publisher/json.h"
#include "ingest/event.h"

static const char CATALOGUE[] = "create_user\ttransaction\ttransactions\t-\t-\t-\n"
                                "add_user_to_org\ttransaction\ttransactions\t-\t-\t-\n"
                                "generate_otp\tinformative\tinformative\t-\t-\t-\n";

static ingest_catalogue *catalogue_of(const char *text) {
    char why[256];
    return ingest_catalogue_parse(text, strlen(text), why, sizeof why);
}

/* The event as the server gets it; the caller frees it. */
static Ingest__V1__Event *sent(const ingest_event *event) {
    uint8_t wire[65536];
    const size_t len = ingest__v1__event__pack(event_message(event), wire);
    assert_int_equal(len, ingest_event_size(event));
    return ingest__v1__event__unpack(NULL, len, wire);
}

static void test_transaction(void **state) {
    (void)state;
    ingest_event *event = ingest_transaction_new("shop", "create_user");
    assert_int_equal(strlen(ingest_event_id(event)), 36);
    ingest_event_set_id(event, "order-7");
    ingest_event_set_key(event, "u-1");
    ingest_event_set_time(event, -1500);
    ingest_event_set_attribute(event, "a", "1");
    ingest_event_set_attribute(event, "b", "2");
    ingest_event_set_attribute(event, "a", "3");
    ingest_operation *first = ingest_event_add(event, "create_user", "u-1");
    ingest_operation *second = ingest_event_add(event, "add_user_to_org", NULL);
    ingest_operation_set_string(first, "name", "Ada");
    ingest_operation_set_number(first, "age", 36.5);
    ingest_operation_set_bool(first, "ok", true);
    ingest_operation_set_null(first, "none");
    ingest_operation_set_json(first, "list", " [1, {\"x\": \"y\"}] ");
    ingest_operation_set_string(first, "name", "Grace");
    ingest_operation_raw(second, "\0\1", 2);
    assert_null(ingest_event_error(event));

    Ingest__V1__Event *got = sent(event);
    assert_string_equal(got->id, "order-7");
    assert_string_equal(got->source, "shop");
    assert_string_equal(got->key, "u-1");
    assert_int_equal(got->time->seconds, -2);
    assert_int_equal(got->time->nanos, 500000000);
    assert_int_equal(got->n_attributes, 2);
    assert_string_equal(got->attributes[0]->value, "3");
    assert_int_equal(got->transaction->n_operations, 2);
    const Google__Protobuf__Struct *data = got->transaction->operations[0]->data;
    assert_int_equal(data->n_fields, 5);
    assert_string_equal(data->fields[0]->value->string_value, "Grace");
    assert_true(data->fields[1]->value->number_value == 36.5);
    assert_int_equal(data->fields[4]->value->list_value->n_values, 2);
    assert_int_equal(got->transaction->operations[1]->raw.len, 2);
    ingest__v1__event__free_unpacked(got, NULL);
    ingest_event_free(event);
}

static void test_time(void **state) {
    static const struct {
        int64_t unix_ms, seconds;
        int32_t nanos;
    } CASES[] = {
        {0, 0, 0},
        {1999, 1, 999000000},
        {-1, -1, 999000000},
        {-2000, -2, 0},
        {INT64_MIN, INT64_MIN / 1000 - 1, 192000000},
        {INT64_MAX, INT64_MAX / 1000, 807000000},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        ingest_event *event = ingest_transaction_new("shop", NULL);
        ingest_event_set_time(event, CASES[i].unix_ms);
        assert_int_equal(event_message(event)->time->seconds, CASES[i].seconds);
        assert_int_equal(event_message(event)->time->nanos, CASES[i].nanos);
        ingest_event_free(event);
    }
}

static void test_informative(void **state) {
    (void)state;
    ingest_event *event = ingest_informative_new("shop", "generate_otp", "u-1");
    ingest_operation_data(ingest_event_notice(event), "{\"a\": {}}");
    ingest_operation_set_bool(ingest_event_notice(event), "b", false);
    Ingest__V1__Event *got = sent(event);
    assert_string_equal(got->informative->entity_id, "u-1");
    assert_int_equal(got->informative->data->n_fields, 2);
    ingest__v1__event__free_unpacked(got, NULL);
    ingest_event_free(event);
}

/* The first error stays, and nothing after it counts. */
static void test_errors_are_remembered(void **state) {
    (void)state;
    ingest_event *event = ingest_transaction_new("shop", NULL);
    ingest_operation *op = ingest_event_add(event, "create_user", "u");
    ingest_operation_set_number(op, "age", NAN);
    const char *first = ingest_event_error(event);
    assert_string_equal(first, "event.transaction.operations[0].data.age: is not a finite number");
    ingest_operation_set_string(op, "name", "\xff");
    ingest_operation_set_string(ingest_event_add(event, NULL, NULL), NULL, NULL);
    ingest_event_set_id(event, NULL);
    ingest_operation_data(op, NULL);
    ingest_operation_raw(op, NULL, 0);
    assert_ptr_equal(ingest_event_error(event), first);
    failure why;
    assert_int_equal(event_ready(event, NULL, &why), ST_INVALID);
    ingest_event_free(event);
}

static void expect_error(ingest_event *event, const char *text) {
    assert_non_null(ingest_event_error(event));
    assert_string_equal(ingest_event_error(event), text);
    ingest_event_free(event);
}

static void test_wrong_use(void **state) {
    (void)state;
    expect_error(ingest_transaction_new(NULL, NULL), "event.source: is NULL");
    ingest_event *event = ingest_transaction_new("shop", "a\xc3(");
    expect_error(event, "event.transaction.name: is not valid UTF-8 at byte 1");
    event = ingest_transaction_new("shop", NULL);
    ingest_operation_set_bool(ingest_event_notice(event), "x", true);
    expect_error(event, "event.transaction: is no notice; use ingest_event_add");
    event = ingest_informative_new("shop", "generate_otp", NULL);
    ingest_operation_set_bool(ingest_event_add(event, "x", NULL), "x", true);
    expect_error(event, "event.informative: has no operations; use ingest_event_notice");
    event = ingest_transaction_new("shop", NULL);
    ingest_event_set_id(event, "");
    expect_error(event, "event.id: is empty; leave it alone to have one made");
    ingest_event_free(NULL);
}

static void test_catalogue(void **state) {
    (void)state;
    char why[256];
    assert_null(ingest_catalogue_parse("x\n", 2, why, sizeof why));
    assert_non_null(strstr(why, "catalogue:1"));
    ingest_catalogue *known = catalogue_of(CATALOGUE);
    assert_non_null(known);
    ingest_event *event = ingest_transaction_new("shop", NULL);
    assert_false(ingest_event_check(event, NULL)); /* no operation */
    ingest_event_free(event);
    event = ingest_transaction_new("shop", NULL);
    ingest_event_add(event, "create_user", NULL);
    assert_true(ingest_event_check(event, NULL));
    assert_true(ingest_event_check(event, known));
    ingest_event_add(event, "generate_otp", NULL);
    assert_false(ingest_event_check(event, known));
    assert_non_null(strstr(ingest_event_error(event), "event.transaction"));
    ingest_event_free(event);
    ingest_catalogue_free(known);
    ingest_catalogue_free(NULL);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static bool takes(const char *text) {
    char why[JSON_WHY_SIZE];
    arena memory;
    arena_init(&memory, NULL, 0);
    const bool ok = json_value(bytes_of_string(text), 90, &memory, why) != NULL;
    arena_free(&memory);
    return ok;
}

static void test_json_grammar(void **state) {
    (void)state;
    static const char *const GOOD[] = {"0",
                                       "-0",
                                       "1e5",
                                       "1E+5",
                                       "0.1",
                                       "-1.5e-3",
                                       "\"\"",
                                       "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\"",
                                       "\"\\ud83d\\ude00\"",
                                       " [ ] ",
                                       "[1,2]",
                                       "{}",
                                       " { \"a\" : null } ",
                                       "true",
                                       "false",
                                       "null",
                                       "1e-400",
                                       "9007199254740992",
                                       "18446744073709551616",
                                       "\"\xf0\x9f\x98\x80\""};
    static const char *const BAD[] = {"",
                                      " ",
                                      "01",
                                      "1.",
                                      ".5",
                                      "+1",
                                      "-",
                                      "1e",
                                      "1e+",
                                      "0x1",
                                      "Infinity",
                                      "NaN",
                                      "1e400",
                                      "tru",
                                      "nulL",
                                      "\"",
                                      "\"\\\"",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\u12g4\"",
                                      "\"\\u0000\"",
                                      "\"\\ud800\"",
                                      "\"\\ud800\\u0041\"",
                                      "\"\\udc00\"",
                                      "\"\n\"",
                                      "\"\xff\"",
                                      "\"\xc0\xaf\"",
                                      "\"\xed\xa0\x80\"",
                                      "[",
                                      "[1",
                                      "[1,",
                                      "[1,]",
                                      "[,1]",
                                      "[1 2]",
                                      "{",
                                      "{\"a\"",
                                      "{\"a\":",
                                      "{\"a\":1",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{1:1}",
                                      "{\"a\" 1}",
                                      "{\"a\":1 \"b\":2}",
                                      "1 2",
                                      "[]]",
                                      "{\"a\":1,\"a\":1}",
                                      "9007199254740993",
                                      "'a'",
                                      "\xef\xbb\xbf 1",
                                      "//\n1"};
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++)
        if (!takes(GOOD[i])) fail_msg("refused: %s", GOOD[i]);
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        if (takes(BAD[i])) fail_msg("taken: %s", BAD[i]);
}

/* As deep as the server takes, and not one level more. */
static void test_json_depth(void **state) {
    (void)state;
    for (int levels = 1; levels < 200; levels++) {
        char text[2048] = "", *end = text;
        for (int i = 0; i < levels; i++)
            end = stpcpy(end, "{\"a\":");
        end = stpcpy(end, "1");
        for (int i = 0; i < levels; i++)
            *end++ = '}';
        *end = '\0';
        ingest_event *event = ingest_transaction_new("shop", NULL);
        ingest_operation_data(ingest_event_add(event, "create_user", NULL), text);
        /* request, event, transaction, operation, and three for each object */
        assert_int_equal(ingest_event_error(event) == NULL, 4 + 3 * levels <= 100);
        ingest_event_free(event);
    }
    char deep[20001];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    assert_false(takes(deep));
}

static void test_numbers_in_any_locale(void **state) {
    (void)state;
    (void)setlocale(LC_ALL, "de_DE.UTF-8"); /* where it is there */
    ingest_event *event = ingest_transaction_new("shop", NULL);
    ingest_operation_data(ingest_event_add(event, "create_user", NULL), "{\"a\":1.5,\"b\":0.1}");
    const Google__Protobuf__Struct *data = event_message(event)->transaction->operations[0]->data;
    assert_true(data->fields[0]->value->number_value == 1.5);
    assert_true(data->fields[1]->value->number_value == 0.1);
    ingest_event_free(event);
    (void)setlocale(LC_ALL, "C");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transaction),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_informative),
        cmocka_unit_test(test_errors_are_remembered),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_catalogue),
        cmocka_unit_test(test_json_grammar),
        cmocka_unit_test(test_json_depth),
        cmocka_unit_test(test_numbers_in_any_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
