/* What is acknowledged is there: processes killed at random, writes made to fail, a store closed.
 */
#include "store_fixture.h"

#include "storage/clock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { LIST = 50 };

/* The child: lists of appends without end; a line on the pipe for each acknowledged list. */
static void append_until_killed(fixture *f, int round, int pipe_end) {
    static waiting_append list[LIST];
    static char ids[LIST][32];
    if (try_open(f) != ST_OK) _exit(1);
    for (int n = 0;; n++) {
        for (int i = 0; i < LIST; i++) {
            (void)snprintf(ids[i], sizeof ids[i], "%d-%d-%d", round, n, i);
            fill(&list[i], f->route, ids[i], "some body of some event");
            if (i) list[i - 1].request.next = &list[i].request;
        }
        if (committer_submit(f->store, &list[0].request) != ST_OK) _exit(2);
        for (int i = 0; i < LIST; i++)
            if (!wait_done(&list[i], 20000)) _exit(3);
        uint64_t last = list[LIST - 1].request.sequence;
        if (write(pipe_end, &last, sizeof last) != sizeof last) _exit(4);
        if (n % 8 == 7) {
            uuid me = store_incarnation(f->store);
            if (bury(f, last) != ST_OK) _exit(5);
            committer_advance(f->store, f->route, last - 10, &me, 0);
        }
    }
}

static uint64_t run_and_kill(fixture *f, int round) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = start_child(f, "append", round, ends[1]);
    (void)close(ends[1]);
    uint64_t acked = 0;
    uint64_t last;
    int64_t until = 0;
    bool killed = false;
    while (read(ends[0], &last, sizeof last) == sizeof last) {
        acked = last;
        if (!until) until = clock_monotonic_ms() + rand() % 100;
        if (!killed && clock_monotonic_ms() >= until) killed = kill(child, SIGKILL) == 0;
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(killed && WIFSIGNALED(status));
    (void)close(ends[0]);
    return acked;
}

static void survives_being_killed(void **state) {
    fixture *f = *state;
    for (int round = 0; round < 20; round++) {
        uint64_t acked = run_and_kill(f, round);
        open_fixture(f);
        route_stats stats = stats_of(f);
        assert_true(stats.last_sequence >= acked);
        store_reader *reader = store_reader_open(f->store, f->route, stats.position + 1);
        event_record record;
        for (uint64_t i = stats.position + 1; i <= stats.last_sequence; i++)
            assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        store_reader_close(reader);
        close_fixture(f);
    }
}

/*
 * RLIMIT_FSIZE makes a write of the WAL fail as a full or broken disk would. In a child, because
 * the process has to end after it; each step that goes wrong has its exit status.
 */
static int fail_a_write(fixture *f) {
    static char body[20000];
    static waiting_append lost;
    static waiting_append later;
    struct rlimit limit;
    if (try_open(f) != ST_OK || append_one(f, "first", "x", NULL) != ST_OK) return 1;
    (void)signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    limit.rlim_cur = 8192;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    memset(body, 'x', sizeof body - 1);
    fill(&lost, f->route, "lost", body);
    if (committer_submit(f->store, &lost.request) != ST_OK) return 3;
    for (int i = 0; i < 20000 && !f->fatals; i++)
        usleep(1000);
    if (f->fatals != 1 || lost.finished) return 4;
    fill(&later, f->route, "later", "x");
    if (committer_submit(f->store, &later.request) != ST_UNAVAILABLE) return 5;
    if (bury(f, 1) != ST_UNAVAILABLE) return 6;
    if (stats_of(f).last_sequence != 1) return 7; /* never visible */
    close_fixture(f);
    return f->fatals == 1 && !lost.finished ? 0 : 8;
}

static void stops_at_a_failed_write(void **state) {
    fixture *f = *state;
    pid_t child = start_child(f, "fail", 0, 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    open_fixture(f);
    assert_int_equal(stats_of(f).last_sequence, 1);
    assert_int_equal(append_one(f, "lost", "body", NULL), ST_OK);
}

static void closing_finishes_what_is_queued(void **state) {
    fixture *f = *state;
    enum { COUNT = 2000 };
    static waiting_append list[COUNT];
    static char ids[COUNT][16];
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(ids[i], sizeof ids[i], "%d", i);
        fill(&list[i], f->route, ids[i], "x");
        assert_int_equal(committer_submit(f->store, &list[i].request), ST_OK);
    }
    close_fixture(f);
    for (int i = 0; i < COUNT; i++) {
        assert_true(list[i].finished);
        assert_int_equal(list[i].request.sequence, i + 1); /* in the order of the submits */
    }
    open_fixture(f);
    assert_int_equal(stats_of(f).last_sequence, COUNT);
}

static void done_comes_after_visibility(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 200; i++) {
        char id[16];
        waiting_append append;
        event_record record;
        (void)snprintf(id, sizeof id, "%d", i);
        assert_int_equal(append_one(f, id, "x", &append), ST_OK);
        store_reader *reader = store_reader_open(f->store, f->route, append.request.sequence);
        assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        store_reader_close(reader);
    }
    store_figures figures;
    store_figures_get(f->store, &figures);
    assert_true(figures.commits >= 200 && figures.committed_requests == 200);
    assert_int_equal(figures.sync.count, figures.commits);
    assert_int_equal(figures.queued_bytes, 0);
}

static int child_main(char **argv) {
    static fixture f;
    init_child(&f, argv);
    if (strcmp(argv[1], "fail") == 0) return fail_a_write(&f);
    append_until_killed(&f, atoi(argv[3]), atoi(argv[4]));
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1) return child_main(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(survives_being_killed, setup_closed, teardown),
        cmocka_unit_test_setup_teardown(stops_at_a_failed_write, setup_closed, teardown),
        cmocka_unit_test_setup_teardown(closing_finishes_what_is_queued, setup, teardown),
        cmocka_unit_test_setup_teardown(done_comes_after_visibility, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
