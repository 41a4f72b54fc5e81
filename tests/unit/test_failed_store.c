/* The store of failed events: what goes in comes out, limits, order, and random changes against a
 * model. Damage and crashes: test_failed_damage.c. */
#include "failed_fixture.h"

#include <pthread.h>

static bool same(const char *text, bytes run) { return bytes_equal(bytes_of_string(text), run); }

static void check_sample(void *arg, const failed_record *record) {
    ++*(int *)arg;
    assert_int_equal(record->state, FAILED_WAITING);
    assert_true(same("/test", record->source) && same("id-1", record->id));
    assert_true(same("create_user", record->type) && same("user-1", record->key));
    assert_true(same("create_user", record->operation) && same("user_index", record->effect));
    assert_int_equal(record->effects_done, 2);
    assert_int_equal(record->effects, 8);
    assert_int_equal(record->catalogue_crc, 0xdeadbeef);
    assert_int_equal(record->attempts, 3);
    assert_true(same("timeout", record->code) && same("no answer within 5 s", record->reason));
    assert_int_equal(record->first_failed_ms, 1700000000001);
    assert_int_equal(record->last_failed_ms, 1700000000002);
    assert_int_equal(record->next_attempt_ms, 1700000000099);
    assert_true(same("ingest.transactions", record->topic));
    assert_int_equal(record->partition, 7);
    assert_int_equal(record->offset, 4711);
    assert_true(same("the event", record->event));
    assert_false(record->opaque);
}

static void what_goes_in_comes_out(void **state) {
    fixture *f = *state;
    int calls = 0;
    failed_record record = record_of("id-1", "the event");
    record.state = FAILED_WAITING;
    record.next_attempt_ms = 1700000000099;
    assert_int_equal(put_one(f, &record), 1);
    assert_int_equal(failed_store_get(f->store, 1, check_sample, &calls, &f->why), ST_OK);
    reopen(f);
    assert_int_equal(failed_store_get(f->store, 1, check_sample, &calls, &f->why), ST_OK);
    assert_int_equal(calls, 2);
    assert_int_equal(failed_store_get(f->store, 2, check_sample, &calls, &f->why), ST_NOT_FOUND);
    assert_non_null(strstr(f->why.reason, "no failed event 2"));
}

static bool check_listed(void *arg, const failed_record *record) {
    assert_true(same(arg, record->event));
    return true;
}

static void lists_with_and_without_events(void **state) {
    fixture *f = *state;
    failed_record record = record_of("id-1", "the event");
    (void)put_one(f, &record);
    assert_int_equal(failed_store_each(f->store, 0, true, check_listed, "the event", &f->why),
                     ST_OK);
    assert_int_equal(failed_store_each(f->store, 0, false, check_listed, "", &f->why), ST_OK);
    uint64_t count = 0;
    assert_int_equal(failed_store_each(f->store, 1, true, count_one, &count, &f->why), ST_OK);
    assert_int_equal(failed_store_each(f->store, UINT64_MAX, true, count_one, &count, &f->why),
                     ST_OK);
    assert_int_equal(count, 0);
}

static void copy_reason(void *arg, const failed_record *record) {
    (void)snprintf(arg, 64, "%llu %.*s %.*s", (unsigned long long)record->number,
                   (int)record->reason.len, (const char *)record->reason.data,
                   (int)record->event.len, (const char *)record->event.data);
}

static void the_same_identity_replaces(void **state) {
    fixture *f = *state;
    char text[64];
    failed_figures figures;
    failed_record first = record_of("a", "event 1");
    failed_record second = record_of("b", "event 2");
    failed_record again = record_of("a", "event 3");
    again.reason = bytes_of_string("later");
    (void)put_one(f, &first);
    (void)put_one(f, &second);
    assert_int_equal(put_one(f, &again), 1);
    failed_store_figures(f->store, &figures);
    assert_int_equal(figures.events, 2);
    assert_int_equal(failed_store_get(f->store, 1, copy_reason, text, &f->why), ST_OK);
    assert_string_equal(text, "1 later event 3");

    /* also when both are in one batch, and when the first one was removed in it */
    failed_record third = record_of("c", "event 4");
    failed_record fourth = record_of("c", "event 5");
    assert_int_equal(failed_store_put(f->store, &third, &f->why), ST_OK);
    assert_int_equal(put_one(f, &fourth), third.number);
    assert_int_equal(failed_store_remove(f->store, third.number, &f->why), ST_OK);
    assert_int_equal(put_one(f, &fourth), third.number + 1);
    failed_store_figures(f->store, &figures);
    assert_int_equal(figures.events, 3);
    /* the source counts, and where it ends */
    failed_record other = record_of("esta", "event 6");
    other.source = bytes_of_string("/t");
    assert_int_equal(put_one(f, &other), third.number + 2);
}

static void without_an_id_the_place_in_kafka_counts(void **state) {
    fixture *f = *state;
    failed_record one = record_of("", "not an event");
    one.opaque = true;
    failed_record other = one;
    other.offset++;
    failed_record elsewhere = one;
    elsewhere.topic = bytes_of_string("another");
    assert_int_equal(put_one(f, &one), 1);
    assert_int_equal(put_one(f, &other), 2);
    assert_int_equal(put_one(f, &elsewhere), 3);
    assert_int_equal(put_one(f, &one), 1);
    assert_int_equal(failed_store_remove(f->store, 1, &f->why), ST_OK);
    assert_int_equal(put_one(f, &one), 4);
}

static void an_update_changes_its_figures_alone(void **state) {
    fixture *f = *state;
    int calls = 0;
    failed_record record = record_of("id-1", "the event");
    record.effects_done = 0;
    record.code = record.operation = bytes_of_string("before");
    (void)put_one(f, &record);
    failed_record update = record_of("not read", "not read");
    update.number = 1;
    update.state = FAILED_WAITING;
    update.next_attempt_ms = 1700000000099;
    update.topic = update.key = update.type = update.source = bytes_of_string("not read");
    assert_int_equal(failed_store_update(f->store, &update, &f->why), ST_OK);
    assert_int_equal(failed_store_write(f->store, &f->why), ST_OK);
    assert_int_equal(failed_store_get(f->store, 1, check_sample, &calls, &f->why), ST_OK);
    assert_int_equal(calls, 1);
    update.number = 2;
    assert_int_equal(failed_store_update(f->store, &update, &f->why), ST_NOT_FOUND);
    assert_int_equal(failed_store_remove(f->store, 2, &f->why), ST_NOT_FOUND);
    assert_int_equal(failed_store_remove(f->store, 1, &f->why), ST_OK);
    update.number = 1;
    assert_int_equal(failed_store_update(f->store, &update, &f->why), ST_NOT_FOUND);
}

static void what_is_not_written_is_not_there(void **state) {
    fixture *f = *state;
    uint64_t count = 0;
    failed_record record = record_of("a", "event");
    assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_OK);
    assert_int_equal(failed_store_each(f->store, 0, true, count_one, &count, &f->why), ST_OK);
    assert_int_equal(count, 0);
    reopen(f);
    assert_int_equal(failed_store_each(f->store, 0, true, count_one, &count, &f->why), ST_OK);
    assert_int_equal(count, 0);
    assert_int_equal(put_one(f, &record), 1);
}

static void limits_are_kept(void **state) {
    fixture *f = *state;
    failed_figures before;
    failed_figures after;
    close_fixture(f);
    f->limits.max_events = 2;
    open_fixture(f);
    failed_record record = record_of("a", "event");
    (void)put_one(f, &record);
    record.id = bytes_of_string("b");
    (void)put_one(f, &record);
    record.id = bytes_of_string("c");
    assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_FULL);
    assert_string_equal(f->why.field, "max_events");
    record.id = bytes_of_string("b"); /* replaces */
    assert_int_equal(put_one(f, &record), 2);
    failed_store_figures(f->store, &before);

    close_fixture(f);
    f->limits = (failed_limits){.max_events = 10, .max_bytes = before.bytes + 100};
    open_fixture(f);
    record.id = bytes_of_string("c");
    assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_FULL);
    assert_string_equal(f->why.field, "max_bytes");
    /* What is there already goes on, however long its reason. */
    char reason[300];
    memset(reason, 'x', sizeof reason);
    record.number = 2;
    record.reason = bytes_of(reason, sizeof reason);
    assert_int_equal(failed_store_update(f->store, &record, &f->why), ST_OK);
    assert_int_equal(failed_store_write(f->store, &f->why), ST_OK);
    failed_store_figures(f->store, &after);
    assert_true(after.bytes > f->limits.max_bytes && after.events == 2);
    assert_int_equal(failed_store_remove(f->store, 2, &f->why), ST_OK);
    record.reason = bytes_of_string("short");
    assert_int_equal(put_one(f, &record), 3);

    close_fixture(f);
    f->limits =
        (failed_limits){.max_events = 10, .max_bytes = 1 << 20, .reserve_free_bytes = UINT64_MAX};
    open_fixture(f);
    record.id = bytes_of_string("d");
    assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_DISK_FULL);
}

static void long_texts_are_cut_and_long_identities_refused(void **state) {
    fixture *f = *state;
    char *text = malloc(FAILED_TEXT_MAX + 1);
    memset(text, 'x', FAILED_TEXT_MAX + 1);
    failed_record record = record_of("a", "event");
    record.id = bytes_of(text, FAILED_TEXT_MAX + 1);
    assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_TOO_LARGE);
    assert_string_equal(f->why.field, "id");
    record.source = bytes_of(text, FAILED_TEXT_MAX + 1);
    record.id.len--;
    assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_TOO_LARGE);
    assert_string_equal(f->why.field, "source");
    record.source.len--;
    record.type = record.key = record.operation = record.effect = record.code = record.reason =
        record.topic = bytes_of(text, FAILED_TEXT_MAX + 1);
    (void)put_one(f, &record);
    reopen(f);
    uint64_t count = 0;
    assert_int_equal(failed_store_each(f->store, 0, true, count_one, &count, &f->why), ST_OK);
    assert_int_equal(count, 1);
    free(text);
}

static uint64_t next_of(fixture *f, int64_t *due_ms) {
    uint64_t number = 99;
    assert_int_equal(failed_store_next(f->store, &number, due_ms, &f->why), ST_OK);
    return number;
}

static void the_earliest_attempt_is_next(void **state) {
    fixture *f = *state;
    int64_t due_ms;
    assert_int_equal(next_of(f, &due_ms), 0);
    failed_record record = record_of("given up", "event");
    record.next_attempt_ms = 1;
    (void)put_one(f, &record);
    assert_int_equal(next_of(f, &due_ms), 0);
    const int64_t due[] = {500, 300, 400, 300, -5};
    const char *const ids[] = {"a", "b", "c", "d", "e"};
    for (int i = 0; i < 5; i++) {
        record = record_of(ids[i], "event");
        record.state = FAILED_WAITING;
        record.next_attempt_ms = due[i];
        assert_int_equal(put_one(f, &record), i + 2);
    }
    const uint64_t order[] = {6, 3, 5, 4, 2};
    const int64_t times[] = {-5, 300, 300, 400, 500};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(next_of(f, &due_ms), order[i]);
        assert_int_equal(due_ms, times[i]);
        if (i == 2) reopen(f);
        record.number = order[i];
        record.state = FAILED_GIVEN_UP;
        outcome result = i % 2 ? failed_store_remove(f->store, order[i], &f->why)
                               : failed_store_update(f->store, &record, &f->why);
        assert_int_equal(result, ST_OK);
        assert_int_equal(failed_store_write(f->store, &f->why), ST_OK);
    }
    assert_int_equal(next_of(f, &due_ms), 0);
}

static void one_process_at_a_time(void **state) {
    fixture *f = *state;
    failed_store *second;
    assert_int_equal(failed_store_open(f->directory, &f->limits, &second, &f->why), ST_UNAVAILABLE);
    assert_non_null(strstr(f->why.reason, "in use"));
}

/* ---- beside writes -------------------------------------------------------------------------- */

enum { STANDING = 50 };

typedef struct beside {
    fixture *f;
    _Atomic bool stop;
    _Atomic int rounds;
} beside;

/* Each batch removes one and puts one: at every moment there are as many. */
static void *look_all_the_time(void *arg) {
    beside *it = arg;
    while (!it->stop) {
        uint64_t count = 0;
        failed_figures figures;
        failure why = {0};
        if (failed_store_each(it->f->store, 0, it->rounds % 2, count_one, &count, &why) != ST_OK ||
            count != STANDING)
            fail_msg("%llu of %d: %s\n", (unsigned long long)count, STANDING, why.reason);
        failed_store_figures(it->f->store, &figures);
        assert_int_equal(figures.events, STANDING);
        it->rounds++;
    }
    return NULL;
}

static void looking_beside_writes_sees_one_moment(void **state) {
    fixture *f = *state;
    pthread_t looker;
    beside it = {.f = f};
    char id[32];
    for (int i = 0; i < STANDING; i++) {
        (void)snprintf(id, sizeof id, "id-%d", i);
        failed_record record = record_of(id, "event");
        assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_OK);
    }
    assert_int_equal(failed_store_write(f->store, &f->why), ST_OK);
    assert_int_equal(pthread_create(&looker, NULL, look_all_the_time, &it), 0);
    for (uint64_t i = 1; i <= 300 || it.rounds < 20; i++) {
        (void)snprintf(id, sizeof id, "later-%llu", (unsigned long long)i);
        failed_record record = record_of(id, "event");
        assert_int_equal(failed_store_remove(f->store, i, &f->why), ST_OK);
        assert_int_equal(put_one(f, &record), i + STANDING);
    }
    it.stop = true;
    (void)pthread_join(looker, NULL);
}

/* ---- against a model ------------------------------------------------------------------------ */

enum { IDS = 60, NUMBERS = 4000 };

typedef struct model_record {
    bool there;
    failed_state state;
    int64_t next_ms;
    int64_t first_ms;
    int id;
} model_record;

typedef struct model {
    fixture *f;
    model_record records[NUMBERS];
    uint64_t numbers[IDS]; /* of an id; 0: none */
    uint64_t next_number;
    uint32_t random;
    uint64_t at; /* while listing */
} model;

static uint32_t roll(model *it, uint32_t below) {
    it->random = it->random * 1664525 + 1013904223;
    return (it->random >> 8) % below;
}

static void model_put(model *it) {
    char id[16];
    char event[200];
    int which = (int)roll(it, IDS);
    (void)snprintf(id, sizeof id, "id-%d", which);
    memset(event, 'e', sizeof event);
    failed_record record = record_of(id, "");
    record.event = bytes_of(event, roll(it, sizeof event));
    record.state = (failed_state)(1 + roll(it, 3));
    record.next_attempt_ms = roll(it, 50);
    record.first_failed_ms = roll(it, 1000);
    uint64_t expected = it->numbers[which] ? it->numbers[which] : it->next_number++;
    assert_int_equal(failed_store_put(it->f->store, &record, &it->f->why), ST_OK);
    assert_int_equal(record.number, expected);
    it->numbers[which] = expected;
    it->records[expected] = (model_record){.there = true,
                                           .state = record.state,
                                           .next_ms = record.next_attempt_ms,
                                           .first_ms = record.first_failed_ms,
                                           .id = which};
}

static void model_change(model *it) {
    int which = (int)roll(it, IDS);
    uint64_t number = it->numbers[which];
    if (!number) return;
    model_record *known = &it->records[number];
    if (roll(it, 3) == 0) {
        assert_int_equal(failed_store_remove(it->f->store, number, &it->f->why), ST_OK);
        known->there = false;
        it->numbers[which] = 0;
        return;
    }
    failed_record record = record_of("", "");
    record.number = number;
    record.state = known->state = (failed_state)(1 + roll(it, 3));
    record.next_attempt_ms = known->next_ms = roll(it, 50);
    if (roll(it, 2)) record.reason = bytes_of_string("another one, which is longer than before");
    assert_int_equal(failed_store_update(it->f->store, &record, &it->f->why), ST_OK);
}

static bool compare_one(void *arg, const failed_record *record) {
    model *it = arg;
    char id[16];
    while (!it->records[it->at].there)
        it->at++;
    const model_record *known = &it->records[it->at];
    (void)snprintf(id, sizeof id, "id-%d", known->id);
    assert_int_equal(record->number, it->at);
    assert_true(same(id, record->id));
    assert_int_equal(record->state, known->state);
    assert_int_equal(record->next_attempt_ms, known->next_ms);
    it->at++;
    return true;
}

static void compare(model *it) {
    failed_figures figures;
    uint64_t events = 0;
    uint64_t states[4] = {0};
    uint64_t first = 0;
    uint64_t next = 0;
    for (uint64_t i = 1; i < it->next_number; i++) {
        const model_record *known = &it->records[i];
        if (!known->there) continue;
        events++;
        states[known->state]++;
        if (!first) first = i;
        if (known->state == FAILED_WAITING && (!next || known->next_ms < it->records[next].next_ms))
            next = i;
    }
    it->at = 1;
    assert_int_equal(failed_store_each(it->f->store, 0, roll(it, 2), compare_one, it, &it->f->why),
                     ST_OK);
    failed_store_figures(it->f->store, &figures);
    assert_int_equal(figures.events, events);
    assert_int_equal(figures.waiting, states[FAILED_WAITING]);
    assert_int_equal(figures.given_up, states[FAILED_GIVEN_UP]);
    assert_int_equal(figures.held, states[FAILED_HELD]);
    assert_int_equal(figures.oldest_ms, first ? it->records[first].first_ms : 0);
    assert_true((figures.bytes > 0) == (events > 0));
    int64_t due_ms;
    assert_int_equal(next_of(it->f, &due_ms), next);
    if (next) assert_int_equal(due_ms, it->records[next].next_ms);
}

static void random_changes_keep_to_the_model(void **state) {
    static model it;
    it = (model){.f = *state, .random = 5, .next_number = 1};
    for (int step = 0; step < 600; step++) {
        const bool growing = step / 100 % 2 == 0;
        for (uint32_t changes = roll(&it, 6); changes > 0; changes--)
            if (roll(&it, 10) < (growing ? 7 : 2))
                model_put(&it);
            else
                model_change(&it);
        assert_int_equal(failed_store_write(it.f->store, &it.f->why), ST_OK);
        compare(&it);
        if (roll(&it, 40) == 0) reopen(it.f);
    }
    assert_true(it.next_number > 2 * IDS);
    for (int i = 0; i < IDS; i++)
        if (it.numbers[i]) {
            assert_int_equal(failed_store_remove(it.f->store, it.numbers[i], &it.f->why), ST_OK);
            it.records[it.numbers[i]].there = false;
        }
    assert_int_equal(failed_store_write(it.f->store, &it.f->why), ST_OK);
    compare(&it);
    failed_figures figures;
    failed_store_figures(it.f->store, &figures);
    assert_int_equal(figures.bytes, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_goes_in_comes_out),
        TEST(lists_with_and_without_events),
        TEST(the_same_identity_replaces),
        TEST(without_an_id_the_place_in_kafka_counts),
        TEST(an_update_changes_its_figures_alone),
        TEST(what_is_not_written_is_not_there),
        TEST(limits_are_kept),
        TEST(long_texts_are_cut_and_long_identities_refused),
        TEST(the_earliest_attempt_is_next),
        TEST(one_process_at_a_time),
        TEST(looking_beside_writes_sees_one_moment),
        TEST(random_changes_keep_to_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
