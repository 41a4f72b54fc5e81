/* What is to be done for an operation, as the catalogue says it. */
#include "client/consumer/effects.h"
#include "server/default_catalogue.h"

#include "cmocka_includes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static effects *made;

static outcome make(const char *text, size_t len, failure *why) {
    catalogue *all;
    assert_int_equal(catalogue_parse(bytes_of(text, len), &all, why), ST_OK);
    return effects_new(all, &made, why);
}

static int teardown(void **state) {
    (void)state;
    effects_free(made);
    made = NULL;
    return 0;
}

static const char *list(const char *operation) {
    static char text[2048];
    static const char KINDS[] = "iton";
    size_t len = 0;
    const operation_effects *of = effects_of(made, bytes_of_string(operation));
    assert_non_null(of);
    text[0] = '\0';
    for (uint32_t i = 0; i < of->count; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%c:%s", i ? " " : "",
                                KINDS[of->items[i].kind], of->items[i].name);
    return text;
}

static void test_default_catalogue(void **state) {
    (void)state;
    failure why;
    assert_int_equal(
        make((const char *)ingest_default_catalogue, ingest_default_catalogue_size, &why), ST_OK);
    assert_string_equal(list("create_user"),
                        "i:user i:userprofilevisibility t:user t:usr_external_identity "
                        "t:user_job_profile t:address t:user_educations t:user_org");
    assert_string_equal(list("user_bulk_upload"),
                        "i:user i:userprofilevisibility t:bulk_upload_process_task "
                        "t:bulk_upload_process t:user t:usr_external_identity t:user_job_profile "
                        "t:address t:user_educations t:user_org");
    assert_string_equal(list("create_issuer"), "o:create_issuer");
    assert_string_equal(list("generate_otp"), "n:generate_otp");
    /* Of all that change a user, then an organisation, then courses; each once. */
    assert_string_equal(list("data_sync_api"),
                        "i:user i:org i:batch i:usercourses "
                        "t:user t:usr_external_identity t:user_job_profile t:address "
                        "t:user_educations t:user_org t:bulk_upload_process_task "
                        "t:bulk_upload_process t:course_batch t:user_courses t:user_skills "
                        "t:skills t:organisation t:org_external_identity");
    assert_null(effects_of(made, bytes_of_string("nothing")));
}

static outcome make_text(const char *text, failure *why) { return make(text, strlen(text), why); }

static void test_each_once_in_order(void **state) {
    (void)state;
    failure why;
    assert_int_equal(make_text("a\ttransaction\tr\t-\tx,all_of(b),x\tx,t,all_of(b)\n"
                               "b\ttransaction\tr\t-\ty,x\tu,t,all_of(c)\n"
                               "c\ttransaction\tr\t-\t-\tv\n",
                               &why),
                     ST_OK);
    assert_string_equal(list("a"), "i:x i:y t:x t:t t:u t:v");
}

static void test_circles_are_refused(void **state) {
    (void)state;
    failure why;
    assert_int_equal(make_text("a\ttransaction\tr\t-\t-\tall_of(b)\n"
                               "b\ttransaction\tr\t-\t-\tall_of(a)\n",
                               &why),
                     ST_INVALID);
    assert_non_null(strstr(why.reason, "contains itself"));
    assert_null(made);
}

static void test_complete_of_each_other(void **state) {
    (void)state;
    failure why;
    assert_int_equal(make_text("a\ttransaction\tr\t-\tx\tcomplete(y|x)\n"
                               "b\ttransaction\tr\t-\ty\tu,complete(x)\n"
                               "c\ttransaction\tr\t-\tx\tv\n",
                               &why),
                     ST_OK);
    assert_string_equal(list("a"), "i:x t:u t:v");
    assert_string_equal(list("b"), "i:y t:u t:v");
}

static void test_crc_is_of_the_effects(void **state) {
    (void)state;
    failure why;
    assert_int_equal(make_text("a\ttransaction\tr\t-\tx\ty\n", &why), ST_OK);
    uint32_t crc = effects_crc(made);
    effects_free(made);
    assert_int_equal(make_text("# said otherwise\na\ttransaction\tq\ttopic\tx\tall_of(a2)\n"
                               "a2\ttransaction\tr\t-\t-\ty\n",
                               &why),
                     ST_OK);
    assert_int_not_equal(effects_crc(made), crc); /* there is one more */
    effects_free(made);
    assert_int_equal(make_text("# said otherwise\na\ttransaction\tq\ttopic\tx\ty\n", &why), ST_OK);
    assert_int_equal(effects_crc(made), crc);
    effects_free(made);
    assert_int_equal(make_text("a\ttransaction\tr\t-\ty\tx\n", &why), ST_OK);
    assert_int_not_equal(effects_crc(made), crc);
}

static ingest_verdict nothing(void *arg, const ingest_effect *which, ingest_trouble *trouble) {
    (void)arg, (void)which, (void)trouble;
    return INGEST_DONE;
}

static bool only_tables(const void *arg, effect *one) {
    (void)arg;
    one->handler = nothing;
    return one->kind == INGEST_TABLE;
}

static void test_missing_handler_is_named(void **state) {
    (void)state;
    failure why;
    assert_int_equal(make_text("a\ttransaction\tr\t-\t-\ty\nb\ttransaction\tr\t-\tz\t-\n", &why),
                     ST_OK);
    assert_int_equal(effects_bind(made, only_tables, NULL, &why), ST_PRECONDITION);
    assert_non_null(strstr(why.reason, "the index z of b"));
    assert_ptr_equal(effects_of(made, bytes_of_string("a"))->items[0].handler, nothing);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_default_catalogue, teardown),
        cmocka_unit_test_teardown(test_each_once_in_order, teardown),
        cmocka_unit_test_teardown(test_circles_are_refused, teardown),
        cmocka_unit_test_teardown(test_complete_of_each_other, teardown),
        cmocka_unit_test_teardown(test_crc_is_of_the_effects, teardown),
        cmocka_unit_test_teardown(test_missing_handler_is_named, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
