/* Disk space on a real RocksDB: given back after a drain, kept as ballast, kept for RocksDB's own
 * work. */
#include "store_fixture.h"

#include "storage/clock.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#define MIB (1 << 20)

static uint64_t counted;

static int count_file(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)path, (void)walk;
    if (type == FTW_F) counted += (uint64_t)info->st_blocks * 512;
    return 0;
}

static uint64_t disk_bytes(const fixture *f) {
    counted = 0;
    (void)nftw(f->directory, count_file, 16, FTW_PHYS);
    return counted;
}

/* Events of 1 KiB that cannot be compressed. */
static void append_kib(fixture *f, int count) {
    enum { LIST = 1000, SIZE = 1024 };
    static waiting_append list[LIST];
    static uint8_t bodies[LIST][SIZE];
    static char ids[LIST][32];
    static int number;
    static uint32_t random = 1;
    for (; count > 0; count -= LIST) {
        for (int i = 0; i < LIST; i++) {
            for (int j = 0; j < SIZE; j++)
                bodies[i][j] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
            (void)snprintf(ids[i], sizeof ids[i], "kib-%d", number++);
            fill(&list[i], f->route, ids[i], "");
            list[i].request.remember = false;
            list[i].request.record.event = bytes_of(bodies[i], SIZE);
            if (i) list[i - 1].request.next = &list[i].request;
        }
        assert_int_equal(committer_submit(f->store, &list[0].request), ST_OK);
        for (int i = 0; i < LIST; i++) {
            assert_true(wait_done(&list[i], 20000));
            assert_int_equal(list[i].request.result, ST_OK);
        }
    }
}

static void space_is_given_back_after_a_drain(void **state) {
    fixture *f = *state;
    f->options.memtable_bytes = 4 * MIB;
    open_fixture(f);
    uint64_t idle = disk_bytes(f);
    uint64_t last = 0;
    uuid me = store_incarnation(f->store);
    for (int round = 0; round < 2; round++) {
        append_kib(f, 100000);
        assert_true(disk_bytes(f) > 90 * MIB);
        event_record record;
        store_reader *reader = store_reader_open(f->store, f->route, last + 1);
        assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        for (int i = 0; i < 20; i++) {
            committer_advance(f->store, f->route, last += 5000, &me, 0);
            usleep(50000);
        }
        store_reader_rest(reader); /* as an idle publisher does: it pins all tables otherwise */
        int64_t began = clock_monotonic_ms();
        while (disk_bytes(f) > 2 * idle && clock_monotonic_ms() - began < 60000)
            usleep(100000);
        print_message("idle %llu KiB, %lld ms after the drain %llu KiB\n",
                      (unsigned long long)idle / 1024, (long long)(clock_monotonic_ms() - began),
                      (unsigned long long)disk_bytes(f) / 1024);
        if (disk_bytes(f) > 2 * idle) run_shell("ls -ls %s/db", f->directory);
        assert_true(disk_bytes(f) <= 2 * idle);
        store_reader_close(reader);
    }
}

static store_figures figures_of(fixture *f) {
    store_figures figures;
    store_figures_get(f->store, &figures);
    return figures;
}

static int64_t window_ms(fixture *f) { return figures_of(f).ids_window_ms; }

static outcome look_for(fixture *f, const char *id) {
    id_entry entry;
    return store_lookup(f->store, bytes_of_string("/test"), bytes_of_string(id), &entry, &f->why);
}

/* Many times the budget's worth of ids, each event published at once but for the first. */
static void ids_stay_within_their_budget(void **state) {
    enum { BUDGET = 16 * MIB, ROUNDS = 60, IDS = 10000 };
    fixture *f = *state;
    f->options.memtable_bytes = 4 * MIB;
    f->options.ids_budget_bytes = BUDGET;
    open_fixture(f);
    const int64_t opened_ms = clock_monotonic_ms();
    uint32_t other;
    assert_int_equal(store_route(f->store, "informative", &other, &f->why), ST_OK);
    waiting_append pending;
    fill(&pending, other, "pending", "body");
    assert_int_equal(committer_submit(f->store, &pending.request), ST_OK);
    assert_true(wait_done(&pending, 20000));
    assert_int_equal(window_ms(f), f->options.ids_window_ms);

    uuid me = store_incarnation(f->store);
    uint64_t most = 0;
    for (int round = 0; round < ROUNDS; round++) {
        char prefix[24];
        (void)snprintf(prefix, sizeof prefix, "%08x-%d", round * 2654435761u, round);
        append_many(f, prefix, IDS);
        committer_advance(f->store, f->route, (uint64_t)(round + 1) * IDS, &me, 0);
        usleep(100000);
        uint64_t now = figures_of(f).ids_bytes;
        if (now > most) most = now;
        if (round == ROUNDS / 2) {
            reopen(f); /* the window is durable */
            assert_true(window_ms(f) < (int64_t)f->options.ids_window_ms);
            me = store_incarnation(f->store);
        }
    }
    /* Two fifths are remembered; a compaction is due when there is half as much again, and a bit.
     */
    int64_t began = clock_monotonic_ms();
    while (figures_of(f).ids_bytes > BUDGET * 2 / 3 && clock_monotonic_ms() - began < 30000)
        usleep(100000);
    print_message("ids remembered for %lld ms; %llu KiB of tables at most\n",
                  (long long)window_ms(f), (unsigned long long)most / 1024);
    assert_in_range(window_ms(f), 100, clock_monotonic_ms() - opened_ms);
    char last[40];
    (void)snprintf(last, sizeof last, "%08x-%d-%d", (ROUNDS - 1) * 2654435761u, ROUNDS - 1,
                   IDS - 1);
    assert_int_equal(look_for(f, last), ST_OK);
    assert_int_equal(look_for(f, "00000000-0-0"), ST_NOT_FOUND);
    assert_int_equal(look_for(f, "pending"), ST_OK);
    uint64_t ids_ever = (uint64_t)ROUNDS * IDS * 70;
    assert_true(ids_ever > 2 * BUDGET);
    assert_true(most <= BUDGET);
    assert_true(figures_of(f).ids_bytes <= BUDGET * 2 / 3); /* what is over has left the disk */
}

static void ballast_is_held(void **state) {
    fixture *f = *state;
    struct stat status;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/ballast", f->directory);
    for (uint64_t size = 64 * MIB; size; size /= 4) { /* larger, then smaller than before */
        f->options.ballast_bytes = size;
        open_fixture(f);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_size, size);
        assert_true((uint64_t)status.st_blocks * 512 >= size);
        assert_int_equal(append_one(f, "any", "body", NULL), ST_OK);
        close_fixture(f);
        if (size < MIB) break;
    }
    /* More than the volume has: nothing new is taken. */
    f->options.ballast_bytes = UINT64_C(1) << 60;
    open_fixture(f);
    assert_int_equal(append_one(f, "one more", "body", NULL), ST_DISK_FULL);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_closed, teardown)
    const struct CMUnitTest tests[] = {
        TEST(space_is_given_back_after_a_drain),
        TEST(ids_stay_within_their_budget),
        TEST(ballast_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
