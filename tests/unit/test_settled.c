/* When the window of a published event's id is over. */
#include "storage/settled.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { WINDOW_MS = 24000 }; /* a mark a second */

static void a_window_runs_from_the_mark(void **state) {
    (void)state;
    settled_marks marks = {0};
    assert_false(settled_note(&marks, 0, 1000000, WINDOW_MS)); /* nothing settled yet */
    assert_true(settled_note(&marks, 10, 1000000, WINDOW_MS));
    assert_false(settled_note(&marks, 20, 1000999, WINDOW_MS));
    assert_true(settled_note(&marks, 30, 1001000, WINDOW_MS));
    assert_false(settled_note(&marks, 30, 1023999, WINDOW_MS));
    assert_int_equal(marks.expired, 0);
    (void)settled_note(&marks, 30, 1024000, WINDOW_MS);
    assert_int_equal(marks.expired, 10);
    (void)settled_note(&marks, 30, 1024999, WINDOW_MS);
    assert_int_equal(marks.expired, 10);
    (void)settled_note(&marks, 30, 1025000, WINDOW_MS);
    assert_int_equal(marks.expired, 30);
}

static void marks_are_few_and_survive(void **state) {
    (void)state;
    settled_marks marks = {0};
    for (int64_t ms = 1; ms < 10 * WINDOW_MS; ms += 7) {
        (void)settled_note(&marks, (uint64_t)ms, ms, WINDOW_MS);
        assert_in_range(marks.count, 1, 26);
        if (ms > WINDOW_MS + 1007)
            assert_in_range(marks.expired, ms - WINDOW_MS - 1007, ms - WINDOW_MS);
    }
    uint8_t value[SETTLED_SIZE_MAX];
    settled_marks again = {0};
    bytes saved = settled_put(&marks, value);
    assert_true(settled_get(&again, saved));
    assert_int_equal(again.count, marks.count);
    (void)settled_note(&again, 1, 10 * WINDOW_MS, WINDOW_MS);
    (void)settled_note(&marks, 1, 10 * WINDOW_MS, WINDOW_MS);
    assert_int_equal(again.expired, marks.expired);
    saved.len--;
    assert_false(settled_get(&again, saved));
}

/* Nothing is forgotten too early, and marking goes on. */
static void a_clock_set_back_and_a_longer_window(void **state) {
    (void)state;
    settled_marks marks = {0};
    assert_true(settled_note(&marks, 10, 9000000, WINDOW_MS));
    assert_false(settled_note(&marks, 20, 1000000, WINDOW_MS));
    assert_true(settled_note(&marks, 20, 1001000, WINDOW_MS));
    assert_int_equal(marks.expired, 0);
    (void)settled_note(&marks, 20, 1024000, WINDOW_MS);
    assert_int_equal(marks.expired, 10);

    marks = (settled_marks){0};
    for (int64_t ms = 1000; ms < 20 * WINDOW_MS; ms += 1000)
        (void)settled_note(&marks, (uint64_t)ms, ms, ms < WINDOW_MS ? WINDOW_MS : 100 * WINDOW_MS);
    assert_int_equal(marks.expired, 0);
    assert_in_range(marks.count, 24, SETTLED_MARKS_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_runs_from_the_mark),
        cmocka_unit_test(marks_are_few_and_survive),
        cmocka_unit_test(a_clock_set_back_and_a_longer_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
