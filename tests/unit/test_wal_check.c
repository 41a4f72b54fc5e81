/*
 * Recovery over files that RocksDB made and a test then damaged. A child appends and ends without
 * closing, as a power cut would leave it; each case works on a copy.
 */
#include "store_fixture.h"

#include "storage/evidence.h"
#include "storage/manifest.h"
#include "storage/wal_check.h"
#include "storage/wal_log.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

typedef struct wal_case {
    fixture base;         /* the store as the child left it */
    char wal[256];        /* its newest log, below the copy */
    uint64_t size;        /* of it */
    uint64_t before_last; /* its size before the last batch */
} wal_case;

static void newest_wal(const char *directory, char *path, uint64_t *size) {
    char folder[128];
    unsigned long best = 0;
    (void)snprintf(folder, sizeof folder, "%s/db", directory);
    DIR *all = opendir(folder);
    assert_non_null(all);
    for (struct dirent *at; (at = readdir(all));) {
        char *end;
        unsigned long number = strtoul(at->d_name, &end, 10);
        if (end != at->d_name && strcmp(end, ".log") == 0 && number > best) best = number;
    }
    (void)closedir(all);
    (void)snprintf(path, 256, "%s/%06lu.log", folder, best);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    *size = (uint64_t)status.st_size;
}

/* Once a second the committer writes the state of the id window, if ids were put: a batch too. */
static void pass_a_tick(const fixture *f) {
    char path[256];
    uint64_t before;
    uint64_t now;
    newest_wal(f->directory, path, &before);
    do {
        usleep(2000);
        newest_wal(f->directory, path, &now);
    } while (now == before);
}

/* In the child: `small` batches of one, the WAL's size to the pipe, and one of `last` bytes. It
 * ends by a kill, which leaves no time for another tick. */
static int fill_store(fixture *f, int small, size_t last, int pipe_end) {
    char path[256];
    uint64_t size;
    char *body = calloc(1, last + 1);
    if (try_open(f) != ST_OK) return 1;
    for (int i = 0; i < small; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "s%d", i);
        if (append_one(f, id, "some small body", NULL) != ST_OK) return 2;
    }
    pass_a_tick(f); /* so that the next one is a second away */
    newest_wal(f->directory, path, &size);
    if (write(pipe_end, &size, sizeof size) != sizeof size) return 3;
    memset(body, 'x', last);
    if (append_one(f, "last", body, NULL) == ST_OK) (void)raise(SIGKILL);
    return 4;
}

static void make_store(wal_case *c, int small, int last) {
    fixture *f = &c->base;
    int ends[2];
    int status;
    char size[16];
    assert_int_equal(pipe(ends), 0);
    (void)snprintf(size, sizeof size, "%d", last);
    pid_t child = start_child(f, size, small, ends[1]);
    (void)close(ends[1]);
    assert_int_equal(read(ends[0], &c->before_last, sizeof c->before_last), sizeof c->before_last);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    (void)close(ends[0]);
    newest_wal(f->directory, c->wal, &c->size);
    assert_true(c->size > c->before_last);
}

/* A fresh copy to damage. Without its evidence: that has the last batch, as a synced one. */
static fixture copy_of(wal_case *c, bool with_evidence, char wal[256]) {
    fixture copy = c->base;
    uint64_t size;
    (void)snprintf(copy.directory, sizeof copy.directory, "%.50s.copy", c->base.directory);
    run_shell("rm -rf %s && cp -r %s %s", copy.directory, c->base.directory, copy.directory);
    if (!with_evidence) run_shell("rm %s/evidence", copy.directory);
    newest_wal(copy.directory, wal, &size);
    return copy;
}

static outcome open_copy(fixture *copy, uint64_t *last) {
    copy->options.directory = copy->directory;
    copy->options.arg = copy;
    outcome result = try_open(copy);
    if (result == ST_OK) {
        *last = stats_of(copy).last_sequence;
        assert_int_equal(append_one(copy, "after", "x", NULL), ST_OK);
    }
    if (copy->store) store_close(copy->store);
    copy->store = NULL;
    return result;
}

static void flip(const char *path, uint64_t at) {
    uint8_t octet;
    int file = open(path, O_RDWR);
    assert_int_equal(pread(file, &octet, 1, (off_t)at), 1);
    octet ^= 0x10;
    assert_int_equal(pwrite(file, &octet, 1, (off_t)at), 1);
    (void)close(file);
}

static void put_zeros(const char *path, uint64_t from, uint64_t to) {
    int file = open(path, O_RDWR);
    for (; from < to; from++)
        assert_int_equal(pwrite(file, "", 1, (off_t)from), 1);
    (void)close(file);
}

static int setup_case(void **state) {
    wal_case *c = calloc(1, sizeof *c);
    void *base;
    if (setup_closed(&base) != 0) return -1;
    c->base = *(fixture *)base;
    c->base.options.directory = c->base.directory;
    c->base.options.arg = &c->base;
    free(base);
    *state = c;
    return 0;
}

static int teardown_case(void **state) {
    wal_case *c = *state;
    run_shell("rm -rf %s %s.copy", c->base.directory, c->base.directory);
    free(c);
    return 0;
}

static const wal_bounds NOTHING_KNOWN;

/* Cut at every offset of the last record: wal_check leaves what was before it. */
static void repairs_every_truncation(void **state) {
    wal_case *c = *state;
    make_store(c, 5, 100);
    for (uint64_t size = c->before_last; size <= c->size; size++) {
        char wal[256];
        char tail[160];
        char folder[160];
        uint64_t now;
        fixture copy = copy_of(c, false, wal);
        assert_int_equal(truncate(wal, (off_t)size), 0);
        (void)snprintf(tail, sizeof tail, "%s/torn-tail", copy.directory);
        (void)snprintf(folder, sizeof folder, "%s/db", copy.directory);
        wal_repair repair;
        failure why;
        assert_int_equal(wal_check(folder, tail, &NOTHING_KNOWN, &repair, &why), ST_OK);
        newest_wal(copy.directory, wal, &now);
        bool torn = size > c->before_last && size < c->size;
        assert_int_equal(repair.repaired, torn);
        assert_int_equal(now, torn ? c->before_last : size);
        if (torn) assert_int_equal(repair.cut_bytes, size - c->before_last);
        /* And RocksDB, which accepts no flaw at all, agrees: not each time, it is slow. */
        if (size % 16 && size + 1 < c->size) continue;
        uint64_t last = 0;
        assert_int_equal(open_copy(&copy, &last), ST_OK);
        assert_int_equal(last, size == c->size ? 6 : 5);
    }
}

static void repairs_zeros_at_the_end(void **state) {
    wal_case *c = *state;
    make_store(c, 5, 100);
    char wal[256];
    uint64_t last = 0;
    fixture copy = copy_of(c, false, wal);
    put_zeros(wal, c->before_last + 40, c->size + 5000); /* the last page never came */
    assert_int_equal(open_copy(&copy, &last), ST_OK);
    assert_int_equal(last, 5);
    copy = copy_of(c, true, wal);
    put_zeros(wal, c->size, c->size + 70000); /* size on disk, and no data */
    assert_int_equal(open_copy(&copy, &last), ST_OK);
    assert_int_equal(last, 6);
    copy = copy_of(c, true, wal);
    assert_int_equal(truncate(wal, (off_t)c->size + 3), 0);
    assert_int_equal(open_copy(&copy, &last), ST_OK);
}

/* A batch over several blocks, of which any page may be missing though later ones are there. */
static void repairs_holes_in_a_large_batch(void **state) {
    wal_case *c = *state;
    make_store(c, 5, 200000);
    for (uint64_t page = c->before_last / 4096; page * 4096 < c->size; page++) {
        char wal[256];
        uint64_t last = 0;
        fixture copy = copy_of(c, false, wal);
        uint64_t from = page * 4096 > c->before_last ? page * 4096 : c->before_last;
        uint64_t to = page * 4096 + 4096 < c->size ? page * 4096 + 4096 : c->size;
        put_zeros(wal, from, to);
        assert_int_equal(open_copy(&copy, &last), ST_OK);
        assert_int_equal(last, 5);
    }
}

static void refuses_damage_before_the_end(void **state) {
    wal_case *c = *state;
    make_store(c, 300, 60000); /* several blocks */
    for (uint64_t at = 10; at < c->before_last; at += c->before_last / 40) {
        char wal[256];
        uint64_t last = 0;
        fixture copy = copy_of(c, true, wal);
        flip(wal, at);
        assert_int_equal(open_copy(&copy, &last), ST_CORRUPT);
        /* A changed length hides the records up to the next block: behind the last such border
         * only the evidence knows. Before it the log itself does, and is left as it is. */
        if (at >= 32768) continue;
        uint64_t size;
        newest_wal(copy.directory, wal, &size);
        assert_string_equal(copy.why.field, "wal");
        assert_int_equal(size, c->size);
    }
}

static void evidence_finds_a_cut_end(void **state) {
    wal_case *c = *state;
    make_store(c, 5, 100);
    char wal[256];
    uint64_t last = 0;
    fixture copy = copy_of(c, true, wal);
    assert_int_equal(truncate(wal, (off_t)c->before_last), 0);
    assert_int_equal(open_copy(&copy, &last), ST_CORRUPT);
    assert_non_null(strstr(copy.why.reason, "transactions"));
    assert_non_null(strstr(copy.why.reason, "6 to 6"));
    copy = copy_of(c, true, wal);
    run_shell("rm -r %s/db", copy.directory);
    assert_int_equal(open_copy(&copy, &last), ST_CORRUPT);
}

static void evidence_survives_a_torn_slot(void **state) {
    wal_case *c = *state;
    char path[160];
    bool found;
    evidence witness;
    evidence_state state_now = {.writes = 1};
    (void)snprintf(path, sizeof path, "%s/evidence", c->base.directory);
    assert_int_equal(evidence_open(&witness, path, &found, &state_now, NULL), ST_OK);
    assert_false(found);
    for (uint64_t i = 1; i <= 3; i++) {
        state_now.writes = i;
        state_now.last[31] = i * 10;
        assert_int_equal(evidence_write(&witness, &state_now, NULL), ST_OK);
    }
    assert_int_equal(evidence_sync(&witness, NULL), ST_OK);
    evidence_close(&witness);
    flip(path, 4096 + 100); /* the slot of the third */
    assert_int_equal(evidence_open(&witness, path, &found, &state_now, NULL), ST_OK);
    assert_true(found);
    assert_int_equal(state_now.writes, 2);
    assert_int_equal(state_now.last[31], 20);
    evidence_close(&witness);
}

/* An older log has been synced whole before the next was begun. */
static void refuses_a_flaw_in_an_older_log(void **state) {
    wal_case *c = *state;
    make_store(c, 5, 100);
    char wal[256];
    char newer[300];
    uint64_t last = 0;
    fixture copy = copy_of(c, true, wal);
    (void)snprintf(newer, sizeof newer, "%s/db/999999.log", copy.directory);
    int file = open(newer, O_CREAT | O_WRONLY, 0600); /* an empty newest one is fine */
    (void)close(file);
    wal_repair repair;
    failure why;
    char folder[160];
    (void)snprintf(folder, sizeof folder, "%s/db", copy.directory);
    assert_int_equal(wal_check(folder, NULL, &NOTHING_KNOWN, &repair, &why), ST_OK);
    /* Behind a failed write there may be one; but this one had been synced, the evidence says. */
    assert_int_equal(truncate(wal, (off_t)c->size - 1), 0);
    assert_int_equal(wal_check(folder, NULL, &NOTHING_KNOWN, &repair, &why), ST_OK);
    assert_int_equal(open_copy(&copy, &last), ST_CORRUPT);
    run_shell("rm %s/evidence && cp %s %s", copy.directory, c->wal, newer);
    assert_int_equal(wal_check(folder, NULL, &NOTHING_KNOWN, &repair, &why), ST_CORRUPT);
    assert_int_equal(open_copy(&copy, &last), ST_CORRUPT);
}

/* Appends the MANIFEST's own first record: `bad` times with a wrong byte, then `good` times. */
static void tear_manifest(const fixture *copy, int bad, int good) {
    char folder[160];
    char path[256];
    char record[512];
    manifest_facts facts;
    failure why;
    (void)snprintf(folder, sizeof folder, "%s/db", copy->directory);
    assert_int_equal(manifest_check(folder, &(manifest_extent){0}, &facts, &why), ST_OK);
    assert_true(facts.flushed_known && facts.flushed > 0);
    assert_true(facts.logs.known);
    assert_int_equal(facts.extent.size, facts.size);
    (void)snprintf(path, sizeof path, "%s/%s", folder, facts.file);
    int file = open(path, O_RDWR | O_APPEND);
    assert_true(pread(file, record, sizeof record, 0) > 7);
    size_t len = 7 + (uint8_t)record[4] + 256u * (uint8_t)record[5];
    assert_true(len < sizeof record);
    for (int i = 0; i < bad + good; i++) {
        record[len - 1] = (char)(record[len - 1] ^ (i == 0 || i == bad ? 1 : 0));
        assert_int_equal(write(file, record, len), len);
    }
    (void)close(file);
}

/* Edits that a power cut tore had no effect. RocksDB alone refuses them. */
static void repairs_a_torn_manifest(void **state) {
    wal_case *c = *state;
    make_store(c, 5, 100);
    uint64_t last = 0;
    fixture base = c->base;
    assert_int_equal(open_copy(&base, &last), ST_OK);
    for (int good = 0; good <= 9; good++) {
        char wal[256];
        char saved[160];
        fixture copy = copy_of(c, true, wal);
        tear_manifest(&copy, 1, good);
        assert_int_equal(open_copy(&copy, &last), good <= 8 ? ST_OK : ST_CORRUPT);
        (void)snprintf(saved, sizeof saved, "%s/torn-manifest", copy.directory);
        assert_int_equal(access(saved, F_OK), good <= 8 ? 0 : -1);
        assert_int_equal(last, 7);
    }
}

/* What was known to be on the disk is not taken for torn. */
static void refuses_a_manifest_that_shrank(void **state) {
    wal_case *c = *state;
    make_store(c, 5, 100);
    char wal[256];
    char folder[160];
    manifest_facts facts;
    failure why;
    fixture copy = copy_of(c, true, wal);
    (void)snprintf(folder, sizeof folder, "%s/db", copy.directory);
    assert_int_equal(manifest_check(folder, &(manifest_extent){0}, &facts, &why), ST_OK);
    const manifest_extent before = facts.extent;
    assert_int_equal(manifest_check(folder, &before, &facts, &why), ST_OK);
    const manifest_extent beyond = {.number = before.number, .size = before.size + 1};
    assert_int_equal(manifest_check(folder, &beyond, &facts, &why), ST_CORRUPT);
    assert_non_null(strstr(why.reason, "is sound up to byte"));
}

/* A log of two batches: each one value of a column family. */
static void put_log(const char *folder, int number, uint8_t first, uint8_t family) {
    char path[256];
    failure why;
    wal_writer writer;
    (void)snprintf(path, sizeof path, "%s/%06d.log", folder, number);
    assert_int_equal(wal_writer_open(&writer, path, &why), ST_OK);
    for (uint8_t i = 0; i < 2; i++) {
        const uint8_t batch[] = {
            (uint8_t)(first + i), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, family, 1, 'k', 1, 'v'};
        assert_int_equal(wal_batch_families(bytes_of(batch, sizeof batch)), 1U << family);
        assert_int_equal(wal_writer_add(&writer, bytes_of(batch, sizeof batch), &why), ST_OK);
    }
    assert_int_equal(wal_writer_close(&writer, &why), ST_OK);
}

/* The tables have all of these writes but those of one family: its logs, and all behind the first
 * of them, have to be there. */
static void misses_a_log_behind_one_that_is_needed(void **state) {
    wal_case *c = *state;
    const char *folder = c->base.directory;
    enum { DEAD = 3, OUTBOX = 1 };
    wal_bounds bounds = {.flushed_known = true, .flushed = 100, .needs.known = true};
    wal_repair repair;
    failure why;
    put_log(folder, 10, 20, OUTBOX);
    put_log(folder, 20, 22, DEAD);
    put_log(folder, 40, 26, OUTBOX); /* 30, with 24 and 25, is gone */
    bounds.needs.from[OUTBOX] = 50;
    bounds.needs.from[DEAD] = 21; /* no log is needed: 20 came back */
    assert_int_equal(wal_check(folder, NULL, &bounds, &repair, &why), ST_OK);
    bounds.needs.from[DEAD] = 20;
    assert_int_equal(wal_check(folder, NULL, &bounds, &repair, &why), ST_CORRUPT);
    assert_non_null(strstr(why.reason, "writes 24 to 25 are missing"));
    put_log(folder, 30, 24, OUTBOX);
    assert_int_equal(wal_check(folder, NULL, &bounds, &repair, &why), ST_OK);
    run_shell("rm %s/000010.log", folder); /* older than all that is needed */
    assert_int_equal(wal_check(folder, NULL, &bounds, &repair, &why), ST_OK);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        static fixture f;
        init_child(&f, argv);
        _exit(fill_store(&f, atoi(argv[3]), (size_t)atoi(argv[1]), atoi(argv[4])));
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_case, teardown_case)
    const struct CMUnitTest tests[] = {
        TEST(repairs_every_truncation),       TEST(repairs_zeros_at_the_end),
        TEST(repairs_holes_in_a_large_batch), TEST(refuses_damage_before_the_end),
        TEST(evidence_finds_a_cut_end),       TEST(evidence_survives_a_torn_slot),
        TEST(refuses_a_flaw_in_an_older_log), TEST(repairs_a_torn_manifest),
        TEST(refuses_a_manifest_that_shrank), TEST(misses_a_log_behind_one_that_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
