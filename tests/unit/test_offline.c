/*
 * What is done to a store that no server has open: verify, repair, restore; and starts that must be
 * refused. Damage at random is stage F of the torture; here is what each call promises.
 */
#include "store_fixture.h"

#include "storage/encoding.h"
#include "storage/offline.h"
#include "storage/store_db.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const repair_options ACCEPT_NOTHING;
static const repair_options ACCEPT_ANY = {.accept = "any"};

/* The store's newest file of this suffix. */
static void newest_file(const fixture *f, const char *suffix, char path[256], off_t *size) {
    char folder[128];
    unsigned long best = 0;
    (void)snprintf(folder, sizeof folder, "%s/db", f->directory);
    DIR *all = opendir(folder);
    assert_non_null(all);
    for (struct dirent *at; (at = readdir(all));) {
        char *end;
        unsigned long number = strtoul(at->d_name, &end, 10);
        if (end != at->d_name && strcmp(end, suffix) == 0 && number > best) best = number;
    }
    (void)closedir(all);
    assert_true(best > 0);
    (void)snprintf(path, 256, "%s/%06lu%s", folder, best, suffix);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    *size = status.st_size;
}

/* A close would leave the log as it is, but not the process: as after a kill, and without one. */
static void close_and_damage_log(fixture *f, double at, uint8_t flip) {
    char log[256];
    off_t size;
    uint8_t octet;
    close_fixture(f);
    newest_file(f, ".log", log, &size);
    off_t offset = (off_t)((double)size * at);
    int file = open(log, O_RDWR);
    assert_int_equal(pread(file, &octet, 1, offset), 1);
    octet ^= flip;
    assert_int_equal(pwrite(file, &octet, 1, offset), 1);
    (void)close(file);
}

static void append_each(fixture *f, const char *prefix, int count) {
    for (int i = 0; i < count; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "%s-%d", prefix, i);
        assert_int_equal(
            append_one(f, id, "a body that is long enough to be hit by the damage", NULL), ST_OK);
    }
}

static void a_sound_store_is_left_alone(void **state) {
    fixture *f = *state;
    store_survey survey;
    append_each(f, "a", 20);
    assert_int_equal(bury(f, 3), ST_OK);
    assert_int_equal(store_verify(f->directory, &survey, &f->why), ST_UNAVAILABLE); /* in use */
    close_fixture(f);
    assert_int_equal(store_verify(f->directory, &survey, &f->why), ST_OK);
    assert_true(survey.sound);
    assert_int_equal(survey.route_count, 1);
    assert_string_equal(survey.routes[0].name, "transactions");
    assert_int_equal(survey.routes[0].events, 19);
    assert_int_equal(survey.routes[0].dead, 1);
    assert_int_equal(survey.ids, 20);
    store_survey_free(&survey);
    assert_int_equal(store_repair(f->directory, &ACCEPT_ANY, &survey, &f->why), ST_OK);
    assert_string_equal(survey.kept_in, "");
    store_survey_free(&survey);
    assert_int_equal(store_verify("/nowhere", &survey, &f->why), ST_NOT_FOUND);
}

static void a_lost_event_leaves_a_tombstone(void **state) {
    fixture *f = *state;
    store_survey survey;
    append_each(f, "a", 40);
    uuid id = store_id(f->store);
    uuid incarnation = store_incarnation(f->store);
    route_anchor anchor = {.has_published = true, .incarnation = incarnation};
    assert_int_equal(committer_set_anchor(f->store, f->route, &anchor, &f->why), ST_OK);
    close_and_damage_log(f, 0.5, 0x10);
    assert_int_equal(try_open(f), ST_CORRUPT);
    assert_int_equal(store_repair(f->directory, &ACCEPT_NOTHING, &survey, &f->why),
                     ST_PRECONDITION);
    assert_int_equal(survey.loss_count, 1);
    uint64_t lost = survey.losses[0].first;
    assert_int_equal(survey.losses[0].last, lost);
    assert_int_equal(survey.events_lost, 1);
    repair_options named = {.accept = survey.damage_id};
    char damage_id[9];
    memcpy(damage_id, survey.damage_id, sizeof damage_id);
    named.accept = damage_id;
    store_survey_free(&survey);
    assert_int_equal(try_open(f), ST_CORRUPT);
    assert_int_equal(store_repair(f->directory, &named, &survey, &f->why), ST_OK);
    assert_non_null(strstr(survey.kept_in, "damaged-"));
    store_survey_free(&survey);

    open_fixture(f);
    uuid now = store_id(f->store);
    assert_true(uuid_equal(&now, &id));
    assert_int_equal(store_check_position(f->store, f->route, &incarnation, 40), ST_OK);
    route_stats stats = stats_of(f);
    assert_int_equal(stats.lost, 1);
    assert_int_equal(stats.pending, 39);
    store_reader *reader = store_reader_open(f->store, f->route, 1);
    for (uint64_t i = 1; i <= 40; i++) {
        event_record record;
        assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        assert_int_equal(record.kind, i == lost ? RECORD_LOST : RECORD_EVENT);
    }
    store_reader_close(reader);
    /* Sent again, the lost one is taken; another one is known. */
    char name[32];
    waiting_append again;
    (void)snprintf(name, sizeof name, "a-%d", (int)lost - 1);
    assert_int_equal(
        append_one(f, name, "a body that is long enough to be hit by the damage", &again), ST_OK);
    assert_false(again.request.duplicate);
    assert_int_equal(again.request.sequence, 41);
    assert_int_equal(
        append_one(f, "a-39", "a body that is long enough to be hit by the damage", &again), ST_OK);
    assert_true(again.request.duplicate);
    /* The tombstone is counted at the next opening too, and not when it is passed. */
    reopen(f);
    assert_int_equal(stats_of(f).pending, 40);
    store_set_position(f->store, f->route, 40);
    stats = stats_of(f);
    assert_int_equal(stats.pending, 1);
    assert_int_equal(stats.published, 39);
}

/* A length that is wrong hides where the next record is: found all the same, from the next. */
static void a_changed_length_hides_nothing_more(void **state) {
    fixture *f = *state;
    store_survey survey;
    char log[256];
    off_t size;
    append_each(f, "a", 40);
    close_fixture(f);
    newest_file(f, ".log", log, &size);
    int file = open(log, O_RDWR);
    off_t at = 0;
    for (int i = 0; i < 10; i++) { /* the header of a later record */
        uint8_t header[7];
        assert_int_equal(pread(file, header, 7, at), 7);
        if (i < 9) at += 7 + header[4] + header[5] * 256;
    }
    assert_int_equal(pwrite(file, "\xff\x07", 2, at + 4), 2);
    (void)close(file);
    assert_int_equal(try_open(f), ST_CORRUPT);
    assert_string_equal(f->why.field, "wal");
    assert_int_equal(store_repair(f->directory, &ACCEPT_ANY, &survey, &f->why), ST_OK);
    assert_int_equal(survey.events_lost, 1);
    store_survey_free(&survey);
    open_fixture(f);
    assert_int_equal(stats_of(f).pending, 39);
}

/* Everything but the evidence is gone: no number is given twice. */
static void numbers_go_on_behind_the_evidence(void **state) {
    fixture *f = *state;
    store_survey survey;
    append_each(f, "a", 7);
    close_fixture(f);
    run_shell("rm -r %s/db", f->directory);
    assert_int_equal(try_open(f), ST_CORRUPT);
    assert_int_equal(store_repair(f->directory, &ACCEPT_ANY, &survey, &f->why), ST_PRECONDITION);
    assert_non_null(strstr(f->why.reason, "name of route 0"));
    store_survey_free(&survey);
    repair_options named = ACCEPT_ANY;
    named.names[0] = "transactions";
    assert_int_equal(store_repair(f->directory, &named, &survey, &f->why), ST_OK);
    assert_true(survey.identity_lost);
    assert_int_equal(survey.events_lost, 7);
    store_survey_free(&survey);
    waiting_append next;
    open_fixture(f);
    assert_int_equal(append_one(f, "next", "x", &next), ST_OK);
    assert_int_equal(next.request.sequence, 8);
    assert_int_equal(stats_of(f).lost, 7);
}

static void an_interrupted_repair_is_finished(void **state) {
    fixture *f = *state;
    store_survey survey;
    append_each(f, "a", 40);
    close_and_damage_log(f, 0.5, 0x10);
    assert_int_equal(store_repair(f->directory, &ACCEPT_ANY, &survey, &f->why), ST_OK);
    /* As if it had been cut short between its two moves: the old one is aside, the new one not in
     * its place. */
    run_shell(
        "mkdir %s/salvage && mv %s/db %s/evidence %s/salvage/ && printf %s > %s/salvage/ready",
        f->directory, f->directory, f->directory, f->directory, survey.kept_in, f->directory);
    store_survey_free(&survey);
    assert_int_equal(try_open(f), ST_CORRUPT);
    assert_non_null(strstr(f->why.reason, "interrupted"));
    assert_int_equal(store_verify(f->directory, &survey, &f->why), ST_CORRUPT);
    assert_int_equal(store_repair(f->directory, &ACCEPT_NOTHING, &survey, &f->why), ST_OK);
    store_survey_free(&survey);
    open_fixture(f);
    assert_int_equal(stats_of(f).pending, 39);
}

static void a_restored_store_is_another_one(void **state) {
    fixture *f = *state;
    store_restored restored;
    route_anchor anchor = {.has_published = true,
                           .cluster_id = "cluster",
                           .positions_topic = "positions",
                           .positions_partition = 3,
                           .sequence = 4,
                           .kafka_offset = 9};
    append_each(f, "a", 10);
    uuid before = store_id(f->store);
    uuid opening = anchor.incarnation = store_incarnation(f->store);
    assert_int_equal(committer_set_anchor(f->store, f->route, &anchor, &f->why), ST_OK);
    close_fixture(f);
    assert_int_equal(store_restore(f->directory, &restored, &f->why), ST_OK);
    assert_true(uuid_equal(&restored.before, &before));
    assert_false(uuid_equal(&restored.now, &before));
    assert_int_equal(restored.routes[0].published, 4);
    assert_int_equal(restored.routes[0].last, 10);
    assert_int_equal(restored.routes[0].events, 6);
    open_fixture(f);
    uuid now = store_id(f->store);
    assert_true(uuid_equal(&now, &restored.now));
    assert_int_equal(store_check_position(f->store, f->route, &opening, 4), ST_NOT_FOUND);
    store_anchor(f->store, f->route, &anchor);
    assert_false(anchor.has_published);
    assert_int_equal(anchor.positions_partition, -1);
    assert_int_equal(anchor.sequence, 4);
    assert_int_equal(stats_of(f).pending, 6);
}

/* What a later version would leave behind. */
static void a_newer_format_is_refused(void **state) {
    fixture *f = *state;
    store_survey survey;
    store_db db;
    char database[128];
    uint8_t format[4];
    append_each(f, "a", 3);
    close_fixture(f);
    (void)snprintf(database, sizeof database, "%s/db", f->directory);
    assert_int_equal(store_db_open(&db, database, &f->options, NULL, false, &f->why), ST_OK);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    put_le32(format, 2);
    batch_put(&db, batch, FAMILY_META, bytes_of_string("format"), bytes_of(format, 4));
    batch_put(&db, batch, FAMILY_META, bytes_of_string("new"), bytes_of_string("unheard of"));
    assert_int_equal(store_db_write(&db, batch, &f->why), ST_OK);
    rocksdb_writebatch_destroy(batch);
    store_db_close(&db);
    assert_int_equal(try_open(f), ST_PRECONDITION);
    assert_non_null(strstr(f->why.reason, "newer version"));
    assert_int_equal(store_verify(f->directory, &survey, &f->why), ST_PRECONDITION);
    store_survey_free(&survey);
    assert_int_equal(store_repair(f->directory, &ACCEPT_ANY, &survey, &f->why), ST_PRECONDITION);
    store_survey_free(&survey);
}

/* A table cannot be written: RocksDB tells nobody, so the committer asks, and stops for good. The
 * process is of no more use then, so it is one of its own. */
static int append_until_fatal(fixture *f) {
    f->options.memtable_bytes = 64 << 10;
    if (try_open(f) != ST_OK) return 1;
    /* Where a table would be, a folder is. */
    run_shell("cd %s/db && for n in $(seq 1 300); do f=$(printf %%06d $n); "
              "[ -e $f.sst ] || mkdir $f.sst; done",
              f->directory);
    int64_t acknowledged = 0;
    char id[32];
    for (int i = 0; i < 20000 && !f->fatals; i++) {
        waiting_append append;
        (void)snprintf(id, sizeof id, "f-%d", i);
        fill(&append, f->route, id,
             "some body that fills the write buffer after a while, so that a "
             "table has to be written, which cannot be");
        if (committer_submit(f->store, &append.request) != ST_OK) break;
        for (int wait = 0; wait < 100000 && !append.finished && !f->fatals; wait++)
            usleep(100);
        if (append.finished && append.request.result == ST_OK) acknowledged++;
    }
    for (int i = 0; i < 50 && !f->fatals; i++)
        usleep(100000);
    run_shell("rmdir %s/db/*.sst 2>/dev/null || true", f->directory);
    _exit(f->fatals == 1 && acknowledged > 0 ? 0 : 2);
}

static void a_failed_flush_stops_for_good(void **state) {
    fixture *f = *state;
    int status;
    close_fixture(f);
    pid_t child = start_child(f, "flush", 0, 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    open_fixture(f); /* all that was acknowledged is in the log */
    assert_true(stats_of(f).pending > 0);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        static fixture f;
        init_child(&f, argv);
        _exit(append_until_fatal(&f));
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_sound_store_is_left_alone),         TEST(a_lost_event_leaves_a_tombstone),
        TEST(a_changed_length_hides_nothing_more), TEST(numbers_go_on_behind_the_evidence),
        TEST(an_interrupted_repair_is_finished),   TEST(a_restored_store_is_another_one),
        TEST(a_newer_format_is_refused),           TEST(a_failed_flush_stops_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
