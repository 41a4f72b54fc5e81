/* Waiting for the position: order, dead letters, cancelling, stopping, on a real store. */
#include "cmocka_includes.h"

#include <stdlib.h>

#include "server/ack_waiters.h"
#include "temporary_store.h"

enum { COUNT = 100 };

typedef struct probe {
    ack_waiter waiter; /* first */
    int calls;
    outcome result;
} probe;

static temporary_store store;
static ack_waiters *all;
static probe probes[COUNT];

static void done(ack_waiter *waiter, outcome result, const char *reason) {
    probe *it = (probe *)(void *)waiter;
    (void)reason;
    it->calls++;
    it->result = result;
}

static void add(probe *it, uint64_t sequence) {
    it->waiter = (ack_waiter){.route = 0, .sequence = sequence, .done = done};
    it->calls = 0;
    ack_waiters_add(all, &it->waiter);
}

static int setup(void **state) {
    (void)state;
    temporary_store_open(&store);
    all = ack_waiters_new(store.store);
    memset(probes, 0, sizeof probes);
    return all ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    ack_waiters_free(all);
    temporary_store_close(&store);
    return 0;
}

static void the_position_answers_what_it_passed(void **state) {
    (void)state;
    for (uint64_t i = 0; i < COUNT; i++)
        add(&probes[i], 1 + (i * 37) % COUNT); /* 37 and 100 are coprime: each once */
    for (uint64_t position = 1; position <= COUNT; position += 9) {
        ack_waiters_position(all, 0, position);
        for (uint64_t i = 0; i < COUNT; i++) {
            assert_int_equal(probes[i].calls, probes[i].waiter.sequence <= position ? 1 : 0);
            if (probes[i].calls) assert_int_equal(probes[i].result, ST_OK);
        }
    }
    ack_waiters_position(all, 0, COUNT);
}

static void what_is_settled_is_answered_at_once(void **state) {
    (void)state;
    ack_waiters_position(all, 0, 10);
    add(&probes[0], 10);
    assert_int_equal(probes[0].calls, 1);
    add(&probes[1], 11);
    assert_int_equal(probes[1].calls, 0);
    ack_waiters_position(all, 0, 11);
    assert_int_equal(probes[1].result, ST_OK);
}

static void a_dead_letter_answers_its_own(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 10; i++)
        add(&probes[i], 1 + i / 2);
    ack_waiters_dead(all, 0, 3, "poison");
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(probes[i].calls, 1 + i / 2 == 3 ? 1 : 0);
    assert_int_equal(probes[4].result, ST_DEAD_LETTER);
    ack_waiters_position(all, 0, 5);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(probes[i].calls, 1);
}

/* The position is not known yet after a start, and will pass it without a word. */
static void a_letter_known_dead_is_not_taken_for_published(void **state) {
    (void)state;
    probes[0].waiter = (ack_waiter){.route = 0, .sequence = 5, .dead = true, .done = done};
    ack_waiters_add(all, &probes[0].waiter);
    assert_int_equal(probes[0].calls, 1);
    assert_int_equal(probes[0].result, ST_DEAD_LETTER);
}

static void a_cancelled_waiter_is_let_go_in_either_order(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 20; i++)
        add(&probes[i], 20 - i);
    ack_waiters_cancel(all, &probes[7].waiter);
    assert_int_equal(probes[7].calls, 1);
    assert_int_equal(probes[7].result, ST_TIMEOUT);
    probes[30].waiter = (ack_waiter){.route = 0, .sequence = 15, .done = done};
    ack_waiters_cancel(all, &probes[30].waiter);
    assert_int_equal(probes[30].calls, 0);
    ack_waiters_add(all, &probes[30].waiter);
    assert_int_equal(probes[30].result, ST_TIMEOUT);
    ack_waiters_position(all, 0, 20);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(probes[i].calls, 1);
}

static void stopping_answers_all_now_and_later(void **state) {
    (void)state;
    add(&probes[0], 5);
    ack_waiters_stop(all);
    assert_int_equal(probes[0].result, ST_STOPPING);
    add(&probes[1], 6);
    assert_int_equal(probes[1].result, ST_STOPPING);
    assert_int_equal(probes[1].calls, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_position_answers_what_it_passed),
        TEST(what_is_settled_is_answered_at_once),
        TEST(a_dead_letter_answers_its_own),
        TEST(a_letter_known_dead_is_not_taken_for_published),
        TEST(a_cancelled_waiter_is_let_go_in_either_order),
        TEST(stopping_answers_all_now_and_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
