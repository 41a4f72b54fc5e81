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

/* ---- a simulated Kafka ------------------------------------------------------------------------
 */

#define LIFE_EVENTS 400
#define LIFE_MAX 10000
#define LOG_MAX (LIFE_MAX + 2000)
#define LATE_MAX 8
#define DEAD_MAX 2

typedef enum mutation {
    NO_MUTATION,
    BELIEVE_EVERY_OK,    /* the doubt rule is off */
    KEEP_PRODUCER,       /* after a failure the producer, and its epoch, live on */
    STALE_POSITION,      /* settling answers with the hint instead of reading */
    STOP_AT_LAST_STABLE, /* the read ends before a marker that is on its way */
    BLAME_FIRST,         /* an event is buried that did not fail alone */
} mutation;

typedef struct sim_kafka {
    uint64_t log[LOG_MAX]; /* committed events, in order */
    size_t log_count;
    bool has_position;
    uint64_t position;
    uint32_t epoch;
    uint64_t open[LOG_MAX]; /* of the open transaction of `epoch` */
    size_t open_count;
    bool open_position_set;
    uint64_t open_position;
    uint32_t late[LATE_MAX]; /* epochs of EndTxn(commit) requests still on their way */
    size_t late_count;
} sim_kafka;

typedef struct life {
    sim_kafka kafka;
    mutation broken;
    uint64_t random;
    bool calm; /* no more faults */
    int64_t now_ms;
    /* the store, durable */
    uint64_t events; /* of the whole life */
    uint64_t last_sequence;
    uint64_t hint;
    bool has_published;
    bool moved[LIFE_MAX + 1];
    bool poison[LIFE_MAX + 1];
    uint32_t size[LIFE_MAX + 1]; /* of the record */
    uint32_t topic_limit;        /* of a batch */
    /* the process */
    publisher_machine machine;
    uint32_t epoch; /* of the producer; 0: none */
    uint64_t batch; /* its batches stay below, when there is more than one record in them */
    uint64_t filled[LIFE_MAX + 1];
    size_t filled_count;
    const char *wrong; /* the first broken promise */
    int transactions;
} life;

static uint64_t draw(life *it, uint64_t bound) {
    it->random = it->random * 6364136223846793005u + 1442695040888963407u;
    return (it->random >> 33) % bound;
}

static bool chance(life *it, unsigned percent) { return !it->calm && draw(it, 100) < percent; }

static void wrong(life *it, const char *what) {
    if (!it->wrong) it->wrong = what;
}

static void end_transaction(sim_kafka *it, bool commit) {
    for (size_t i = 0; commit && i < it->open_count && it->log_count < LOG_MAX; i++)
        it->log[it->log_count++] = it->open[i];
    if (commit && it->open_position_set) {
        it->has_position = true;
        it->position = it->open_position;
    }
    it->open_count = 0;
    it->open_position_set = false;
}

static void send_late(sim_kafka *it) {
    if (it->late_count < LATE_MAX) it->late[it->late_count++] = it->epoch;
}

/* One of the delayed requests arrives; the broker heeds it when its epoch is the present one. */
static void deliver_late(life *it) {
    sim_kafka *kafka = &it->kafka;
    if (kafka->late_count == 0) return;
    size_t which = draw(it, kafka->late_count);
    uint32_t epoch = kafka->late[which];
    kafka->late[which] = kafka->late[--kafka->late_count];
    if (epoch == kafka->epoch) end_transaction(kafka, true);
}

/* ---- the driver --------------------------------------------------------------------------------
 */

static machine_event failed(fault what) {
    return (machine_event){.kind = EV_FAILED, .failed = {.fault = what, .text = "simulated"}};
}

static fault random_fault(life *it) {
    static const fault FAULTS[] = {FAULT_AWAY, FAULT_AWAY, FAULT_ROUTE, FAULT_FATAL, FAULT_FENCED};
    return FAULTS[draw(it, sizeof FAULTS / sizeof *FAULTS)];
}

static machine_event do_settle(life *it, const machine_order *what) {
    sim_kafka *kafka = &it->kafka;
    it->batch = what->batch ? what->batch : MACHINE_BATCH_BYTES;
    if (chance(it, 10)) return failed(random_fault(it));
    if (it->broken != KEEP_PRODUCER || it->epoch == 0) {
        end_transaction(kafka, false);
        it->epoch = ++kafka->epoch;
    }
    if (chance(it, 10)) return failed(FAULT_AWAY);
    uint64_t sequence = kafka->position;
    bool found = kafka->has_position;
    if (it->broken == STALE_POSITION || (it->broken == STOP_AT_LAST_STABLE && chance(it, 20)))
        sequence = it->hint, found = it->has_published;
    return (machine_event){.kind = EV_SETTLED,
                           .settled = {.found = found,
                                       .sequence = sequence,
                                       .known = ST_OK,
                                       .has_published = it->has_published,
                                       .hint_sequence = it->hint,
                                       .last_sequence = it->last_sequence}};
}

static machine_event do_fill(life *it, const machine_order *what) {
    machine_event event = {.kind = EV_FILLED};
    if (what->from != it->machine.read + 1) wrong(it, "reads from a wrong place");
    for (uint64_t sequence = what->from; sequence <= what->upto; sequence++) {
        if (sequence > it->last_sequence || event.filled.closed) break;
        bool suspicious = what->suspect && it->size[sequence] >= what->suspect;
        if (it->moved[sequence]) {
            event.filled.last_sequence = sequence;
            continue;
        }
        event.filled.closed = suspicious;
        if (suspicious && !(what->empty && event.filled.last_sequence == 0)) break;
        event.filled.last_sequence = sequence;
        if (it->size[sequence] > event.filled.largest_bytes)
            event.filled.largest_bytes = it->size[sequence];
        event.filled.event_sequence = sequence;
        event.filled.events++;
        event.filled.bytes += 100;
        it->filled[it->filled_count++] = sequence;
        if (it->epoch != it->kafka.epoch) { /* fenced */
            event.kind = EV_FAILED;
            event.failed.fault = FAULT_FENCED;
            event.failed.text = "fenced";
            break;
        }
        it->kafka.open[it->kafka.open_count++ % LOG_MAX] = sequence;
    }
    return event;
}

/* Batches are filled in order, and refused as wholes. */
static bool batch_refused(const life *it) {
    uint64_t batch = 0;
    for (size_t i = 0; i < it->filled_count; i++) {
        uint64_t size = it->size[it->filled[i]];
        batch = batch + size < it->batch ? batch + size : size;
        if (batch > it->topic_limit) return true;
    }
    return false;
}

static machine_event do_flush(life *it, const machine_order *what) {
    sim_kafka *kafka = &it->kafka;
    if (it->epoch == kafka->epoch) {
        kafka->open_position = what->sequence;
        kafka->open_position_set = true;
    }
    for (size_t i = 0; i < it->filled_count; i++)
        if (it->poison[it->filled[i]] && it->size[it->filled[i]] <= it->topic_limit)
            return failed(FAULT_RECORD);
    if (batch_refused(it)) {
        machine_event refused = failed(FAULT_RECORD);
        refused.failed.by_size = true;
        return refused;
    }
    if (chance(it, 3)) return failed(random_fault(it));
    return (machine_event){.kind = EV_FLUSHED};
}

static machine_event do_commit(life *it) {
    sim_kafka *kafka = &it->kafka;
    machine_event ok = {.kind = EV_COMMITTED, .committed = {.elapsed_ms = 5}};
    if (it->epoch != kafka->epoch) return failed(FAULT_FENCED);
    switch (it->calm ? 99 : draw(it, 30)) {
    case 0: /* the library repeated the request; the first one is still on its way */
        end_transaction(kafka, true);
        send_late(kafka);
        ok.committed.elapsed_ms = 1000;
        break;
    case 1: /* the same over a new connection */
        end_transaction(kafka, true);
        send_late(kafka);
        ok.committed.transport_error = true;
        break;
    case 2: /* the answer is lost */
        end_transaction(kafka, true);
        return failed(FAULT_DOUBT);
    case 3: /* the request is late */
        send_late(kafka);
        return failed(FAULT_DOUBT);
    case 4: /* the request is lost */
        return failed(FAULT_DOUBT);
    case 5: /* we slept too long, and the broker ended it */
        end_transaction(kafka, false);
        kafka->epoch++;
        return failed(FAULT_FENCED);
    default:
        end_transaction(kafka, true);
    }
    return ok;
}

/* An operator purges at once what may be purged: dead letters that the position has passed. */
static machine_event do_bury(life *it, const machine_order *what) {
    int unsettled = 0;
    for (uint64_t i = it->machine.position + 1; i < what->sequence; i++)
        unsettled += it->moved[i];
    if (unsettled >= DEAD_MAX || chance(it, 20)) return failed(FAULT_DEAD_FULL);
    if (!it->poison[what->sequence]) wrong(it, "an innocent event is set aside");
    if (what->sequence <= it->machine.position) wrong(it, "set aside after its position");
    it->moved[what->sequence] = true;
    return (machine_event){.kind = EV_BURIED};
}

static machine_event perform(life *it, const machine_order *what) {
    machine_event event = {.kind = EV_TIME};
    switch (what->state) {
    case M_SETTLING:
        return do_settle(it, what);
    case M_ANCHORING:
        if (chance(it, 10)) return failed(FAULT_AWAY);
        it->has_published = true;
        event.kind = EV_ANCHORED;
        return event;
    case M_BEGINNING:
        it->filled_count = 0;
        it->transactions++;
        if (it->epoch == 0) wrong(it, "no producer");
        event.kind = EV_BEGUN;
        return event;
    case M_FILLING:
        return do_fill(it, what);
    case M_FLUSHING:
        return do_flush(it, what);
    case M_COMMITTING:
        return do_commit(it);
    case M_BURYING:
        return do_bury(it, what);
    default: /* a wait */
        if (what->state != M_PAUSED && it->last_sequence > what->after)
            event.kind = EV_AVAILABLE;
        else
            it->now_ms += what->wait_ms;
        return event;
    }
}

static void append_some(life *it) {
    uint64_t count = draw(it, 4) == 0 ? draw(it, 40) : 0;
    while (count-- > 0 && it->last_sequence < it->events)
        it->last_sequence++;
}

/* Breaks the rule that only an event that failed alone is condemned. */
static const machine_order *blame_first(life *it, const machine_order *what) {
    if (it->broken != BLAME_FIRST || what->discard != FAULT_RECORD || what->state != M_PAUSED)
        return what;
    it->machine.state = M_BURYING;
    it->machine.order.state = M_BURYING;
    it->machine.order.sequence = it->filled[0];
    return &it->machine.order;
}

static void run_process(life *it, uint64_t max_events, int steps) {
    machine_options options = OPTIONS;
    options.max_events = max_events;
    options.seed = draw(it, 1u << 30) + 1;
    options.linger_ms = (int64_t)draw(it, 10);
    if (it->broken == BELIEVE_EVERY_OK) options.doubt_ms = INT64_MAX;
    it->epoch = 0;
    const machine_order *what = machine_start(&it->machine, &options, it->now_ms);
    for (int i = 0; i < steps; i++) {
        append_some(it);
        if (chance(it, 10)) deliver_late(it);
        it->now_ms += (int64_t)draw(it, 3);
        machine_state before = what->state;
        machine_event event = perform(it, what);
        event.now_ms = it->now_ms;
        if (it->broken == BELIEVE_EVERY_OK && event.kind == EV_COMMITTED)
            event.committed.transport_error = false;
        what = blame_first(it, machine_step(&it->machine, &event));
        if (it->machine.standing == STANDING_HALTED) wrong(it, "halted");
        if (what->discard && it->broken != KEEP_PRODUCER) it->epoch = 0;
        if (event.kind == EV_FAILED && before != M_BURYING && !what->discard)
            wrong(it, "the producer lives on after a failure");
        if (it->machine.position > it->hint && draw(it, 10) == 0) it->hint = it->machine.position;
        if (it->calm && what->state == M_IDLE && it->machine.position == it->events) return;
    }
}

/* NULL, or the promise that was broken. */
static const char *live(uint64_t seed, mutation broken) {
    static life it;
    it = (life){.broken = broken, .random = seed, .now_ms = 1, .events = LIFE_EVENTS};
    for (int i = 0; i < 3; i++) {
        uint64_t at = 1 + draw(&it, LIFE_EVENTS);
        for (uint64_t run = 1 + draw(&it, 5); run > 0 && at <= LIFE_EVENTS; run--, at++)
            it.poison[at] = true;
    }
    /* A topic that takes whole batches, few records at once, or not even every record. */
    const uint32_t limits[] = {UINT32_MAX, 3000, 999};
    it.topic_limit = limits[seed % 3];
    for (int i = 1; i <= LIFE_EVENTS; i++) {
        bool large = it.poison[i] ? draw(&it, 2) : draw(&it, 100) == 0;
        it.size[i] = large ? 1000 : 100 + (uint32_t)draw(&it, 800);
        if (it.size[i] > it.topic_limit) it.poison[i] = true;
    }
    for (int process = 0; process < 6 && !it.wrong; process++)
        run_process(&it, OPTIONS.max_events, 20 + (int)draw(&it, 400));
    it.last_sequence = LIFE_EVENTS;
    it.calm = true;
    if (!it.wrong) run_process(&it, OPTIONS.max_events, 3000);
    if (it.wrong) return it.wrong;
    if (it.machine.position != LIFE_EVENTS) return "does not come to the end";

    uint64_t expected = 1;
    for (size_t i = 0; i < it.kafka.log_count; i++, expected++) {
        while (expected <= LIFE_EVENTS && it.moved[expected])
            expected++;
        if (it.kafka.log[i] < expected) return "an event twice, or out of order";
        if (it.kafka.log[i] > expected) return "an event lost";
    }
    while (expected <= LIFE_EVENTS && it.moved[expected])
        expected++;
    if (expected != LIFE_EVENTS + 1) return "events lost at the end";
    for (uint64_t sequence = 1; sequence <= LIFE_EVENTS; sequence++)
        if (it.moved[sequence] != it.poison[sequence]) return "poison got through";
    return NULL;
}

/* Transactions until `poisons` events that came together with innocent ones are all set aside. */
static int transactions_to_isolate(int poisons, bool by_size, uint64_t seed) {
    static life it;
    it = (life){.random = seed, .now_ms = 1, .events = LIFE_MAX, .last_sequence = LIFE_MAX};
    it.calm = true;
    it.topic_limit = by_size ? 20000 : UINT32_MAX;
    for (int i = 1; i <= LIFE_MAX; i++)
        it.size[i] = 200 + (uint32_t)draw(&it, 200);
    for (int left = poisons; left > 0;) {
        uint64_t at = 1 + draw(&it, LIFE_MAX);
        if (it.poison[at]) continue;
        it.poison[at] = true;
        if (by_size) it.size[at] = 20001 + (uint32_t)draw(&it, 30000);
        left--;
    }
    run_process(&it, LIFE_MAX, 100000);
    assert_null(it.wrong);
    assert_int_equal(it.machine.position, LIFE_MAX);
    assert_int_equal(it.kafka.log_count, LIFE_MAX - poisons);
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
                      CASES[i].poisons, LIFE_MAX, worst[1], worst[0]);
        assert_in_range(worst[1], 1, CASES[i].by_size);
        assert_in_range(worst[0], 1, CASES[i].halving);
    }
}

#define LIVES 5000

static void whole_lives(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= LIVES; seed++) {
        const char *broken = live(seed, NO_MUTATION);
        if (broken) fail_msg("seed %llu: %s", (unsigned long long)seed, broken);
    }
}

static void broken_rules_are_noticed(void **state) {
    (void)state;
    static const char *const NAMES[] = {
        "none",           "believe every OK",    "keep the producer",
        "stale position", "stop at last stable", "blame first"};
    for (mutation broken = BELIEVE_EVERY_OK; broken <= BLAME_FIRST; broken++) {
        int noticed = 0;
        const char *example = "";
        for (uint64_t seed = 1; seed <= 500; seed++) {
            const char *what = live(seed, broken);
            if (what) noticed++, example = what;
        }
        print_message("%s: noticed in %d of 500 lives (%s)\n", NAMES[broken], noticed, example);
        assert_true(noticed > 0);
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
        cmocka_unit_test(undeclared_pairs_halt_with_a_report),
        cmocka_unit_test(poisons_that_come_together_take_few_transactions),
        cmocka_unit_test(whole_lives),
        cmocka_unit_test(broken_rules_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
