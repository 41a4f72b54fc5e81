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

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_closed, teardown)
    const struct CMUnitTest tests[] = {
        TEST(space_is_given_back_after_a_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
