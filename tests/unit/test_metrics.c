/* metrics: the text format, escapes, and histograms under two threads. */
#include "server/metrics.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

static const char *text_of(metrics_writer *to) {
    text_add(to->text, "", 1);
    assert_false(to->text->failed);
    return to->text->data;
}

static void samples(void **state) {
    (void)state;
    text_buffer body = {0};
    metrics_writer to = {.text = &body};
    metrics_family(&to, METRICS_COUNTER, "a_total", "Help \\ with\nbreaks \"kept\".");
    metrics_integer(&to, METRICS_LABELS({"route", "x"}, {"why", "a \"b\"\\\nc"}), UINT64_MAX);
    metrics_integer(&to, METRICS_LABELS({"route", NULL}), 0);
    metrics_family(&to, METRICS_GAUGE, "b", "B.");
    metrics_real(&to, METRICS_NO_LABELS, 0.25);
    metrics_real(&to, METRICS_NO_LABELS, NAN);
    metrics_real(&to, METRICS_NO_LABELS, -INFINITY);
    assert_string_equal(text_of(&to), "# HELP a_total Help \\\\ with\\nbreaks \"kept\".\n"
                                      "# TYPE a_total counter\n"
                                      "a_total{route=\"x\",why=\"a \\\"b\\\"\\\\\\nc\"} "
                                      "18446744073709551615\n"
                                      "a_total{route=\"\"} 0\n"
                                      "# HELP b B.\n# TYPE b gauge\n"
                                      "b 0.25\nb NaN\nb -Inf\n");
    text_free(&body);
}

static void text_grows(void **state) {
    (void)state;
    text_buffer text = {0};
    for (int i = 0; i < 10000; i++)
        text_format(&text, "%05d,", i);
    assert_int_equal(text.len, 60000);
    assert_memory_equal(text.data + 59994, "09999,", 6);
    text_free(&text);
    assert_null(text.data);
}

static void histograms(void **state) {
    (void)state;
    static const struct {
        uint64_t us;
        int bucket;
    } CASES[] = {{0, 0},        {1, 1},        {2, 2},          {3, 2},
                 {4, 3},        {1023, 10},    {1024, 11},      {4194303, 22},
                 {4194304, 23}, {8388608, 23}, {UINT32_MAX, 23}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        histogram it = {0};
        histogram_observe(&it, CASES[i].us);
        assert_int_equal(it.buckets[CASES[i].bucket], 1);
    }

    histogram it = {0};
    histogram_observe(&it, 1);
    histogram_observe(&it, 1000);
    histogram_observe(&it, 60000000);
    text_buffer body = {0};
    metrics_writer to = {.text = &body};
    metrics_family(&to, METRICS_HISTOGRAM, "h_seconds", "H.");
    metrics_histogram(&to, METRICS_LABELS({"route", "r"}), &it);
    const char *text = text_of(&to);
    static const char BEGIN[] = "# HELP h_seconds H.\n# TYPE h_seconds histogram\n"
                                "h_seconds_bucket{route=\"r\",le=\"1e-06\"} 0\n"
                                "h_seconds_bucket{route=\"r\",le=\"2e-06\"} 1\n";
    assert_memory_equal(text, BEGIN, sizeof BEGIN - 1);
    assert_non_null(strstr(text, "h_seconds_bucket{route=\"r\",le=\"0.000512\"} 1\n"));
    assert_non_null(strstr(text, "h_seconds_bucket{route=\"r\",le=\"0.001024\"} 2\n"));
    assert_non_null(strstr(text, "h_seconds_bucket{route=\"r\",le=\"4.194304\"} 2\n"
                                 "h_seconds_bucket{route=\"r\",le=\"+Inf\"} 3\n"
                                 "h_seconds_sum{route=\"r\"} 60.001001\n"
                                 "h_seconds_count{route=\"r\"} 3\n"));
    text_free(&body);

    to = (metrics_writer){.text = &body};
    metrics_family(&to, METRICS_HISTOGRAM, "h_seconds", "H.");
    metrics_buckets(&to, METRICS_NO_LABELS, (uint64_t[HISTOGRAM_BUCKETS]){1}, 0);
    assert_non_null(strstr(text_of(&to), "h_seconds_bucket{le=\"1e-06\"} 1\n"));
    text_free(&body);
}

static void *observe(void *it) {
    for (uint64_t i = 0; i < 50000; i++)
        histogram_observe(it, i);
    return NULL;
}

static void threads_lose_nothing(void **state) {
    (void)state;
    static histogram it;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, observe, &it), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    uint64_t count = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += it.buckets[i];
    assert_int_equal(count, 100000);
    assert_int_equal(it.sum_us, 2 * (uint64_t)49999 * 50000 / 2);
}

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        cmocka_unit_test(samples),
        cmocka_unit_test(text_grows),
        cmocka_unit_test(histograms),
        cmocka_unit_test(threads_lose_nothing),
    };
    return cmocka_run_group_tests_name("metrics", TESTS, NULL, NULL);
}
