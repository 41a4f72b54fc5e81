/* ingestctl's pure parts: events out of a text and their ids, tables, latencies. */
#include "cmocka_includes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ingestctl/input.h"
#include "client/ingestctl/latency.h"
#include "client/ingestctl/output.h"
#include "client/publisher/event.h"

#define EVENT(id) "{\"id\":\"" id "\",\"source\":\"s\",\"informative\":{\"name\":\"n\"}}"
#define NO_ID "{\"source\":\"s\",\"informative\":{\"name\":\"n\"}}"

/* ---- input --------------------------------------------------------------------------------- */

static char path[64];

static input *of_text(const char *text, size_t len, const char *id_prefix) {
    (void)snprintf(path, sizeof path, "/tmp/test_ingestctl.XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    (void)close(fd);
    input *in = input_open(path, id_prefix);
    (void)unlink(path);
    assert_non_null(in);
    return in;
}

/* "1:a 2:b 3:!": number and id of each event, "!" for one with an error. */
static const char *all_of(input *in) {
    static char said[4096];
    size_t used = 0;
    ingest_event *event;
    said[0] = '\0';
    while ((event = input_next(in)) != NULL) {
        used += (size_t)snprintf(said + used, sizeof said - used, "%s%llu:%s", used ? " " : "",
                                 (unsigned long long)input_number(in),
                                 ingest_event_error(event) ? "!" : ingest_event_id(event));
        assert_true(used < sizeof said);
        ingest_event_free(event);
    }
    assert_false(input_failed(in));
    input_close(in);
    return said;
}

static const char *events_of(const char *text) { return all_of(of_text(text, strlen(text), "x")); }

static void test_lines_and_documents(void **state) {
    (void)state;
    assert_string_equal(events_of(""), "");
    assert_string_equal(events_of("\n \r\n"), "");
    assert_string_equal(events_of(EVENT("a") "\n" EVENT("b") "\n"), "1:a 2:b");
    assert_string_equal(events_of(EVENT("a") "\r\n\n  " EVENT("b")), "1:a 3:b");
    assert_string_equal(events_of("[" EVENT("a") ",\n" EVENT("b") "]"), "1:a 2:b");
    assert_string_equal(events_of("\n[]"), "");
    assert_string_equal(events_of("{\n" /* goes on */ "\"id\":\"a\",\"source\":\"s\",\n"
                                  "\"informative\":{\"name\":\"n\"}}"),
                        "1:a");
    assert_string_equal(events_of("[" EVENT("a") ",1]"), "1:a 2:!");
    assert_string_equal(events_of("[" EVENT("a")), "1:!");
}

/* A bad line is one bad line, also as the first. */
static void test_bad_lines(void **state) {
    (void)state;
    assert_string_equal(events_of(EVENT("a") "\n{\n" EVENT("b")), "1:a 2:! 3:b");
    assert_string_equal(events_of("{\"source\":\n" EVENT("b")), "1:! 2:b");
    assert_string_equal(events_of("id,source\n" EVENT("b")), "1:! 2:b");
    assert_string_equal(events_of("\xef\xbb\xbf" EVENT("a") "\n" EVENT("b")), "1:! 2:b");
    static const char WITH_NUL[] = EVENT("a") "\n\0\n" EVENT("b");
    assert_string_equal(all_of(of_text(WITH_NUL, sizeof WITH_NUL - 1, "x")), "1:a 2:! 3:b");
}

static void test_ids(void **state) {
    (void)state;
    assert_string_equal(events_of(NO_ID "\n\n" EVENT("own") "\n" NO_ID), "1:x-1 3:own 4:x-4");
    assert_string_equal(events_of("[" NO_ID "," NO_ID "]"), "1:x-1 2:x-2");
    char first[4096];
    static const char TEXT[] = NO_ID "\n" NO_ID "\n", OTHER[] = NO_ID "\n" NO_ID "\n\n";
    (void)snprintf(first, sizeof first, "%s", all_of(of_text(TEXT, strlen(TEXT), NULL)));
    assert_string_equal(all_of(of_text(TEXT, strlen(TEXT), NULL)), first);
    assert_string_not_equal(all_of(of_text(OTHER, strlen(OTHER), NULL)), first);
}

/* From where it stands, as after `read` in a shell. */
static void test_standard_input(void **state) {
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    (void)fputs("heading\n" EVENT("a") "\n" EVENT("b") "\n", file);
    (void)fflush(file);
    assert_int_equal(lseek(fileno(file), 8, SEEK_SET), 8);
    assert_int_equal(dup2(fileno(file), STDIN_FILENO), STDIN_FILENO);
    (void)fclose(file);
    assert_string_equal(all_of(input_open("-", NULL)), "1:a 2:b");
}

/* ---- output -------------------------------------------------------------------------------- */

static const char *printed(const table *it) {
    static char text[1024];
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_non_null(out);
    table_print(out, it);
    (void)fclose(out);
    return text;
}

static void test_tables(void **state) {
    (void)state;
    static const char *const HEADINGS[] = {"NAME", ">N", "REASON"};
    table *it = table_new(HEADINGS, 3);
    static const char *const CELLS[] = {"\xc3\xa9t\xc3\xa9s\xc3\xa9",
                                        "1",
                                        "", /* six bytes more */
                                        "a",
                                        "1000",
                                        "\033[2J\xc2\x9b\xff"};
    for (size_t i = 0; i < 6; i++)
        table_add(it, "%s", CELLS[i]);
    assert_string_equal(printed(it), "NAME      N  REASON\n"
                                     "\xc3\xa9t\xc3\xa9s\xc3\xa9     1  \n"
                                     "a      1000  ?[2J??\n");
    table_free(it);
}

static void test_json_texts(void **state) {
    (void)state;
    char text[64] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_non_null(out);
    print_json_bytes(out, bytes_of("a\"\\\n\xc3\xa9\xff\0z", 9));
    (void)fclose(out);
    assert_string_equal(text, "\"a\\\"\\\\\\u000a\xc3\xa9\\ufffd\\u0000z\"");
}

/* ---- latency ------------------------------------------------------------------------------- */

static void test_latency_quantiles(void **state) {
    (void)state;
    static latency times;
    assert_int_equal(latency_quantile_us(&times, 0.5), 0);
    for (uint64_t us = 1; us <= 100000; us++)
        latency_add(&times, us, 1);
    for (int percent = 1; percent <= 99; percent++) {
        const double exact = percent * 1000.0;
        const double found = (double)latency_quantile_us(&times, percent / 100.0);
        assert_true(found >= exact && found <= exact * 1.016 + 1);
    }
    assert_int_equal(latency_quantile_us(&times, 1), 100000);
    latency_add(&times, UINT64_MAX / 2, 1); /* beyond all buckets */
    assert_int_equal(times.max_us, UINT64_MAX / 2);
}

static void test_latency_halves(void **state) {
    (void)state;
    static latency times;
    for (uint64_t us = 0; us < 1024; us++)
        latency_add(&times, us, 1);
    for (uint64_t us = 1; us <= 1024; us *= 2)
        assert_int_equal(latency_below(&times, us), us);
    assert_int_equal(latency_below(&times, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_and_documents),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_standard_input),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_json_texts),
        cmocka_unit_test(test_latency_quantiles),
        cmocka_unit_test(test_latency_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
