/* The store of failed events when something is wrong: damage of single bytes and of whole values,
 * files that were cut, writes that fail, and kills at any moment. */
#include "failed_fixture.h"

#include "storage/event_store.h"
#include "storage/failed_record.h"

#include <fcntl.h>
#include <glob.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- the bytes of a record ------------------------------------------------------------------ */

static void every_changed_byte_is_found(void **state) {
    (void)state;
    static uint8_t value[FAILED_RECORD_MAX + 1];
    failed_record record = record_of("id-1", "the event");
    failed_record out;
    failure why = {0};
    uint64_t event_size;
    record.number = 77;
    record.opaque = true;
    bytes encoded = failed_record_encode(&record, 123, value);
    assert_int_equal(failed_record_decode(77, encoded, &out, &event_size, &why), ST_OK);
    assert_int_equal(event_size, 123);
    assert_true(out.opaque);
    for (size_t i = 0; i < encoded.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            value[i] ^= (uint8_t)(1 << bit);
            assert_int_equal(failed_record_decode(77, encoded, &out, &event_size, &why),
                             ST_CORRUPT);
            assert_non_null(strstr(why.reason, "failed event 77"));
            value[i] ^= (uint8_t)(1 << bit);
        }
        assert_int_equal(failed_record_decode(77, bytes_of(value, i), &out, &event_size, &why),
                         ST_CORRUPT);
    }
    assert_int_equal(failed_record_decode(78, encoded, &out, &event_size, &why), ST_CORRUPT);
    assert_int_equal(
        failed_record_decode(77, bytes_of(value, encoded.len + 1), &out, &event_size, &why),
        ST_CORRUPT);

    bytes event;
    memcpy(value + FAILED_EVENT_HEAD, "abc", 3);
    failed_event_encode(5, bytes_of("abc", 3), value);
    encoded = bytes_of(value, FAILED_EVENT_HEAD + 3);
    assert_int_equal(failed_event_decode(5, encoded, &event, &why), ST_OK);
    assert_true(bytes_equal(event, bytes_of_string("abc")));
    assert_int_equal(failed_event_decode(6, encoded, &event, &why), ST_CORRUPT);
    assert_int_equal(failed_event_decode(5, bytes_of(value, 4), &event, &why), ST_CORRUPT);
    for (size_t i = 0; i < encoded.len; i++) {
        value[i] ^= 0x10;
        assert_int_equal(failed_event_decode(5, encoded, &event, &why), ST_CORRUPT);
        value[i] ^= 0x10;
    }
}

/* ---- values that RocksDB hands out as they are ---------------------------------------------- */

/* Another kind of store has other families. */
static void a_store_of_another_kind_does_not_open(void **state) {
    fixture *f = *state;
    event_store *other;
    store_options options;
    store_options_init(&options);
    options.directory = f->directory;
    options.reserve_free_bytes = options.ballast_bytes = 0;
    close_fixture(f);
    run_shell("rm -r %s/*", f->directory);
    assert_int_equal(store_open(&options, &other, &f->why), ST_OK);
    store_close(other);
    assert_int_equal(try_open(f), ST_PRECONDITION);
    assert_non_null(strstr(f->why.reason, "is no store of failed events"));
    assert_int_equal(store_open(&options, &other, &f->why), ST_OK);
    store_close(other);
}

enum { META, FIGURES, EVENTS, IDENTITIES, DUE, FAMILIES };

/* Writes into the closed store's RocksDB; `value` NULL: deletes. */
static void meddle(const fixture *f, int family, bytes key, const char *value, size_t len) {
    static const char *const NAMES[FAMILIES] = {"default", "figures", "events", "identities",
                                                "due"};
    char path[96];
    char *error = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    const rocksdb_options_t *all[FAMILIES] = {options, options, options, options, options};
    rocksdb_column_family_handle_t *families[FAMILIES];
    (void)snprintf(path, sizeof path, "%s/db", f->directory);
    rocksdb_t *db =
        rocksdb_open_column_families(options, path, FAMILIES, NAMES, all, families, &error);
    assert_null(error);
    rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
    if (value)
        rocksdb_put_cf(db, write, families[family], (const char *)key.data, key.len, value, len,
                       &error);
    else
        rocksdb_delete_cf(db, write, families[family], (const char *)key.data, key.len, &error);
    assert_null(error);
    rocksdb_writeoptions_destroy(write);
    for (int i = 0; i < FAMILIES; i++)
        rocksdb_column_family_handle_destroy(families[i]);
    rocksdb_close(db);
    rocksdb_options_destroy(options);
}

static void fill_three(fixture *f) {
    static const char *const IDS[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        failed_record record = record_of(IDS[i], "the event");
        (void)put_one(f, &record);
    }
}

#define KEY_OF_2 bytes_of("\0\0\0\0\0\0\0\2", 8)

static void ignore(void *arg, const failed_record *record) { (void)arg, (void)record; }

static void expect_damage(fixture *f, bool with_events, uint64_t before, const char *text) {
    uint64_t count = 0;
    assert_int_equal(failed_store_each(f->store, 0, with_events, count_one, &count, &f->why),
                     ST_CORRUPT);
    if (!strstr(f->why.reason, text)) fail_msg("%s\n", f->why.reason);
    assert_int_equal(count, before);
}

static void damaged_figures_are_told_by_number(void **state) {
    fixture *f = *state;
    fill_three(f);
    close_fixture(f);
    meddle(f, FIGURES, KEY_OF_2, "\1nonsense", 9);
    open_fixture(f);
    expect_damage(f, false, 1, "failed event 2: its figures");
    assert_int_equal(failed_store_get(f->store, 2, ignore, NULL, &f->why), ST_CORRUPT);
    assert_int_equal(failed_store_get(f->store, 3, ignore, NULL, &f->why), ST_OK);
    failed_record again = record_of("b", "the event");
    assert_int_equal(failed_store_put(f->store, &again, &f->why), ST_CORRUPT);
    assert_int_equal(failed_store_update(f->store, &(failed_record){.number = 2}, &f->why),
                     ST_CORRUPT);
    assert_int_equal(failed_store_remove(f->store, 2, &f->why), ST_CORRUPT);
}

static void missing_figures_are_told_by_their_count(void **state) {
    fixture *f = *state;
    fill_three(f);
    close_fixture(f);
    meddle(f, FIGURES, KEY_OF_2, NULL, 0);
    open_fixture(f);
    expect_damage(f, false, 2, "2 failed events are here, and there had been 3");
    failed_record again = record_of("b", "the event");
    assert_int_equal(failed_store_put(f->store, &again, &f->why), ST_CORRUPT);
    assert_non_null(strstr(f->why.reason, "failed event 2: its figures are missing"));
}

static void missing_and_damaged_events_are_told_by_number(void **state) {
    fixture *f = *state;
    fill_three(f);
    close_fixture(f);
    meddle(f, EVENTS, KEY_OF_2, NULL, 0);
    open_fixture(f);
    expect_damage(f, true, 1, "failed event 2: its bytes are missing");
    assert_int_equal(failed_store_get(f->store, 2, ignore, NULL, &f->why), ST_CORRUPT);
    uint64_t count = 0;
    assert_int_equal(failed_store_each(f->store, 0, false, count_one, &count, &f->why), ST_OK);
    close_fixture(f);
    meddle(f, EVENTS, KEY_OF_2, "\1abcdthe event", 14);
    open_fixture(f);
    expect_damage(f, true, 1, "failed event 2: its bytes have a wrong checksum");
    close_fixture(f);
    meddle(f, EVENTS, KEY_OF_2, "\1abcdthe", 8);
    open_fixture(f);
    expect_damage(f, true, 1, "failed event 2 has 8 bytes instead of 14");
}

static void damaged_counters_and_other_formats_do_not_open(void **state) {
    fixture *f = *state;
    const bytes key = bytes_of_string("counters");
    fill_three(f);
    close_fixture(f);
    meddle(f, META, key, "\1bad", 4);
    assert_int_equal(try_open(f), ST_CORRUPT);
    meddle(f, META, key, "\2from the future", 16);
    assert_int_equal(try_open(f), ST_PRECONDITION);
    assert_string_equal(f->why.field, "format");
    meddle(f, META, key, NULL, 0);
    assert_int_equal(try_open(f), ST_CORRUPT);
}

static void a_malformed_time_is_told(void **state) {
    fixture *f = *state;
    uint64_t number;
    int64_t due_ms;
    close_fixture(f);
    meddle(f, DUE, bytes_of_string("short"), "", 0);
    open_fixture(f);
    assert_int_equal(failed_store_next(f->store, &number, &due_ms, &f->why), ST_CORRUPT);
    assert_int_equal(number, 0);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* The log that was written to last. */
static void last_log(const fixture *f, char path[512]) {
    char line[128];
    (void)snprintf(line, sizeof line, "ls -S %s/db/*.log | head -1", f->directory);
    FILE *list = popen(line, "r");
    assert_non_null(list);
    assert_non_null(fgets(path, 512, list));
    path[strcspn(path, "\n")] = '\0';
    assert_int_equal(pclose(list), 0);
}

static off_t size_of(const char *path) {
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return status.st_size;
}

/* A crash in the middle of the last batch, before its evidence; and then one that was synced. */
static void a_torn_tail_opens_and_a_cut_end_does_not(void **state) {
    fixture *f = *state;
    char path[512];
    fill_three(f);
    close_fixture(f);
    last_log(f, path);
    off_t whole = size_of(path);
    int log = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_true(write(log, "the beginning of a batch", 24) == 24 && close(log) == 0);
    open_fixture(f);
    uint64_t count = 0;
    assert_int_equal(failed_store_each(f->store, 0, true, count_one, &count, &f->why), ST_OK);
    assert_int_equal(count, 3);
    failed_record record = record_of("d", "the event");
    assert_int_equal(put_one(f, &record), 4);
    close_fixture(f);
    last_log(f, path);
    assert_true(whole > 0 && size_of(path) > 1);
    assert_int_equal(truncate(path, size_of(path) - 1), 0);
    assert_int_equal(try_open(f), ST_CORRUPT);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(try_open(f), ST_CORRUPT);
}

static void a_lost_database_does_not_open(void **state) {
    fixture *f = *state;
    fill_three(f);
    close_fixture(f);
    run_shell("rm -r %s/db", f->directory);
    assert_int_equal(try_open(f), ST_CORRUPT);
    assert_string_equal(f->why.field, "evidence");
}

/* ---- children ------------------------------------------------------------------------------- */

static pid_t start_child(const fixture *f, const char *what, int pipe_end) {
    pid_t child = fork();
    if (child != 0) return child;
    char number[16];
    (void)snprintf(number, sizeof number, "%d", pipe_end);
    (void)execl("/proc/self/exe", "child", what, f->directory, number, (char *)NULL);
    _exit(127);
}

/* ---- any byte of any file ------------------------------------------------------------------- */

enum { ALL_RIGHT = 0, TOLD = 10, WRONG = 11, RECORDS = 40 };

static void make_event(char event[64], uint64_t number) {
    (void)snprintf(event, 64, "the event of record %llu, and nothing else",
                   (unsigned long long)number);
}

static bool check_event(void *arg, const failed_record *record) {
    char event[64];
    make_event(event, record->number);
    uint64_t *count = arg;
    if (!bytes_equal(bytes_of_string(event), record->event) || record->number != *count + 1)
        exit(WRONG);
    ++*count;
    return true;
}

/* The child: a RocksDB built with its assertions may abort on damage. */
static int read_all(fixture *f) {
    uint64_t count = 0;
    outcome result = try_open(f);
    if (result == ST_OK)
        result = failed_store_each(f->store, 0, true, check_event, &count, &f->why);
    if (result != ST_OK) return f->why.reason[0] ? TOLD : WRONG;
    return count == RECORDS ? ALL_RIGHT : WRONG;
}

/* Turns a bit of one of the files. */
static void damage_a_file(const char *directory, unsigned draw) {
    char pattern[256];
    glob_t files;
    char byte;
    (void)snprintf(pattern, sizeof pattern,
                   "%s/{db/*.sst,db/*.log,db/MANIFEST-*,db/CURRENT,evidence}", directory);
    assert_int_equal(glob(pattern, GLOB_BRACE, NULL, &files), 0);
    const char *path = files.gl_pathv[draw % files.gl_pathc];
    const off_t at = size_of(path) > 0 ? draw * 7919 % size_of(path) : -1;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (at >= 0) {
        assert_int_equal(pread(file, &byte, 1, at), 1);
        byte = (char)(byte ^ 1 << draw % 8);
        assert_int_equal(pwrite(file, &byte, 1, at), 1);
    }
    assert_int_equal(close(file), 0);
    globfree(&files);
}

static void a_changed_byte_of_any_file_is_never_silent(void **state) {
    fixture *f = *state;
    char event[64];
    char id[32];
    int told = 0;
    int aborted = 0;
    for (uint64_t i = 1; i <= RECORDS; i++) {
        (void)snprintf(id, sizeof id, "id-%llu", (unsigned long long)i);
        make_event(event, i);
        failed_record record = record_of(id, event);
        assert_int_equal(put_one(f, &record), i);
        if (i == RECORDS / 2) reopen(f); /* the first half goes to tables */
    }
    close_fixture(f);
    for (unsigned draw = 0; draw < 60; draw++) {
        fixture copy = {.limits = f->limits};
        int status;
        (void)snprintf(copy.directory, sizeof copy.directory, "%.50s/copy", f->directory);
        run_shell("rm -rf %s && mkdir %s && cp -r %s/db %s/evidence %s", copy.directory,
                  copy.directory, f->directory, f->directory, copy.directory);
        damage_a_file(copy.directory, draw);
        pid_t child = start_child(&copy, "read", 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == WRONG)
            fail_msg("draw %u: it read something else, and said nothing\n", draw);
        told += WIFEXITED(status) && WEXITSTATUS(status) == TOLD;
        aborted += WIFSIGNALED(status);
    }
    print_message("%d of 60 told, %d by an assertion of RocksDB\n", told + aborted, aborted);
    assert_in_range(told, 15, 60);
    assert_in_range(aborted, 0, 5);
    open_fixture(f);
}

/* ---- writes that fail ----------------------------------------------------------------------- */

/* The child: a full disk, as RLIMIT_FSIZE makes one. */
static int write_until_it_fails(fixture *f) {
    struct rlimit limit;
    uint64_t count = 0;
    failed_figures figures;
    (void)signal(SIGXFSZ, SIG_IGN);
    open_fixture(f);
    fill_three(f);
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    limit.rlim_cur = 1 << 20;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    char *event = calloc(1, 2 << 20);
    failed_record record = record_of("large", "");
    record.event = bytes_of(event, 2 << 20);
    if (failed_store_put(f->store, &record, &f->why) != ST_OK) return 3;
    if (failed_store_write(f->store, &f->why) != ST_IO) return 4;
    free(event);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    record = record_of("small", "event");
    if (failed_store_put(f->store, &record, &f->why) != ST_IO) return 5;
    if (failed_store_remove(f->store, 1, &f->why) != ST_IO) return 6;
    if (failed_store_write(f->store, &f->why) != ST_IO) return 7;
    /* Looking goes on, and what was there before is there. */
    if (failed_store_each(f->store, 0, true, count_one, &count, &f->why) != ST_OK) return 8;
    failed_store_figures(f->store, &figures);
    if (count != 3 || figures.events != 3) return 9;
    failed_store_close(f->store);
    return 0;
}

static void a_failed_write_is_for_good(void **state) {
    fixture *f = *state;
    int status;
    uint64_t count = 0;
    close_fixture(f);
    pid_t child = start_child(f, "fail", 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("status %x\n", (unsigned)status);
    open_fixture(f);
    assert_int_equal(failed_store_each(f->store, 0, true, count_one, &count, &f->why), ST_OK);
    assert_int_equal(count, 3);
}

/* ---- kills ---------------------------------------------------------------------------------- */

/* The child: batches without end, each of four new ones, an update, and three that leave. Tells
 * how many are done. */
static int write_until_killed(fixture *f, int pipe_end) {
    char id[32];
    char event[3000];
    failed_figures figures;
    memset(event, 'e', sizeof event);
    open_fixture(f);
    failed_store_figures(f->store, &figures);
    for (uint64_t done = figures.events;; done++) {
        for (int i = 0; i < 4; i++) {
            (void)snprintf(id, sizeof id, "%llu/%d", (unsigned long long)done, i);
            failed_record record = record_of(id, "");
            record.state = FAILED_WAITING;
            record.next_attempt_ms = (int64_t)done;
            record.event = bytes_of(event, sizeof event);
            if (failed_store_put(f->store, &record, &f->why) != ST_OK) return 2;
            if (i == 3 && failed_store_update(f->store, &record, &f->why) != ST_OK) return 3;
            if (i < 3 && failed_store_remove(f->store, record.number, &f->why) != ST_OK) return 4;
        }
        if (failed_store_write(f->store, &f->why) != ST_OK) return 5;
        if (write(pipe_end, &done, sizeof done) != sizeof done) return 6;
    }
}

/* How many were told of in all; `last`: so far. */
static uint64_t last_told(int pipe_end, uint64_t last) {
    uint64_t done;
    while (read(pipe_end, &done, sizeof done) == sizeof done)
        last = done + 1;
    return last;
}

static void killed_at_any_moment_it_opens_with_all_that_was_written(void **state) {
    fixture *f = *state;
    uint64_t acknowledged = 0;
    close_fixture(f);
    for (int round = 0; round < 25; round++) {
        int ends[2];
        int status;
        assert_int_equal(pipe(ends), 0);
        pid_t child = start_child(f, "write", ends[1]);
        assert_int_equal(close(ends[1]), 0);
        uint64_t done;
        if (round % 2) { /* else it may still be opening */
            assert_int_equal(read(ends[0], &done, sizeof done), sizeof done);
            acknowledged = done + 1;
        }
        usleep((useconds_t)(round * 7919 % 120 + 20) * 1000);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status)) fail_msg("the child ended by itself: %x\n", (unsigned)status);
        acknowledged = last_told(ends[0], acknowledged);
        assert_int_equal(close(ends[0]), 0);

        open_fixture(f);
        failed_figures figures;
        uint64_t count = 0;
        uint64_t number;
        int64_t due_ms = -1;
        failed_store_figures(f->store, &figures);
        /* One more may have been written and not told. */
        assert_in_range(figures.events, acknowledged, acknowledged + 1);
        acknowledged = figures.events;
        assert_int_equal(figures.waiting, figures.events);
        assert_int_equal(failed_store_each(f->store, 0, true, count_one, &count, &f->why), ST_OK);
        assert_int_equal(count, figures.events);
        assert_int_equal(failed_store_next(f->store, &number, &due_ms, &f->why), ST_OK);
        if (count) assert_int_equal(due_ms, 0);
        close_fixture(f);
    }
    assert_true(acknowledged >= 12);
    open_fixture(f);
}

int main(int argc, char **argv) {
    if (argc > 3) {
        static fixture f = {.limits = {.max_events = UINT64_MAX, .max_bytes = UINT64_MAX}};
        (void)snprintf(f.directory, sizeof f.directory, "%s", argv[2]);
        if (strcmp(argv[1], "fail") == 0) return write_until_it_fails(&f);
        if (strcmp(argv[1], "read") == 0) return read_all(&f);
        return write_until_killed(&f, (int)strtol(argv[3], NULL, 10));
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_changed_byte_is_found),
        TEST(damaged_figures_are_told_by_number),
        TEST(missing_figures_are_told_by_their_count),
        TEST(missing_and_damaged_events_are_told_by_number),
        TEST(damaged_counters_and_other_formats_do_not_open),
        TEST(a_malformed_time_is_told),
        TEST(a_store_of_another_kind_does_not_open),
        TEST(a_torn_tail_opens_and_a_cut_end_does_not),
        TEST(a_lost_database_does_not_open),
        TEST(a_changed_byte_of_any_file_is_never_silent),
        TEST(a_failed_write_is_for_good),
        TEST(killed_at_any_moment_it_opens_with_all_that_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
