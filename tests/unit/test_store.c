/* The store on a real RocksDB: order, identities, dead letters, clean-up, what it says of itself.
 */
#include "store_fixture.h"

#include "storage/clock.h"

static void reads_what_was_appended_in_order(void **state) {
    fixture *f = *state;
    append_many(f, "a", 2500);
    store_reader *reader = store_reader_open(f->store, f->route, 1);
    event_record record;
    for (uint64_t i = 1; i <= 2500; i++) {
        char id[32];
        assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        assert_int_equal(record.sequence, i);
        (void)snprintf(id, sizeof id, "a-%d", (int)i - 1);
        assert_true(bytes_equal(record.id, bytes_of_string(id)));
    }
    assert_int_equal(store_reader_next(reader, &record, &f->why), ST_NOT_FOUND);
    append_many(f, "b", 1);
    assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
    assert_int_equal(record.sequence, 2501);
    store_reader_seek(reader, 7);
    assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
    assert_int_equal(record.sequence, 7);
    store_reader_close(reader);
}

static void *submit_some(void *arg) {
    fixture *f = arg;
    static _Atomic int threads;
    int me = threads++;
    for (int i = 0; i < 500; i++) {
        char id[32];
        waiting_append append;
        (void)snprintf(id, sizeof id, "t%d-%d", me, i);
        if (append_one(f, id, "x", &append) != ST_OK) abort();
        /* Acknowledged means readable. */
        route_stats stats;
        store_stats(f->store, f->route, &stats);
        if (stats.last_sequence < append.request.sequence) abort();
    }
    return NULL;
}

static void sequences_are_dense_under_threads(void **state) {
    fixture *f = *state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_some, f), 0);
    /* A reader at the same time: what it sees has no gap, ever. */
    store_reader *reader = store_reader_open(f->store, f->route, 1);
    event_record record;
    for (uint64_t next = 1; next <= 2000;) {
        outcome result = store_reader_next(reader, &record, &f->why);
        if (result == ST_NOT_FOUND) {
            (void)store_wait(f->store, f->route, next - 1, 1000);
            continue;
        }
        assert_int_equal(result, ST_OK);
        assert_int_equal(record.sequence, next++);
    }
    for (int i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(store_reader_next(reader, &record, &f->why), ST_NOT_FOUND);
    store_reader_close(reader);
    assert_int_equal(stats_of(f).pending, 2000);
}

static void knows_duplicates(void **state) {
    fixture *f = *state;
    waiting_append first;
    waiting_append again;
    assert_int_equal(append_one(f, "one", "body", &first), ST_OK);
    assert_false(first.request.duplicate);
    assert_int_equal(append_one(f, "one", "body", &again), ST_OK);
    assert_true(again.request.duplicate);
    assert_int_equal(again.request.sequence, first.request.sequence);
    assert_int_equal(append_one(f, "one", "other", NULL), ST_ID_CONFLICT);
    reopen(f);
    assert_int_equal(append_one(f, "one", "body", &again), ST_OK);
    assert_true(again.request.duplicate);
    assert_int_equal(append_one(f, "one", "other", NULL), ST_ID_CONFLICT);
    assert_int_equal(stats_of(f).accepted, 1);
    id_entry entry;
    assert_int_equal(
        store_lookup(f->store, bytes_of_string("/test"), bytes_of_string("one"), &entry, &f->why),
        ST_OK);
    assert_int_equal(entry.sequence, 1);
    assert_int_equal(
        store_lookup(f->store, bytes_of_string("/tes"), bytes_of_string("tone"), &entry, &f->why),
        ST_NOT_FOUND);
}

static void knows_duplicates_within_a_batch(void **state) {
    fixture *f = *state;
    enum { COUNT = 300 };
    static waiting_append list[COUNT];
    for (int i = 0; i < COUNT; i++) {
        fill(&list[i], f->route, i % 3 == 2 ? "q" : "p", i % 100 == 99 ? "other" : "body");
        if (i) list[i - 1].request.next = &list[i].request;
    }
    assert_int_equal(committer_submit(f->store, &list[0].request), ST_OK);
    for (int i = 0; i < COUNT; i++) {
        assert_true(wait_done(&list[i], 20000));
        assert_int_equal(list[i].request.result, i % 100 == 99 ? ST_ID_CONFLICT : ST_OK);
        if (i % 100 != 99) assert_int_equal(list[i].request.sequence, i % 3 == 2 ? 2 : 1);
    }
    assert_int_equal(stats_of(f).accepted, 2);
}

/* The window runs from the publishing, however long the event was pending, and over restarts. */
static void forgets_a_window_after_the_publishing(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.ids_window_ms = 1000;
    open_fixture(f);
    waiting_append append;
    assert_int_equal(append_one(f, "old", "body", NULL), ST_OK);
    usleep(1200000);
    assert_int_equal(append_one(f, "old", "body", &append), ST_OK);
    assert_true(append.request.duplicate);
    store_set_position(f->store, f->route, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(append_one(f, "old", "body", &append), ST_OK);
        assert_true(append.request.duplicate);
        reopen(f);
        store_set_position(f->store, f->route, 1); /* as the publisher does when it has settled */
    }
    outcome result = ST_ID_CONFLICT;
    for (int i = 0; i < 1000 && result == ST_ID_CONFLICT; i++) {
        usleep(10000);
        result = append_one(f, "old", "different", &append);
    }
    assert_int_equal(result, ST_OK);
    assert_false(append.request.duplicate);
    assert_int_equal(append.request.sequence, 2);
}

static void does_not_remember_when_told_so(void **state) {
    fixture *f = *state;
    for (int i = 1; i <= 3; i++) {
        waiting_append append;
        fill(&append, f->route, "same", "body");
        append.request.remember = false;
        assert_int_equal(committer_submit(f->store, &append.request), ST_OK);
        assert_true(wait_done(&append, 20000));
        assert_int_equal(append.request.sequence, i);
    }
}

static void routes_keep_their_numbers(void **state) {
    fixture *f = *state;
    uint32_t informative;
    uint32_t again;
    assert_int_equal(store_route(f->store, "informative", &informative, &f->why), ST_OK);
    assert_int_equal(informative, 1);
    close_fixture(f);
    assert_int_equal(store_open(&f->options, &f->store, &f->why), ST_OK);
    assert_int_equal(store_route(f->store, "informative", &again, &f->why), ST_OK);
    assert_int_equal(again, 1);
    assert_string_equal(store_route_name(f->store, 0), "transactions");
    assert_null(store_route_name(f->store, 2));
    for (int i = 2; i < STORE_ROUTES_MAX; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "r%d", i);
        assert_int_equal(store_route(f->store, name, &again, &f->why), ST_OK);
    }
    assert_int_equal(store_route(f->store, "one-more", &again, &f->why), ST_INVALID);
}

static void buries_and_keeps_the_ledger(void **state) {
    fixture *f = *state;
    append_many(f, "a", 10);
    assert_int_equal(bury(f, 3), ST_OK);
    assert_int_equal(bury(f, 7), ST_OK);
    assert_int_equal(bury(f, 3), ST_OK); /* twice is once */
    assert_int_equal(bury(f, 11), ST_NOT_FOUND);
    for (int round = 0; round < 2; round++) {
        route_stats stats = stats_of(f);
        assert_int_equal(stats.dead, 2);
        assert_int_equal(stats.pending, 8);
        assert_int_equal(stats.published, 0);
        reopen(f);
    }
    store_set_position(f->store, f->route, 3);
    assert_int_equal(stats_of(f).published, 2);
    assert_int_equal(stats_of(f).pending, 6);
    store_set_position(f->store, f->route, 10);
    assert_int_equal(stats_of(f).published, 8);
    assert_int_equal(stats_of(f).pending, 0);
    assert_int_equal(stats_of(f).backlog_bytes, 0);
    assert_int_equal(bury(f, 3), ST_OK);
    assert_int_equal(bury(f, 4), ST_PRECONDITION);

    dead_letter letter;
    assert_int_equal(store_dead_get(f->store, f->route, 7, &letter, &f->why), ST_OK);
    assert_string_equal(letter.reason, "too large");
    assert_int_equal(letter.attempts, 3);
    assert_true(bytes_equal(letter.record.id, bytes_of_string("a-6")));
    dead_letter_free(&letter);
    assert_int_equal(store_dead_get(f->store, f->route, 6, &letter, &f->why), ST_NOT_FOUND);

    store_reader *reader = store_reader_open(f->store, f->route, 1);
    event_record record;
    for (uint64_t i = 1; i <= 10; i++) {
        assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        assert_int_equal(record.kind, i == 3 || i == 7 ? RECORD_MOVED : RECORD_EVENT);
    }
    store_reader_close(reader);
    waiting_append again;
    assert_int_equal(append_one(f, "a-6", "body of an event", &again), ST_OK);
    assert_true(again.request.duplicate && again.request.dead);
}

static void bury_respects_its_budget(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.dead_budget_bytes = 200;
    open_fixture(f);
    append_many(f, "a", 3);
    assert_int_equal(bury(f, 1), ST_OK);
    assert_int_equal(bury(f, 2), ST_DEAD_FULL);
    assert_int_equal(stats_of(f).dead, 1);
    assert_int_equal(append_one(f, "more", "x", NULL), ST_OK);
}

static void advances_and_reopens(void **state) {
    fixture *f = *state;
    append_many(f, "a", 10000);
    uuid me = store_incarnation(f->store);
    committer_advance(f->store, f->route, 9000, &me, 77);
    reopen(f);
    route_stats stats = stats_of(f);
    assert_int_equal(stats.position, 9000);
    assert_int_equal(stats.last_sequence, 10000);
    assert_int_equal(stats.pending, 1000);
    assert_true(stats.oldest_accepted_ms > 0);
    route_anchor anchor;
    store_anchor(f->store, f->route, &anchor);
    assert_int_equal(anchor.sequence, 9000);
    assert_int_equal(anchor.kafka_offset, 77);
    assert_true(uuid_equal(&anchor.incarnation, &me));
    committer_advance(f->store, f->route, 10000, &me, 78);
    reopen(f); /* nothing left in the outbox */
    stats = stats_of(f);
    assert_int_equal(stats.last_sequence, 10000);
    assert_int_equal(stats.published, 10000);
    assert_int_equal(stats.backlog_bytes, 0);
    waiting_append append;
    assert_int_equal(append_one(f, "next", "x", &append), ST_OK);
    assert_int_equal(append.request.sequence, 10001);
    store_reader *reader = store_reader_open(f->store, f->route, 10000);
    event_record record;
    assert_int_equal(store_reader_next(reader, &record, &f->why), ST_PRECONDITION);
    store_reader_close(reader);
}

static void budget_refuses_and_recovers(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.backlog_budget_bytes = 1000;
    open_fixture(f);
    int accepted = 0;
    char id[32];
    outcome result;
    do {
        (void)snprintf(id, sizeof id, "e%d", accepted);
        result = append_one(f, id, "body", NULL);
        accepted += result == ST_OK;
    } while (result == ST_OK);
    assert_int_equal(result, ST_BACKLOG_FULL);
    assert_in_range(accepted, 5, 20);
    waiting_append known; /* a retry of what is here is answered all the same */
    assert_int_equal(append_one(f, "e0", "body", &known), ST_OK);
    assert_true(known.request.duplicate);
    store_set_position(f->store, f->route, 3);
    assert_int_equal(append_one(f, id, "body", NULL), ST_OK);

    close_fixture(f);
    f->options.backlog_budget_bytes = f->options.reserve_free_bytes = UINT64_MAX / 2;
    open_fixture(f);
    assert_int_equal(append_one(f, "no room", "body", NULL), ST_DISK_FULL);
}

static void queue_is_bounded(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.queue_max_requests = 2;
    open_fixture(f);
    static waiting_append list[3];
    for (int i = 0; i < 3; i++) {
        fill(&list[i], f->route, "x", "body");
        if (i) list[i - 1].request.next = &list[i].request;
    }
    assert_int_equal(committer_submit(f->store, &list[0].request), ST_OVERLOADED);
    store_figures figures;
    store_figures_get(f->store, &figures);
    assert_int_equal(figures.queued_requests, 0);
    assert_int_equal(append_one(f, "y", "body", NULL), ST_OK);
}

static void incarnations_tell_a_rolled_back_copy(void **state) {
    fixture *f = *state;
    append_many(f, "a", 5);
    uuid first = store_incarnation(f->store);
    /* Published, and no hint yet: any incarnation may be named in Kafka. */
    route_anchor anchor = {.has_published = true, .kafka_offset = -1};
    assert_int_equal(committer_set_anchor(f->store, f->route, &anchor, &f->why), ST_OK);
    uuid stranger = uuid_random();
    assert_int_equal(store_check_position(f->store, f->route, &first, 5), ST_OK);
    assert_int_equal(store_check_position(f->store, f->route, &first, 6), ST_INVALID);
    assert_int_equal(store_check_position(f->store, f->route, &stranger, 1), ST_NOT_FOUND);
    close_fixture(f);
    run_shell("cp -r %s %s.copy", f->directory, f->directory);
    open_fixture(f);
    uuid second = store_incarnation(f->store);
    append_many(f, "b", 5);
    assert_int_equal(store_check_position(f->store, f->route, &first, 6), ST_INVALID);
    assert_int_equal(store_check_position(f->store, f->route, &second, 10), ST_OK);
    close_fixture(f);
    run_shell("rm -rf %s && mv %s.copy %s", f->directory, f->directory, f->directory);
    open_fixture(f);
    append_many(f, "c", 20);
    assert_int_equal(store_check_position(f->store, f->route, &second, 10), ST_NOT_FOUND);
    assert_int_equal(store_check_position(f->store, f->route, &first, 5), ST_OK);
}

static void drops_incarnations_that_nothing_names(void **state) {
    fixture *f = *state;
    uuid first = store_incarnation(f->store);
    reopen(f);
    uuid second = store_incarnation(f->store);
    append_many(f, "a", 5);
    route_anchor anchor = {.has_published = true,
                           .cluster_id = "cluster",
                           .positions_topic = "ingest.positions",
                           .positions_partition = 3,
                           .sequence = 4,
                           .incarnation = second,
                           .kafka_offset = 9};
    assert_int_equal(committer_set_anchor(f->store, f->route, &anchor, &f->why), ST_OK);
    reopen(f);
    route_anchor read;
    store_anchor(f->store, f->route, &read);
    assert_string_equal(read.cluster_id, "cluster");
    assert_int_equal(read.positions_partition, 3);
    assert_int_equal(stats_of(f).position, 4);
    assert_int_equal(store_check_position(f->store, f->route, &first, 0), ST_OK); /* an old Kafka */
    assert_int_equal(store_check_position(f->store, f->route, &first, 1), ST_INVALID);
    for (int i = 0; i < 32; i++)
        reopen(f);
    assert_int_equal(store_check_position(f->store, f->route, &first, 0), ST_NOT_FOUND);
    assert_int_equal(store_check_position(f->store, f->route, &second, 5), ST_OK);
    anchor.sequence = 2; /* never back */
    anchor.cluster_id[0] = 'C';
    assert_int_equal(committer_set_anchor(f->store, f->route, &anchor, &f->why), ST_OK);
    store_anchor(f->store, f->route, &read);
    assert_int_equal(read.sequence, 4);
    assert_string_equal(read.cluster_id, "Cluster");
}

static void refuses_a_second_opener(void **state) {
    fixture *f = *state;
    event_store *second = NULL;
    assert_int_equal(store_open(&f->options, &second, &f->why), ST_UNAVAILABLE);
    assert_non_null(strstr(f->why.reason, "in use"));
}

static void *wake_soon(void *arg) {
    fixture *f = arg;
    usleep(20000);
    store_wake(f->store, f->route);
    return NULL;
}

static void waits_and_wakes(void **state) {
    fixture *f = *state;
    int64_t began = clock_monotonic_ms();
    assert_int_equal(store_wait(f->store, f->route, 0, 30), 0);
    assert_true(clock_monotonic_ms() - began >= 29);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_soon, f), 0);
    assert_int_equal(store_wait(f->store, f->route, 0, 20000), 0);
    (void)pthread_join(thread, NULL);
    append_many(f, "a", 1);
    assert_int_equal(store_wait(f->store, f->route, 0, 20000), 1);
    assert_true(clock_monotonic_ms() - began < 10000);
}

static int64_t time_of_reads_us(fixture *f, uint64_t from) {
    int64_t best = INT64_MAX;
    for (int round = 0; round < 20; round++) {
        int64_t began = clock_monotonic_us();
        event_record record;
        store_reader *reader = store_reader_open(f->store, f->route, from);
        for (int i = 0; i < 50; i++)
            assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        store_reader_close(reader);
        int64_t took = clock_monotonic_us() - began;
        if (took < best) best = took;
    }
    return best;
}

static void reading_does_not_depend_on_what_was_written(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.memtable_bytes = 4 << 20; /* flushes on the way */
    open_fixture(f);
    uuid me = store_incarnation(f->store);
    append_many(f, "start", 100);
    int64_t before = time_of_reads_us(f, 1);
    for (int round = 0; round < 30; round++) {
        char prefix[16];
        (void)snprintf(prefix, sizeof prefix, "r%d", round);
        append_many(f, prefix, 10000);
        committer_advance(f->store, f->route, (uint64_t)(round + 1) * 10000, &me, 0);
    }
    reopen(f);
    int64_t after = time_of_reads_us(f, 300001);
    print_message("50 reads: %lld us before, %lld us after 300,000 events\n", (long long)before,
                  (long long)after);
    assert_true(after < 10 * before + 2000);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reads_what_was_appended_in_order),
        TEST(sequences_are_dense_under_threads),
        TEST(knows_duplicates),
        TEST(knows_duplicates_within_a_batch),
        TEST(forgets_a_window_after_the_publishing),
        TEST(does_not_remember_when_told_so),
        TEST(routes_keep_their_numbers),
        TEST(buries_and_keeps_the_ledger),
        TEST(bury_respects_its_budget),
        TEST(advances_and_reopens),
        TEST(budget_refuses_and_recovers),
        TEST(queue_is_bounded),
        TEST(incarnations_tell_a_rolled_back_copy),
        TEST(drops_incarnations_that_nothing_names),
        TEST(refuses_a_second_opener),
        TEST(waits_and_wakes),
        TEST(reading_does_not_depend_on_what_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
