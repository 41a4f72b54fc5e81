/*
 * The publisher's decisions, rule by rule, without Kafka. Whole lives, in which the rules work
 * together against a Kafka that delays, loses and repeats, are tests/simulation's.
 */
/* Before cmocka, whose fail() is another one. */
#include "server/publisher_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const machine_options OPTIONS = {.transactional = true,
                                        .max_events = 64,
                                        .max_bytes = 1 << 20,
                                        .linger_ms = 5,
                                        .doubt_ms = 500,
                                        .seed = 7,
                                        .store_directory = "/data"};

/* ---- single rules ---------------------------------------------------------------------------- */

static publisher_machine machine;
static const machine_order *order;

static void step(machine_event event) {
    if (event.now_ms == 0) event.now_ms = 1000;
    order = machine_step(&machine, &event);
}

#define STEP(...) step((machine_event){__VA_ARGS__})
#define FAIL(what)                                                                                 \
    STEP(.kind = EV_FAILED, .failed = {.fault = (what), .code = 10, .text = "it failed"})
#define SETTLED(...) STEP(.kind = EV_SETTLED, .settled = {__VA_ARGS__})
#define SETTLED_AT(at)                                                                             \
    SETTLED(.found = true, .sequence = (at), .known = ST_OK, .has_published = true,                \
            .last_sequence = 1000)
#define FILLED_TO(last, count)                                                                     \
    STEP(.kind = EV_FILLED,                                                                        \
         .filled = {.last_sequence = (last), .event_sequence = (last), .events = (count)})
#define COMMITTED(ms, lost)                                                                        \
    STEP(.kind = EV_COMMITTED, .committed = {.elapsed_ms = (ms), .transport_error = (lost)})

static void start(void) {
    order = machine_start(&machine, &OPTIONS, 1000);
    assert_int_equal(order->state, M_SETTLING);
}

/* To an open transaction of the next `count` events, about to be committed. */
static void to_commit(uint64_t count) {
    uint64_t last = machine.position + count;
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->state, M_FILLING);
    assert_int_equal(order->from, machine.position + 1);
    FILLED_TO(last, count);
    if (order->state == M_LINGERING) STEP(.kind = EV_TIME, .now_ms = 1005);
    assert_int_equal(order->state, M_FLUSHING);
    assert_int_equal(order->sequence, last);
    STEP(.kind = EV_FLUSHED);
    assert_int_equal(order->state, M_COMMITTING);
}

static void settled_at(uint64_t sequence) {
    start();
    SETTLED_AT(sequence);
    assert_int_equal(order->state, M_IDLE);
    assert_int_equal(machine.position, sequence);
}

static void happy_path(void **state) {
    (void)state;
    settled_at(10);
    to_commit(3);
    COMMITTED(4, false);
    assert_int_equal(order->state, M_IDLE);
    assert_int_equal(machine.position, 13);
    assert_string_equal(machine.text, "");
    STEP(.kind = EV_STOP);
    assert_int_equal(order->state, M_STOPPED);
}

static void first_record_is_written_and_read_back_before_any_event(void **state) {
    (void)state;
    start();
    SETTLED(.last_sequence = 5);
    assert_int_equal(order->state, M_BEGINNING);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->state, M_FLUSHING); /* the position alone */
    assert_int_equal(order->sequence, 0);
    STEP(.kind = EV_FLUSHED);
    COMMITTED(3, false);
    assert_int_equal(order->state, M_PAUSED);
    assert_int_equal(order->wait_ms, 0);
    STEP(.kind = EV_TIME);
    SETTLED(.found = true, .known = ST_OK, .last_sequence = 5);
    assert_int_equal(order->state, M_ANCHORING);
    STEP(.kind = EV_ANCHORED);
    assert_int_equal(order->state, M_IDLE);
}

/* An opening that died between writing position 0 and anchoring it is forgotten by the store. */
static void first_record_of_a_forgotten_opening_is_sound(void **state) {
    (void)state;
    start();
    SETTLED(.found = true, .known = ST_NOT_FOUND, .last_sequence = 5);
    assert_int_equal(order->state, M_ANCHORING);
}

static void slow_or_disturbed_commit_is_a_doubt(void **state) {
    (void)state;
    const struct {
        int64_t ms;
        bool lost;
        bool believed;
    } CASES[] = {{0, false, true}, {499, false, true}, {500, false, false}, {3, true, false}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        settled_at(10);
        to_commit(2);
        COMMITTED(CASES[i].ms, CASES[i].lost);
        assert_int_equal(machine.position, CASES[i].believed ? 12 : 10);
        assert_int_equal(order->discard, CASES[i].believed ? FAULT_NONE : FAULT_DOUBT);
        assert_int_equal(order->state, CASES[i].believed ? M_IDLE : M_PAUSED);
    }
}

static void every_failure_discards_and_settles(void **state) {
    (void)state;
    for (fault what = FAULT_AWAY; what < FAULT_BUG; what++) {
        if (what == FAULT_RECORD) continue;
        for (int depth = 0; depth < 4; depth++) {
            settled_at(10);
            STEP(.kind = EV_AVAILABLE);
            if (depth > 0) STEP(.kind = EV_BEGUN);
            if (depth > 1) FILLED_TO(74, 64);
            if (depth > 2) STEP(.kind = EV_FLUSHED);
            FAIL(what);
            assert_int_equal(order->state, M_PAUSED);
            assert_int_equal(order->discard, what);
            assert_true(order->wait_ms > 0 && order->wait_ms <= 60000);
            assert_int_equal(machine.position, 10);
            STEP(.kind = EV_TIME);
            assert_int_equal(order->state, M_SETTLING);
        }
    }
}

static void standing_follows_the_fault_until_a_success(void **state) {
    (void)state;
    settled_at(10);
    to_commit(2);
    FAIL(FAULT_ROUTE);
    assert_int_equal(machine.standing, STANDING_BLOCKED);
    assert_true(order->report);
    STEP(.kind = EV_TIME);
    FAIL(FAULT_AWAY); /* a lesser trouble ends no alarm */
    assert_int_equal(machine.standing, STANDING_BLOCKED);
    STEP(.kind = EV_TIME);
    SETTLED_AT(10); /* settling proves nothing about the topic */
    assert_int_equal(machine.standing, STANDING_BLOCKED);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->upto, 11); /* a probe */
    FILLED_TO(11, 1);
    STEP(.kind = EV_FLUSHED);
    COMMITTED(1, false);
    assert_int_equal(machine.standing, STANDING_GOOD);
    assert_true(order->report);
    to_commit(2);
    COMMITTED(1, false);
    assert_int_equal(machine.limit, 4); /* grows again */
}

/* Kafka answers each time it is asked where the route stands, and yet takes no record. */
static void flushes_that_run_out_of_time_block_the_route(void **state) {
    (void)state;
    settled_at(10);
    for (int round = 1; round <= MACHINE_STUCK; round++) {
        STEP(.kind = EV_AVAILABLE);
        STEP(.kind = EV_BEGUN);
        FILLED_TO(74, 64);
        FAIL(FAULT_AWAY);
        assert_int_equal(machine.standing,
                         round < MACHINE_STUCK ? STANDING_RETRYING : STANDING_BLOCKED);
        STEP(.kind = EV_TIME);
        SETTLED_AT(10);
    }
    assert_int_equal(machine.standing, STANDING_BLOCKED);
    to_commit(64);
    COMMITTED(3, false);
    assert_int_equal(machine.standing, STANDING_GOOD);
    assert_int_equal(machine.stuck, 0);
}

/* A partition without enough replicas does not take the end of its transaction either, so that even
 * settling gets no further. */
static void settling_that_is_stuck_blocks_the_route(void **state) {
    (void)state;
    settled_at(10);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    FILLED_TO(74, 64);
    FAIL(FAULT_AWAY);
    STEP(.kind = EV_TIME);
    FAIL(FAULT_STUCK);
    assert_int_equal(machine.standing, STANDING_BLOCKED);
    STEP(.kind = EV_TIME);
    SETTLED_AT(10);
    assert_int_equal(machine.standing, STANDING_GOOD);
}

static void pauses_grow_and_are_bounded(void **state) {
    (void)state;
    start();
    int64_t sum = 0;
    for (int i = 0; i < 50; i++) {
        FAIL(FAULT_AWAY);
        assert_true(order->wait_ms >= 50 && order->wait_ms <= 10000);
        if (i > 8) assert_true(order->wait_ms >= 5000);
        sum += order->wait_ms;
        STEP(.kind = EV_TIME);
    }
    assert_true(sum > 40 * 5000);
    FAIL(FAULT_AWAY);
    STEP(.kind = EV_STOP);
    assert_int_equal(order->state, M_STOPPED);
}

static void several_fences_raise_the_alarm(void **state) {
    (void)state;
    const struct {
        int64_t apart_ms;
        machine_standing expected;
    } CASES[] = {{1000, STANDING_BLOCKED}, {MACHINE_FENCES_MS, STANDING_RETRYING}};
    for (size_t i = 0; i < 2; i++) {
        settled_at(10);
        for (int64_t n = 0; n < MACHINE_FENCES; n++) {
            to_commit(1);
            STEP(.kind = EV_FAILED, .now_ms = 1000 + n * CASES[i].apart_ms,
                 .failed = {.fault = FAULT_FENCED, .text = "fenced"});
            if (n < MACHINE_FENCES - 1) assert_int_equal(machine.standing, STANDING_RETRYING);
            if (n == MACHINE_FENCES - 1) break;
            STEP(.kind = EV_TIME);
            SETTLED_AT(10);
        }
        assert_int_equal(machine.standing, CASES[i].expected);
    }
}

/* Point 3 of the design's section 6. */
static void halts_when_only_an_operator_can_tell(void **state) {
    (void)state;
    const struct {
        settle_facts facts;
        const char *says;
    } CASES[] = {
        {{.found = true,
          .sequence = 7,
          .known = ST_NOT_FOUND,
          .has_published = true,
          .hint_sequence = 5,
          .last_sequence = 9},
         "rolled back or cloned"},
        {{.found = true,
          .sequence = 7,
          .known = ST_INVALID,
          .has_published = true,
          .hint_sequence = 5,
          .last_sequence = 6},
         "rolled back"},
        {{.found = true,
          .sequence = 7,
          .known = ST_OK,
          .has_published = true,
          .hint_sequence = 5,
          .last_sequence = 6},
         "rolled back"},
        {{.found = false, .has_published = true, .hint_sequence = 5, .last_sequence = 9},
         "no position"},
        {{.found = true,
          .sequence = 4,
          .known = ST_OK,
          .has_published = true,
          .hint_sequence = 6,
          .last_sequence = 9},
         "5..6 were published"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        start();
        STEP(.kind = EV_SETTLED, .settled = CASES[i].facts);
        assert_int_equal(order->state, M_PAUSED);
        assert_int_equal(machine.standing, STANDING_HALTED);
        assert_int_equal(machine.position, 0);
        if (!strstr(machine.text, CASES[i].says)) fail_msg("case %zu: %s", i, machine.text);
        assert_non_null(strstr(machine.text, "ingestctl store restore /data"));
        STEP(.kind = EV_TIME); /* it looks again, for the way out may be outside */
        assert_int_equal(order->state, M_SETTLING);
        SETTLED_AT(8);
        assert_int_equal(machine.standing, STANDING_GOOD);
    }
}

static void what_was_committed_in_this_life_counts_as_hint(void **state) {
    (void)state;
    settled_at(10);
    to_commit(5);
    COMMITTED(1, false);
    to_commit(1);
    FAIL(FAULT_AWAY);
    STEP(.kind = EV_TIME);
    SETTLED_AT(14);
    assert_int_equal(machine.standing, STANDING_HALTED);
    assert_non_null(strstr(machine.text, "15..15"));
}

static void at_least_once_starts_at_the_hint(void **state) {
    (void)state;
    machine_options options = OPTIONS;
    options.transactional = false;
    order = machine_start(&machine, &options, 1);
    SETTLED(.hint_sequence = 5, .last_sequence = 9);
    assert_int_equal(order->state, M_IDLE);
    assert_int_equal(machine.position, 5);
    /* and back to exactly once: the position in Kafka is from before */
    start();
    SETTLED(.found = true, .sequence = 3, .known = ST_OK, .hint_sequence = 5, .last_sequence = 9);
    assert_int_equal(machine.position, 5);
}

static void position_refused_blames_no_event(void **state) {
    (void)state;
    start();
    SETTLED(.last_sequence = 5);
    STEP(.kind = EV_BEGUN);
    FAIL(FAULT_RECORD);
    assert_int_equal(order->state, M_PAUSED);
    assert_int_equal(machine.standing, STANDING_BLOCKED);
}

static void dead_letters_full_blocks_and_tries_again(void **state) {
    (void)state;
    settled_at(10);
    to_commit(1);
    FAIL(FAULT_RECORD);
    assert_int_equal(order->state, M_BURYING);
    assert_int_equal(order->discard, FAULT_RECORD);
    assert_int_equal(order->sequence, 11);
    assert_int_equal(order->code, 10);
    FAIL(FAULT_DEAD_FULL);
    assert_int_equal(order->state, M_PAUSED);
    assert_int_equal(machine.standing, STANDING_BLOCKED);
    assert_int_equal(machine.position, 10);
}

#define TOO_LARGE()                                                                                \
    STEP(.kind = EV_FAILED,                                                                        \
         .failed = {.fault = FAULT_RECORD, .by_size = true, .code = 10, .text = "too large"})

/* To a transaction from the position to `last`, whose largest record has so many bytes. */
static void to_flush(uint64_t last, uint64_t events, uint64_t largest_bytes, bool closed) {
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    STEP(.kind = EV_FILLED, .filled = {.last_sequence = last,
                                       .event_sequence = last,
                                       .events = events,
                                       .largest_bytes = largest_bytes,
                                       .closed = closed});
    if (order->state == M_LINGERING) STEP(.kind = EV_TIME, .now_ms = 1005);
    assert_int_equal(order->state, M_FLUSHING);
}

static void the_largest_record_is_suspected_and_goes_alone(void **state) {
    (void)state;
    settled_at(10);
    to_flush(74, 64, 5000, false);
    TOO_LARGE();
    assert_int_equal(order->state, M_PAUSED); /* not condemned yet */
    STEP(.kind = EV_TIME);
    assert_int_equal(order->batch, 0);
    SETTLED_AT(10);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->suspect, 5000);
    assert_int_equal(order->upto, 74); /* not halved */
    assert_true(order->empty);
    STEP(.kind = EV_FILLED,
         .filled = {.last_sequence = 40, .event_sequence = 40, .events = 30, .closed = true});
    STEP(.kind = EV_FLUSHED);
    COMMITTED(1, false);
    assert_int_equal(machine.position, 40);
    to_flush(41, 1, 5000, true);
    TOO_LARGE();
    assert_int_equal(order->state, M_BURYING);
    assert_int_equal(order->sequence, 41);
    assert_int_equal(order->attempts, 2);
    STEP(.kind = EV_BURIED);
    STEP(.kind = EV_TIME);
    SETTLED_AT(40);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->suspect,
                     5000); /* the next one as large is not even tried with others */
    assert_int_equal(order->upto, 104);
}

static void a_suspect_that_gets_through_shifts_the_suspicion_to_the_batches(void **state) {
    (void)state;
    settled_at(10);
    to_flush(74, 64, 600, false);
    TOO_LARGE();
    STEP(.kind = EV_TIME);
    SETTLED_AT(10);
    to_flush(11, 1, 600, true);
    STEP(.kind = EV_FLUSHED);
    COMMITTED(1, false);
    uint64_t batch = MACHINE_BATCH_BYTES;
    while (batch > 600) {
        to_flush(75, 64, 600, false);
        assert_int_equal(order->suspect, 0);
        TOO_LARGE();
        assert_int_equal(order->state, M_PAUSED);
        STEP(.kind = EV_TIME);
        assert_true(order->batch < batch && order->batch >= 600);
        batch = order->batch;
        SETTLED_AT(11);
    }
    to_flush(75, 64, 600, false);
    TOO_LARGE(); /* no batch is left to blame: the topic takes less than it did */
    STEP(.kind = EV_TIME);
    SETTLED_AT(11);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->upto, 11 + 32);
}

/* What got through while the topic took more says nothing any more. */
static void a_topic_that_takes_less_than_before_is_learned_anew(void **state) {
    (void)state;
    settled_at(10);
    to_flush(74, 64, 900, false);
    STEP(.kind = EV_FLUSHED);
    COMMITTED(1, false);
    to_flush(75, 1, 700, false);
    TOO_LARGE();
    assert_int_equal(order->state, M_BURYING);
    STEP(.kind = EV_BURIED);
    STEP(.kind = EV_TIME);
    SETTLED_AT(74);
    to_flush(138, 63, 650, false);
    TOO_LARGE();
    assert_int_equal(machine.suspect_bytes, 650);
}

/* A dead letter can be purged when the position has passed its tombstone. */
static void a_full_budget_does_not_hold_up_the_tombstones(void **state) {
    (void)state;
    settled_at(10);
    to_flush(20, 1, 100, false); /* nine tombstones and an event */
    FAIL(FAULT_RECORD);
    assert_int_equal(order->state, M_BURYING);
    FAIL(FAULT_DEAD_FULL);
    STEP(.kind = EV_TIME);
    SETTLED_AT(10);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->upto, 11);
    assert_true(order->empty);
    STEP(.kind = EV_FILLED, .now_ms = 1001, .filled = {.last_sequence = 11});
    assert_int_equal(order->state, M_FLUSHING);
    STEP(.kind = EV_FLUSHED);
    COMMITTED(1, false);
    assert_int_equal(machine.position, 11);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->upto, 13);
    STEP(.kind = EV_FILLED, .filled = {.last_sequence = 12});
    assert_int_equal(order->state, M_LINGERING);
    STEP(.kind = EV_AVAILABLE, .now_ms = 1002);
    assert_false(order->empty); /* a suspect would have to wait for the next transaction */
}

static void linger_waits_and_ends(void **state) {
    (void)state;
    settled_at(0);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    FILLED_TO(1, 1);
    assert_int_equal(order->state, M_LINGERING);
    assert_int_equal(order->wait_ms, 5);
    STEP(.kind = EV_AVAILABLE, .now_ms = 1002);
    assert_int_equal(order->from, 2);
    STEP(.kind = EV_FILLED, .now_ms = 1003,
         .filled = {.last_sequence = 2, .event_sequence = 2, .events = 1});
    assert_int_equal(order->wait_ms, 2);
    STEP(.kind = EV_STOP, .now_ms = 1004); /* what is open is finished */
    assert_int_equal(order->state, M_FLUSHING);
}

static void a_transaction_takes_events_for_so_long_only(void **state) {
    (void)state;
    settled_at(0);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->fill_ms, MACHINE_FILL_MS);
    FILLED_TO(1, 1);
    STEP(.kind = EV_AVAILABLE, .now_ms = 1002);
    assert_int_equal(order->fill_ms, MACHINE_FILL_MS - 2);
    STEP(.kind = EV_FILLED, .now_ms = 1000 + MACHINE_FILL_MS,
         .filled = {.last_sequence = 30, .event_sequence = 30, .events = 29});
    assert_int_equal(order->state, M_FLUSHING); /* though there may be more */
}

/* Else brokers that are too slow for what fits into one transaction would never take any. */
static void a_flush_that_runs_out_of_time_is_tried_with_fewer(void **state) {
    (void)state;
    settled_at(10);
    to_flush(74, 64, 100, false);
    FAIL(FAULT_STUCK);
    STEP(.kind = EV_TIME);
    SETTLED_AT(10);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->upto, 42);
    FILLED_TO(42, 32);
    STEP(.kind = EV_FLUSHED);
    COMMITTED(1, false);
    STEP(.kind = EV_AVAILABLE);
    STEP(.kind = EV_BEGUN);
    assert_int_equal(order->upto, 106); /* and grows again */
}

static void undeclared_pairs_halt_with_a_report(void **state) {
    (void)state;
    int undeclared = 0;
    for (machine_state from = M_NEW; from < M_STATE_COUNT; from++)
        for (machine_event_kind kind = EV_START; kind < EV_COUNT; kind++) {
            if (machine_declared(from, kind)) continue;
            undeclared++;
            start();
            machine.state = from;
            STEP(.kind = kind);
            assert_int_equal(order->state, M_PAUSED);
            assert_int_equal(order->discard, FAULT_BUG);
            assert_int_equal(machine.standing, STANDING_HALTED);
            assert_non_null(strstr(machine.text, machine_state_name(from)));
        }
    assert_int_equal(undeclared, M_STATE_COUNT * EV_COUNT - 23);
}

/* ---- poison ------------------------------------------------------------------------------------
 * A Kafka without faults, that refuses poison (tests/simulation has the faults). */

#define BACKLOG 10000

typedef struct outbox {
    publisher_machine machine;
    uint64_t random;
    bool by_size; /* Kafka says that it was the size */
    bool poison[BACKLOG + 1];
    bool moved[BACKLOG + 1];
    uint32_t size[BACKLOG + 1];
    uint64_t
        batch; /* the producer's batches stay below, when there is more than one record in them */
    uint64_t filled[BACKLOG];
    size_t filled_count;
    bool has_published; /* noted in the store */
    bool has_position;  /* in Kafka: */
    uint64_t position;
    uint64_t open_position; /* in the transaction */
    uint64_t committed;     /* events */
    int transactions;
} outbox;

enum { TOPIC_LIMIT = 20000 }; /* of a batch, when size tells */

static uint64_t draw(outbox *it, uint64_t bound) {
    it->random = it->random * 6364136223846793005u + 1442695040888963407u;
    return (it->random >> 33) % bound;
}

static machine_event fill(outbox *it, const machine_order *what) {
    machine_event event = {.kind = EV_FILLED};
    for (uint64_t sequence = what->from; sequence <= what->upto; sequence++) {
        if (sequence > BACKLOG || event.filled.closed) break;
        bool suspicious = what->suspect && it->size[sequence] >= what->suspect;
        if (!it->moved[sequence] && suspicious) {
            event.filled.closed = true;
            if (!what->empty || event.filled.last_sequence != 0) break;
        }
        event.filled.last_sequence = sequence;
        if (it->moved[sequence]) continue;
        if (it->size[sequence] > event.filled.largest_bytes)
            event.filled.largest_bytes = it->size[sequence];
        event.filled.event_sequence = sequence;
        event.filled.events++;
        event.filled.bytes += it->size[sequence];
        it->filled[it->filled_count++] = sequence;
    }
    return event;
}

/* Batches are filled in order, and refused as wholes. */
static bool is_refused(const outbox *it) {
    uint64_t batch = 0;
    for (size_t i = 0; i < it->filled_count; i++) {
        uint64_t size = it->size[it->filled[i]];
        batch = batch + size < it->batch ? batch + size : size;
        if (it->by_size ? batch > TOPIC_LIMIT : it->poison[it->filled[i]]) return true;
    }
    return false;
}

static machine_event settled(outbox *it, const machine_order *what) {
    it->batch = what->batch ? what->batch : MACHINE_BATCH_BYTES;
    return (machine_event){.kind = EV_SETTLED,
                           .settled = {.found = it->has_position,
                                       .sequence = it->position,
                                       .known = ST_OK,
                                       .has_published = it->has_published,
                                       .hint_sequence = it->position,
                                       .last_sequence = BACKLOG}};
}

static machine_event perform(outbox *it, const machine_order *what) {
    switch (what->state) {
    case M_SETTLING:
        return settled(it, what);
    case M_ANCHORING:
        it->has_published = true;
        return (machine_event){.kind = EV_ANCHORED};
    case M_BEGINNING:
        it->filled_count = 0;
        it->transactions++;
        return (machine_event){.kind = EV_BEGUN};
    case M_FILLING:
        return fill(it, what);
    case M_FLUSHING:
        it->open_position = what->sequence;
        if (!is_refused(it)) return (machine_event){.kind = EV_FLUSHED};
        return (machine_event){
            .kind = EV_FAILED,
            .failed = {.fault = FAULT_RECORD, .by_size = it->by_size, .text = "poison"}};
    case M_COMMITTING:
        it->has_position = true;
        it->position = it->open_position;
        it->committed += it->filled_count;
        return (machine_event){.kind = EV_COMMITTED, .committed = {.elapsed_ms = 5}};
    case M_BURYING:
        assert_true(it->poison[what->sequence]); /* never an innocent */
        it->moved[what->sequence] = true;
        return (machine_event){.kind = EV_BURIED};
    default: /* a wait */
        if (what->state != M_PAUSED && what->after < BACKLOG)
            return (machine_event){.kind = EV_AVAILABLE};
        return (machine_event){.kind = EV_TIME};
    }
}

static void drain(outbox *it) {
    int64_t now_ms = 1;
    machine_options options = OPTIONS;
    options.max_events = BACKLOG;
    options.seed = it->random | 1;
    const machine_order *what = machine_start(&it->machine, &options, now_ms);
    for (int i = 0; i < 100000 && !(what->state == M_IDLE && it->position == BACKLOG); i++) {
        machine_event event = perform(it, what);
        if (event.kind == EV_TIME) now_ms += what->wait_ms;
        event.now_ms = now_ms;
        what = machine_step(&it->machine, &event);
    }
}

/* Transactions until `poisons` events that came together with innocent ones are all set aside. */
static int transactions_to_isolate(int poisons, bool by_size, uint64_t seed) {
    static outbox it;
    it = (outbox){.random = seed, .by_size = by_size};
    for (int i = 1; i <= BACKLOG; i++)
        it.size[i] = 200 + (uint32_t)draw(&it, 200);
    for (int left = poisons; left > 0;) {
        uint64_t at = 1 + draw(&it, BACKLOG);
        if (it.poison[at]) continue;
        it.poison[at] = true;
        if (by_size) it.size[at] = TOPIC_LIMIT + 1 + (uint32_t)draw(&it, 30000);
        left--;
    }
    drain(&it);
    assert_int_equal(it.machine.position, BACKLOG);
    assert_int_equal(it.committed, BACKLOG - poisons);
    return it.transactions;
}

static void poisons_that_come_together_take_few_transactions(void **state) {
    (void)state;
    const struct {
        int poisons;
        int by_size; /* at most */
        int halving;
    } CASES[] = {{1, 40, 45}, {10, 80, 350}, {100, 300, 2000}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        int worst[2] = {0, 0};
        for (uint64_t seed = 1; seed <= 20; seed++)
            for (int by_size = 0; by_size < 2; by_size++) {
                int took = transactions_to_isolate(CASES[i].poisons, by_size, seed);
                if (took > worst[by_size]) worst[by_size] = took;
            }
        print_message("%d poisons in %d events: %d transactions when size tells, %d when not\n",
                      CASES[i].poisons, BACKLOG, worst[1], worst[0]);
        assert_in_range(worst[1], 1, CASES[i].by_size);
        assert_in_range(worst[0], 1, CASES[i].halving);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(happy_path),
        cmocka_unit_test(first_record_is_written_and_read_back_before_any_event),
        cmocka_unit_test(first_record_of_a_forgotten_opening_is_sound),
        cmocka_unit_test(slow_or_disturbed_commit_is_a_doubt),
        cmocka_unit_test(every_failure_discards_and_settles),
        cmocka_unit_test(standing_follows_the_fault_until_a_success),
        cmocka_unit_test(flushes_that_run_out_of_time_block_the_route),
        cmocka_unit_test(settling_that_is_stuck_blocks_the_route),
        cmocka_unit_test(pauses_grow_and_are_bounded),
        cmocka_unit_test(several_fences_raise_the_alarm),
        cmocka_unit_test(halts_when_only_an_operator_can_tell),
        cmocka_unit_test(what_was_committed_in_this_life_counts_as_hint),
        cmocka_unit_test(at_least_once_starts_at_the_hint),
        cmocka_unit_test(position_refused_blames_no_event),
        cmocka_unit_test(dead_letters_full_blocks_and_tries_again),
        cmocka_unit_test(the_largest_record_is_suspected_and_goes_alone),
        cmocka_unit_test(a_suspect_that_gets_through_shifts_the_suspicion_to_the_batches),
        cmocka_unit_test(a_topic_that_takes_less_than_before_is_learned_anew),
        cmocka_unit_test(a_full_budget_does_not_hold_up_the_tombstones),
        cmocka_unit_test(linger_waits_and_ends),
        cmocka_unit_test(a_transaction_takes_events_for_so_long_only),
        cmocka_unit_test(a_flush_that_runs_out_of_time_is_tried_with_fewer),
        cmocka_unit_test(undeclared_pairs_halt_with_a_report),
        cmocka_unit_test(poisons_that_come_together_take_few_transactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
