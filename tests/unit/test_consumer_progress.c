/* The text of progress, and the window that it is made from. */
#include "client/consumer/progress.h"
#include "client/consumer/window.h"

#include "cmocka_includes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CRC = 0x1a2b3c4d };

static char text[PROGRESS_TEXT_MAX + 1];
static const moves NO_MOVES;

static outcome parse(const char *given, progress *out, failure *why) {
    return progress_parse(bytes_of_string(given), out, why);
}

/* ---- the text ------------------------------------------------------------------------------ */

static void test_known_text(void **state) {
    (void)state;
    progress_writer to;
    progress found;
    progress_begin(&to);
    progress_add(&to, PROGRESS_PARTLY + 3, 1);
    progress_add(&to, PROGRESS_DONE, 200);
    progress_add(&to, PROGRESS_DONE, 100);
    progress_add(&to, PROGRESS_NOT_BEGUN, 5);
    const size_t len = progress_end(&to, CRC, &NO_MOVES, text);
    assert_int_equal(len, strlen(text));
    assert_string_equal(text, "1.1a2b3c4d.BQEBrAI"); /* what other versions have to read */
    assert_int_equal(parse(text, &found, NULL), ST_OK);
    assert_int_equal(found.crc, CRC);
    assert_int_equal(progress_state(&found, 0), PROGRESS_PARTLY + 3);
    assert_int_equal(progress_state(&found, 1), PROGRESS_DONE);
    assert_int_equal(progress_state(&found, 300), PROGRESS_DONE);
    assert_int_equal(progress_state(&found, 301), PROGRESS_NOT_BEGUN);
    assert_int_equal(progress_state(&found, UINT64_MAX), PROGRESS_NOT_BEGUN);
}

static void test_nothing_is_ours_all_the_same(void **state) {
    (void)state;
    progress_writer to;
    progress found;
    progress_begin(&to);
    progress_add(&to, PROGRESS_NOT_BEGUN, 700);
    progress_end(&to, CRC, &NO_MOVES, text);
    assert_string_equal(text, "1.1a2b3c4d.");
    assert_int_equal(parse(text, &found, NULL), ST_OK);
    assert_true(found.ours);
    assert_int_equal(progress_state(&found, 0), PROGRESS_NOT_BEGUN);
    assert_int_equal(parse("", &found, NULL), ST_OK);
    assert_false(found.ours);
    assert_int_equal(progress_state(&found, 0), PROGRESS_NOT_BEGUN);
}

/* ---- moves ----------------------------------------------------------------------------------- */

enum { OURS = 7, THEIRS = 9 };

static void test_moves_come_with_the_text(void **state) {
    (void)state;
    moves moved = {0};
    progress_writer to;
    progress found;
    assert_true(moves_add(&moved, 300, OURS) && moves_add(&moved, 5, THEIRS));
    moves_unsure(&moved, 4);
    progress_begin(&to);
    progress_add(&to, PROGRESS_PARTLY + 3, 1);
    progress_end(&to, CRC, &moved, text);
    assert_string_equal(text, "1.1a2b3c4d.BQE.BKwCBwAAAAAAAAAFCQAAAAAAAAA");
    assert_int_equal(parse(text, &found, NULL), ST_OK);
    assert_int_equal(progress_state(&found, 0), PROGRESS_PARTLY + 3);
    assert_int_equal(found.moves.unsure_below, 4);
    assert_true(moves_has(&found.moves, 300, OURS) && moves_has(&found.moves, 5, THEIRS));
    assert_false(moves_has(&found.moves, 300, THEIRS) || moves_has(&found.moves, 4, THEIRS));
}

static void test_the_longest_text_has_room_for_all_moves(void **state) {
    (void)state;
    moves moved = {.unsure_below = INT64_MAX};
    progress_writer to;
    progress found;
    for (int i = 0; i < MOVES_MAX; i++)
        assert_true(moves_add(&moved, INT64_MAX - i, OURS));
    progress_begin(&to);
    for (unsigned i = 0; to.len + 4 <= sizeof to.encoded; i++)
        progress_add(&to, PROGRESS_PARTLY + i % 2, 1);
    assert_true(progress_end(&to, CRC, &moved, text) <= PROGRESS_TEXT_MAX);
    assert_int_equal(parse(text, &found, NULL), ST_OK);
    assert_int_equal(found.moves.count, MOVES_MAX);
}

/* What another store has not claimed goes for what is new, and leaves a doubt; of our own, nothing.
 */
static void test_moves_are_bounded(void **state) {
    (void)state;
    moves it = {0};
    assert_true(moves_add(&it, 1000, THEIRS));
    for (int i = 0; i < MOVES_MAX; i++)
        assert_true(moves_add(&it, i, OURS));
    assert_int_equal(it.unsure_below, 1001);
    assert_false(moves_has(&it, 1000, THEIRS));
    assert_false(moves_add(&it, 2000, OURS));
    assert_true(moves_add(&it, 2000, THEIRS)); /* only a test: nobody adds for others */
    assert_false(moves_has(&it, 0, OURS));
    assert_false(moves_drop_known(&it));
    moves_known(&it, 7, OURS);
    moves_known(&it, 2000, OURS);
    assert_true(moves_drop_known(&it));
    assert_int_equal(it.count, MOVES_MAX - 1);
    assert_true(moves_has(&it, 2000, THEIRS));
    moves_drop_store(&it, OURS);
    assert_int_equal(it.count, 1);
}

/* ---- random texts ---------------------------------------------------------------------------- */

static void test_random_texts_come_back(void **state) {
    (void)state;
    for (unsigned seed = 1; seed <= 200; seed++) {
        uint32_t states[600];
        progress_writer to;
        progress found;
        srand(seed);
        progress_begin(&to);
        for (size_t i = 0; i < 600; i++) {
            states[i] = rand() % 3 ? (uint32_t)rand() % 2 : (uint32_t)rand() % 20000;
            progress_add(&to, states[i], 1);
        }
        progress_end(&to, seed, &NO_MOVES, text);
        assert_int_equal(parse(text, &found, NULL), ST_OK);
        for (size_t i = 0; i < 600; i++)
            assert_int_equal(progress_state(&found, i), states[i]);
    }
}

static void test_foreign_texts_are_refused(void **state) {
    (void)state;
    static const char *const BAD[] = {"x",
                                      "1.",
                                      "some words",
                                      "1.1a2b3c4d",
                                      "1.1A2B3C4D.BQE",
                                      "1.1a2b3c4d,BQE",
                                      "1.1a2b3c4d.BQ",      /* a state without a length */
                                      "1.1a2b3c4d.BQA",     /* a run of none */
                                      "1.1a2b3c4d.BQF",     /* bits behind the end */
                                      "1.1a2b3c4d.B",       /* no whole byte */
                                      "1.1a2b3c4d.BQE=",    /* no padding in ours */
                                      "1.1a2b3c4d.BQGAgIA", /* a varint without an end */
                                      "1.1a2b3c4d.BQE.",    /* moves, but none */
                                      "1.1a2b3c4d.BQE.BAU", /* half a move */
                                      "1.1a2b3c4d.BQE.BA.BA",
                                      "0.1a2b3c4d.BQE"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        progress found;
        failure why;
        if (parse(BAD[i], &found, &why) != ST_INVALID) fail_msg("taken: %s", BAD[i]);
        assert_int_equal(progress_state(&found, 0), PROGRESS_NOT_BEGUN);
    }
    progress found;
    failure why;
    assert_int_equal(parse("2.whatever", &found, &why), ST_UNIMPLEMENTED);
}

/* ---- the window ------------------------------------------------------------------------------ */

static uint64_t add(window *it, int64_t offset, uint32_t effects) {
    uint64_t number;
    assert_true(window_add(it, offset, effects, PROGRESS_NOT_BEGUN, NULL, &number));
    return number;
}

static void test_offset_is_the_first_not_done(void **state) {
    (void)state;
    window it;
    progress found;
    window_init(&it, 100);
    assert_int_equal(window_offset(&it), 100);
    uint64_t a = add(&it, 101, 8), b = add(&it, 102, 8), c = add(&it, 107, 8);
    assert_true(window_begin(&it, a) && window_begin(&it, b));
    window_set(&it, b, PROGRESS_DONE);
    window_set(&it, a, PROGRESS_PARTLY + 5);
    assert_int_equal(window_offset(&it), 101);
    window_text(&it, CRC, &NO_MOVES, text);
    assert_int_equal(parse(text, &found, NULL), ST_OK);
    assert_int_equal(progress_state(&found, 0), PROGRESS_PARTLY + 5);
    assert_int_equal(progress_state(&found, 1), PROGRESS_DONE);
    assert_int_equal(progress_state(&found, 5), PROGRESS_DONE); /* no record: of the run before */
    assert_int_equal(progress_state(&found, 6), PROGRESS_NOT_BEGUN);
    window_set(&it, a, PROGRESS_DONE);
    assert_int_equal(window_offset(&it), 107);
    window_set(&it, c, PROGRESS_DONE);
    assert_int_equal(window_offset(&it), 108);
    assert_int_equal(it.counted, 0);
    window_passed(&it, 110);
    assert_int_equal(window_offset(&it), 110);
    window_free(&it);
}

/* Whatever begins, the text fits; and something may always begin. */
static void run_randomly(unsigned seed, uint32_t effects_max, bool groups) {
    window it;
    int64_t offset = 0;
    uint64_t refused = 0;
    srand(seed);
    window_init(&it, 0);
    for (unsigned step = 0; step < 20000; step++) {
        const unsigned what = (unsigned)rand() % 10;
        if (what < 4 && (it.counted < 700 || groups)) {
            offset += rand() % 50 ? 1 : 1 + rand() % 500;
            uint64_t number = add(&it, offset, 1 + (uint32_t)rand() % effects_max);
            if (groups && rand() % 4) window_wait(&it, number);
        } else if (it.first < it.end) {
            uint64_t number = it.first + (uint64_t)rand() % (it.end - it.first);
            window_entry *one = window_at(&it, number);
            if (one->part) window_whole(&it, number, one->effects);
            if (one->state == PROGRESS_DONE) continue;
            if (!window_begin(&it, number)) {
                refused++;
                assert_true(window_begin(&it, it.first));
                continue;
            }
            uint32_t next =
                one->state ? one->state + 1 + (uint32_t)rand() % 5 : PROGRESS_PARTLY + 1;
            bool done = next >= PROGRESS_PARTLY + one->effects || rand() % 3 == 0;
            window_set(&it, number, done ? PROGRESS_DONE : next);
        }
        if (step % 16 == 0) window_text(&it, CRC, &NO_MOVES, text); /* asserts that it fits */
    }
    if (groups) assert_true(refused > 0);
    window_free(&it);
}

static void test_text_always_fits(void **state) {
    (void)state;
    for (unsigned seed = 1; seed <= 10; seed++) {
        run_randomly(seed, 10, false);
        run_randomly(seed, 30000, false);
        run_randomly(seed, 30000, true);
    }
}

static void test_waiting_parts_take_no_room(void **state) {
    (void)state;
    window it;
    window_init(&it, 0);
    for (int64_t offset = 0; offset < 50000; offset++)
        window_wait(&it, add(&it, offset, 1));
    assert_int_equal(it.counted, 0);
    for (int64_t offset = 50000; offset < 50700; offset++)
        assert_true(window_begin(&it, add(&it, offset, 8)));
    assert_int_equal(it.counted, 700);
    for (uint64_t number = 50000; number < 50700; number++)
        window_set(&it, number, PROGRESS_PARTLY + 7);
    assert_true(window_text(&it, CRC, &NO_MOVES, text) <= PROGRESS_TEXT_MAX);
    window_free(&it);
}

static void test_found_states_stay(void **state) {
    (void)state;
    window it;
    uint64_t number;
    window_init(&it, 10);
    assert_true(window_add(&it, 10, 8, PROGRESS_DONE, NULL, &number));
    assert_int_equal(window_offset(&it), 11);
    assert_true(window_add(&it, 11, 8, PROGRESS_PARTLY + 2, NULL, &number));
    assert_true(window_at(&it, number)->begun);
    assert_int_equal(window_at(&it, number)->state, PROGRESS_PARTLY + 2);
    window_free(&it);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_text),
        cmocka_unit_test(test_nothing_is_ours_all_the_same),
        cmocka_unit_test(test_moves_come_with_the_text),
        cmocka_unit_test(test_the_longest_text_has_room_for_all_moves),
        cmocka_unit_test(test_moves_are_bounded),
        cmocka_unit_test(test_random_texts_come_back),
        cmocka_unit_test(test_foreign_texts_are_refused),
        cmocka_unit_test(test_offset_is_the_first_not_done),
        cmocka_unit_test(test_text_always_fits),
        cmocka_unit_test(test_waiting_parts_take_no_room),
        cmocka_unit_test(test_found_states_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
