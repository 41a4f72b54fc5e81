/* catalogue: the built-in one, and every complaint. */
#include "server/default_catalogue.h"
#include "storage/catalogue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

static const catalogue_entry *find(const catalogue *all, const char *name) {
    return catalogue_find(all, bytes_of_string(name));
}

static void the_built_in_one(void **state) {
    (void)state;
    catalogue *all;
    failure why;
    bytes text = bytes_of(ingest_default_catalogue, ingest_default_catalogue_size);
    assert_int_equal(catalogue_parse(text, &all, &why), ST_OK);
    assert_int_equal(catalogue_count(all), 43);

    const catalogue_entry *entry = find(all, "create_user");
    assert_ptr_equal(entry, catalogue_at(all, 0));
    assert_true(entry->transaction);
    assert_string_equal(entry->route, "transactions");
    assert_null(entry->topic);
    assert_int_equal(entry->index_count + entry->table_count, 8);
    assert_string_equal(entry->indexes[1], "userprofilevisibility");
    assert_string_equal(entry->tables[5], "user_org");

    entry = find(all, "data_sync_api");
    assert_int_equal(entry->table_count, 1);
    assert_string_equal(entry->tables[0], "complete(user|org|batch|usercourses)");
    entry = find(all, "generate_otp");
    assert_false(entry->transaction);
    assert_string_equal(entry->route, "informative");
    assert_int_equal(entry->index_count + entry->table_count, 0);

    for (size_t i = 0; i < catalogue_count(all); i++)
        assert_ptr_equal(find(all, catalogue_at(all, i)->name), catalogue_at(all, i));
    assert_null(find(all, "create_use"));
    assert_null(find(all, "create_user2"));
    assert_null(find(all, ""));
    catalogue_free(all);
}

static void forms_that_are_taken(void **state) {
    (void)state;
    catalogue *all;
    failure why;
    bytes text = bytes_of_string("# comment\n\n"
                                 "a\ttransaction\tr\tTopic.a\t-\tall_of(b),x\r\n"
                                 "b\tinformative\tr\t-\ti,j\t-");
    assert_int_equal(catalogue_parse(text, &all, &why), ST_OK);
    assert_int_equal(catalogue_count(all), 2);
    assert_string_equal(find(all, "a")->topic, "Topic.a");
    assert_string_equal(find(all, "a")->tables[1], "x");
    assert_string_equal(find(all, "b")->indexes[1], "j");
    catalogue_free(all);
}

static void complaints_name_the_line(void **state) {
    (void)state;
#define FORM "\tr\t-\t-\t-\n"
    static const struct {
        const char *text, *field, *reason;
    } CASES[] = {
        {"", "catalogue:1", "holds no operation"},
        {"# only this\n\n", "catalogue:3", "holds no operation"},
        {"#\na\tmaybe" FORM, "catalogue:2", "kind: \"maybe\" is neither"},
        {"a\ttransaction\tr\t-\t-\n", "catalogue:1", "has 5 fields, not 6"},
        {"a\ttransaction" FORM "b\ttransaction\tr\t-\t-\t-\t\n", "catalogue:2", "has 7 fields"},
        {"a\ttransaction\t\t-\t-\t-\n", "catalogue:1", "route: is empty"},
        {"a\ttransaction" FORM "\na\tinformative" FORM, "catalogue:3",
         "name: \"a\" stands in line 1 already"},
        {"a b\ttransaction" FORM, "catalogue:1", "name: \"a b\" is not"},
        {"-\ttransaction" FORM, "catalogue:1", "name: \"-\" is not"},
        {"a\ttransaction\tR\t-\t-\t-\n", "catalogue:1", "route: \"R\" is not"},
        {"a\ttransaction\tr\t..\t-\t-\n", "catalogue:1", "topic: \"..\" is not"},
        {"a\ttransaction\tr\t-\tx,,y\t-\n", "catalogue:1", "indexes: \"\" is not"},
        {"a\ttransaction\tr\t-\t-\tx, y\n", "catalogue:1", "tables: \" y\" is not"},
        {"a\ttransaction\tr\t-\t-\tall_of()\n", "catalogue:1", "tables: \"all_of()\" is not"},
        {"a\ttransaction\tr\t-\t-\tcomplete(a||b)\n", "catalogue:1", "tables: "},
        {"a\ttransaction\tr\t-\t-\tcomplete(a\n", "catalogue:1", "tables: "},
        {"a\ttransaction\tr\t-\t-\tall_of(a|b)\n", "catalogue:1", "tables: "},
        {"a\ttransaction\tr\t-\t-\tall_of(c)\n", "catalogue:1",
         "all_of(c): there is no such operation"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        catalogue *all;
        failure why;
        assert_int_equal(catalogue_parse(bytes_of_string(CASES[i].text), &all, &why), ST_INVALID);
        assert_null(all);
        assert_string_equal(why.field, CASES[i].field);
        if (strncmp(why.reason, CASES[i].reason, strlen(CASES[i].reason)) != 0)
            fail_msg("case %zu: %s", i, why.reason);
        assert_int_equal(catalogue_parse(bytes_of_string(CASES[i].text), &all, NULL), ST_INVALID);
    }
    catalogue *all;
    failure why;
    assert_int_equal(catalogue_parse(bytes_of("a\0b", 3), &all, &why), ST_INVALID);
    assert_string_equal(why.field, "catalogue");
}

static void many_entries(void **state) {
    (void)state;
    static char text[1 << 19];
    size_t len = 0;
    for (int i = 0; i < 10000; i++)
        len += (size_t)snprintf(text + len, sizeof text - len,
                                "operation_%d\ttransaction\tr\t-\ta,b\tc\n", i);
    catalogue *all;
    failure why;
    assert_int_equal(catalogue_parse(bytes_of(text, len), &all, &why), ST_OK);
    assert_int_equal(catalogue_count(all), 10000);
    assert_string_equal(find(all, "operation_9999")->tables[0], "c");
    assert_null(find(all, "operation_10000"));
    catalogue_free(all);
}

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        cmocka_unit_test(the_built_in_one),
        cmocka_unit_test(forms_that_are_taken),
        cmocka_unit_test(complaints_name_the_line),
        cmocka_unit_test(many_entries),
    };
    return cmocka_run_group_tests_name("catalogue", TESTS, NULL, NULL);
}
