/*
 * Dead letters leave the store: replay and purge on a real RocksDB, by hand and by random
 * operations against a model, with reopenings and with kills in between. What must hold at
 * every moment: the ledger to the last event, the listing, what each id says, what a reader reads.
 */
#include "store_fixture.h"

#include <signal.h>
#include <sys/wait.h>

typedef struct waiting_move {
    letter_request request; /* first: done() casts back */
    _Atomic bool finished;
} waiting_move;

static void on_moved(letter_request *request) {
    ((waiting_move *)(void *)request)->finished = true;
}

static void fill_move(waiting_move *it, uint32_t route, letter_move move, uint64_t sequence) {
    *it = (waiting_move){
        .request = {.move = move, .route = route, .sequence = sequence, .done = on_moved}};
}

static void wait_moved(waiting_move *it) {
    for (int i = 0; i < 200000 && !it->finished; i++)
        usleep(100);
    if (!it->finished) abort(); /* it lives on the stack */
}

static outcome move_one(fixture *f, letter_move move, uint64_t sequence, uint64_t *new_sequence) {
    waiting_move it;
    fill_move(&it, f->route, move, sequence);
    outcome result = committer_move_letters(f->store, &it.request);
    if (result != ST_OK) return result;
    wait_moved(&it);
    if (new_sequence) *new_sequence = it.request.new_sequence;
    return it.request.result;
}

static outcome look(fixture *f, const char *id, id_entry *entry) {
    return store_lookup(f->store, bytes_of_string("/test"), bytes_of_string(id), entry, &f->why);
}

typedef struct listing {
    uint64_t sequences[4096];
    size_t count;
    size_t most;
} listing;

static bool take(void *arg, const dead_letter *letter) {
    listing *all = arg;
    all->sequences[all->count++] = letter->record.sequence;
    return all->count < all->most;
}

static listing list_from(fixture *f, uint64_t from, size_t most) {
    listing all = {.most = most};
    assert_int_equal(store_dead_scan(f->store, f->route, from, take, &all, &f->why), ST_OK);
    return all;
}

static void a_replay_is_the_same_event_with_a_new_sequence(void **state) {
    fixture *f = *state;
    uint64_t fresh = 0;
    id_entry entry;
    event_record record;
    append_many(f, "a", 5);
    assert_int_equal(bury(f, 2), ST_OK);
    store_set_position(f->store, f->route, 5);
    assert_int_equal(move_one(f, LETTER_REPLAY, 2, &fresh), ST_OK);
    assert_int_equal(fresh, 6);
    assert_int_equal(move_one(f, LETTER_REPLAY, 2, NULL), ST_NOT_FOUND); /* its answer was lost */
    for (int round = 0; round < 2; round++) {
        route_stats stats = stats_of(f);
        assert_int_equal(stats.accepted, 5);
        assert_int_equal(stats.published, 4);
        assert_int_equal(stats.pending, 1);
        assert_int_equal(stats.dead + stats.dead_bytes, 0);
        assert_int_equal(look(f, "a-1", &entry), ST_OK);
        assert_int_equal(entry.sequence, 6);
        assert_false(entry.dead || entry.purged);
        store_reader *reader = store_reader_open(f->store, f->route, 6);
        assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
        assert_true(bytes_equal(record.id, bytes_of_string("a-1")));
        assert_true(bytes_equal(record.event, bytes_of_string("body of an event")));
        store_reader_close(reader);
        reopen(f);
    }
    waiting_append again;
    assert_int_equal(append_one(f, "a-1", "body of an event", &again), ST_OK);
    assert_true(again.request.duplicate && !again.request.dead);
    assert_int_equal(again.request.sequence, 6);
    assert_int_equal(bury(f, 6), ST_OK); /* as poisonous as before */
    store_set_position(f->store, f->route, 6);
    assert_int_equal(stats_of(f).dead, 1);
    assert_int_equal(stats_of(f).published, 4);
}

static void a_purged_id_is_remembered_for_its_window(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.ids_window_ms = 300;
    open_fixture(f);
    append_many(f, "a", 2);
    assert_int_equal(bury(f, 1), ST_OK);
    store_set_position(f->store, f->route, 2);
    usleep(320000); /* the window runs from the purge, not from the acceptance */
    assert_int_equal(move_one(f, LETTER_PURGE, 1, NULL), ST_OK);
    assert_int_equal(move_one(f, LETTER_PURGE, 1, NULL), ST_NOT_FOUND);
    assert_int_equal(move_one(f, LETTER_REPLAY, 1, NULL), ST_NOT_FOUND);
    waiting_append again;
    assert_int_equal(append_one(f, "a-0", "body of an event", &again), ST_OK);
    assert_true(again.request.duplicate && again.request.purged && !again.request.dead);
    assert_int_equal(again.request.sequence, 1);
    assert_int_equal(append_one(f, "a-0", "another body", NULL), ST_ID_CONFLICT);
    reopen(f);
    route_stats stats = stats_of(f);
    assert_int_equal(stats.purged, 1);
    assert_int_equal(stats.dead + stats.dead_bytes, 0);
    assert_int_equal(stats.accepted, 2);
    usleep(320000);
    assert_int_equal(append_one(f, "a-0", "another body", &again), ST_OK);
    assert_false(again.request.duplicate);
}

static void a_letter_that_is_not_settled_stays(void **state) {
    fixture *f = *state;
    append_many(f, "a", 5);
    assert_int_equal(bury(f, 3), ST_OK);
    assert_int_equal(move_one(f, LETTER_REPLAY, 3, NULL), ST_PRECONDITION);
    store_set_position(f->store, f->route, 2);
    assert_int_equal(move_one(f, LETTER_PURGE, 3, NULL), ST_PRECONDITION);
    reopen(f);
    assert_int_equal(stats_of(f).dead, 1);
    assert_int_equal(stats_of(f).pending, 4);
    store_set_position(f->store, f->route, 3);
    assert_int_equal(move_one(f, LETTER_PURGE, 3, NULL), ST_OK);
    assert_int_equal(move_one(f, LETTER_PURGE, 4, NULL), ST_NOT_FOUND);
}

/* The records below the hint may be gone, the letter's tombstone with them. */
static void leaving_moves_the_hint_past_the_letter(void **state) {
    fixture *f = *state;
    append_many(f, "a", 10);
    assert_int_equal(bury(f, 3), ST_OK);
    assert_int_equal(bury(f, 6), ST_OK);
    store_set_position(f->store, f->route, 6);
    assert_int_equal(move_one(f, LETTER_PURGE, 3, NULL), ST_OK);
    reopen(f);
    route_stats stats = stats_of(f);
    assert_int_equal(stats.position, 6);
    assert_int_equal(stats.published, 4);
    assert_int_equal(stats.pending, 4);
    assert_int_equal(stats.dead, 1);
    uint64_t backlog = stats.backlog_bytes;
    store_set_position(f->store, f->route, 10);
    assert_int_equal(stats_of(f).backlog_bytes, 0);
    assert_true(backlog > 0);
    assert_int_equal(stats_of(f).published, 8);
}

static void one_batch_moves_a_letter_once(void **state) {
    fixture *f = *state;
    enum { COUNT = 900 };
    static waiting_move moves[COUNT];
    append_many(f, "a", 300);
    for (uint64_t i = 1; i <= 300; i++)
        assert_int_equal(bury(f, i), ST_OK);
    store_set_position(f->store, f->route, 300);
    for (int i = 0; i < COUNT; i++) {
        fill_move(&moves[i], f->route, i % 2 ? LETTER_REPLAY : LETTER_PURGE, (uint64_t)i / 3 + 1);
        if (i) moves[i - 1].request.next = &moves[i].request;
    }
    assert_int_equal(committer_move_letters(f->store, &moves[0].request), ST_OK);
    for (int i = 0; i < COUNT; i++) {
        wait_moved(&moves[i]);
        assert_int_equal(moves[i].request.result, i % 3 ? ST_NOT_FOUND : ST_OK);
    }
    for (int round = 0; round < 2; round++) {
        assert_int_equal(stats_of(f).purged, 150);
        assert_int_equal(stats_of(f).pending, 150);
        assert_int_equal(stats_of(f).dead + stats_of(f).dead_bytes, 0);
        assert_int_equal(list_from(f, 0, 10).count, 0);
        reopen(f);
    }
    store_figures figures;
    store_figures_get(f->store, &figures);
    assert_int_equal(figures.queued_requests, 0);
}

static _Atomic bool held;

/* Holds the committer between two batches, so that all that is submitted meanwhile becomes one. */
static void hold(append_request *request) {
    while (held)
        usleep(100);
    on_done(request);
}

static void a_retry_in_the_batch_of_its_replay_finds_it(void **state) {
    fixture *f = *state;
    waiting_append holder, retry;
    waiting_move move;
    append_many(f, "a", 2);
    assert_int_equal(bury(f, 1), ST_OK);
    store_set_position(f->store, f->route, 2);
    fill(&holder, f->route, "holder", "body");
    holder.request.done = hold;
    held = true;
    assert_int_equal(committer_submit(f->store, &holder.request), ST_OK);
    while (stats_of(f).last_sequence < 3)
        usleep(100);
    fill(&retry, f->route, "a-0", "body of an event");
    fill_move(&move, f->route, LETTER_REPLAY, 1);
    assert_int_equal(committer_submit(f->store, &retry.request), ST_OK);
    assert_int_equal(committer_move_letters(f->store, &move.request), ST_OK);
    held = false;
    assert_true(wait_done(&holder, 20000) && wait_done(&retry, 20000));
    wait_moved(&move);
    assert_int_equal(move.request.new_sequence, 4);
    assert_true(retry.request.duplicate && !retry.request.dead);
    assert_int_equal(retry.request.sequence, 4);
}

static void a_replay_needs_room_in_the_backlog(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.backlog_budget_bytes = 1000;
    open_fixture(f);
    append_many(f, "a", 2);
    assert_int_equal(bury(f, 1), ST_OK);
    assert_int_equal(bury(f, 2), ST_OK);
    store_set_position(f->store, f->route, 2);
    char id[32];
    int more = 0;
    do
        (void)snprintf(id, sizeof id, "b-%d", more++);
    while (append_one(f, id, "body of an event", NULL) == ST_OK);
    assert_int_equal(move_one(f, LETTER_REPLAY, 1, NULL), ST_BACKLOG_FULL);
    assert_int_equal(stats_of(f).dead, 2);
    assert_int_equal(move_one(f, LETTER_PURGE, 2, NULL), ST_OK); /* needs none */
    store_set_position(f->store, f->route, 4);
    assert_int_equal(move_one(f, LETTER_REPLAY, 1, NULL), ST_OK);
}

static void a_purge_makes_room_for_a_bury(void **state) {
    fixture *f = *state;
    close_fixture(f);
    f->options.dead_budget_bytes = 200;
    open_fixture(f);
    append_many(f, "a", 3);
    assert_int_equal(bury(f, 1), ST_OK);
    store_set_position(f->store, f->route, 1);
    assert_int_equal(bury(f, 2), ST_DEAD_FULL);
    assert_int_equal(move_one(f, LETTER_PURGE, 1, NULL), ST_OK);
    assert_int_equal(bury(f, 2), ST_OK);
}

static void an_id_made_by_the_server_is_replayed_too(void **state) {
    fixture *f = *state;
    waiting_append append;
    fill(&append, f->route, "made", "body");
    append.request.remember = false;
    assert_int_equal(committer_submit(f->store, &append.request), ST_OK);
    assert_true(wait_done(&append, 20000));
    assert_int_equal(bury(f, 1), ST_OK);
    store_set_position(f->store, f->route, 1);
    assert_int_equal(move_one(f, LETTER_REPLAY, 1, NULL), ST_OK);
    id_entry entry;
    assert_int_equal(look(f, "made", &entry), ST_NOT_FOUND);
    event_record record;
    store_reader *reader = store_reader_open(f->store, f->route, 2);
    assert_int_equal(store_reader_next(reader, &record, &f->why), ST_OK);
    assert_true(bytes_equal(record.id, bytes_of_string("made")));
    store_reader_close(reader);
}

static void lists_from_a_cursor(void **state) {
    fixture *f = *state;
    append_many(f, "a", 1000);
    for (uint64_t i = 10; i <= 1000; i += 10)
        assert_int_equal(bury(f, i), ST_OK);
    uint64_t from = 0;
    size_t seen = 0;
    for (listing page; (page = list_from(f, from, 7)).count > 0;) {
        for (size_t i = 0; i < page.count; i++)
            assert_int_equal(page.sequences[i], 10 * ++seen);
        from = page.sequences[page.count - 1] + 1;
    }
    assert_int_equal(seen, 100);
    store_set_position(f->store, f->route, 500);
    for (uint64_t i = 10; i <= 500; i += 10)
        assert_int_equal(move_one(f, LETTER_PURGE, i, NULL), ST_OK);
    assert_int_equal(list_from(f, 0, 1).sequences[0], 510);
    assert_int_equal(bury(f, 501), ST_OK); /* below the first one found, and not settled */
    assert_int_equal(list_from(f, 0, 1).sequences[0], 501);
}

/* ---- random operations against a model ---------------------------------------------------- */

enum { SEQUENCES = 4000, IDS = 400 };

typedef enum fate { NONE, EVENT, DEAD, GONE } fate; /* EVENT: pending or published */

typedef struct model {
    fixture *f;
    uint64_t random;
    uint64_t last, position, replayed, purged;
    fate fates[SEQUENCES];
    int id_of[SEQUENCES];
    uint64_t sequence_of[IDS]; /* the newest; 0: not sent yet */
    bool was_purged[IDS];
    int sent;
} model;

static uint64_t below(model *it, uint64_t bound) {
    it->random = it->random * 6364136223846793005u + 1442695040888963407u;
    return (it->random >> 33) % bound;
}

static const char *id_text(int id) {
    static char text[16];
    (void)snprintf(text, sizeof text, "m-%d", id);
    return text;
}

static void model_add(model *it, int id) {
    it->last++;
    it->fates[it->last] = EVENT;
    it->id_of[it->last] = id;
    it->sequence_of[id] = it->last;
}

static void do_append(model *it) {
    bool retry = it->sent == IDS || (it->sent > 0 && below(it, 3) == 0);
    int id = retry ? (int)below(it, (uint64_t)it->sent) : it->sent++;
    waiting_append append;
    assert_int_equal(append_one(it->f, id_text(id), "body", &append), ST_OK);
    assert_int_equal(append.request.duplicate, retry);
    if (!retry) model_add(it, id);
    assert_int_equal(append.request.sequence, it->sequence_of[id]);
    assert_int_equal(append.request.dead, it->fates[it->sequence_of[id]] == DEAD);
    assert_int_equal(append.request.purged, it->was_purged[id]);
}

static void do_bury(model *it) {
    uint64_t live = it->last - it->position;
    if (live == 0) return;
    uint64_t sequence = it->position + 1 + below(it, live < 8 ? live : 8);
    assert_int_equal(bury(it->f, sequence), ST_OK); /* twice is once */
    it->fates[sequence] = DEAD;
}

static void do_advance(model *it) {
    uint64_t live = it->last - it->position;
    it->position += below(it, live + 1);
    store_set_position(it->f->store, it->f->route, it->position);
    uuid me = store_incarnation(it->f->store);
    if (below(it, 2)) committer_advance(it->f->store, it->f->route, it->position, &me, 1);
}

static void do_move(model *it, letter_move move) {
    if (it->last == 0) return;
    uint64_t sequence = 1 + below(it, it->last);
    for (int i = 0; i < 20 && it->fates[sequence] != DEAD; i++)
        sequence = 1 + below(it, it->last);
    outcome expected = it->fates[sequence] != DEAD ? ST_NOT_FOUND
                       : sequence > it->position   ? ST_PRECONDITION
                                                   : ST_OK;
    uint64_t fresh = 0;
    assert_int_equal(move_one(it->f, move, sequence, &fresh), expected);
    if (expected != ST_OK) return;
    it->fates[sequence] = GONE;
    int id = it->id_of[sequence];
    if (move == LETTER_PURGE) {
        it->purged++;
        it->was_purged[id] = true;
        return;
    }
    it->replayed++;
    model_add(it, id);
    assert_int_equal(fresh, it->last);
}

/* What was settled may have been forgotten, never that of a letter that has left. */
static void take_over_position(model *it) {
    uint64_t position = stats_of(it->f).position;
    assert_true(position <= it->position);
    for (uint64_t i = position + 1; i <= it->last; i++)
        assert_true(it->fates[i] != GONE);
    it->position = position;
}

static void do_reopen(model *it) {
    reopen(it->f);
    take_over_position(it);
}

static void check_ledger(const model *it) {
    route_stats stats = stats_of(it->f);
    uint64_t dead = 0;
    uint64_t pending = 0;
    uint64_t published = 0;
    for (uint64_t i = 1; i <= it->last; i++) {
        dead += it->fates[i] == DEAD;
        pending += it->fates[i] == EVENT && i > it->position;
        published += it->fates[i] == EVENT && i <= it->position;
    }
    assert_int_equal(stats.last_sequence, it->last);
    assert_int_equal(stats.accepted, it->last - it->replayed);
    assert_int_equal(stats.pending, pending);
    assert_int_equal(stats.published, published);
    assert_int_equal(stats.dead, dead);
    assert_int_equal(stats.purged, it->purged);
    assert_int_equal(stats.dead_bytes == 0, dead == 0);
    assert_int_equal(stats.backlog_bytes == 0, it->position == it->last);
}

static void check_contents(model *it) {
    event_record record;
    store_reader *reader = store_reader_open(it->f->store, it->f->route, it->position + 1);
    for (uint64_t i = it->position + 1; i <= it->last; i++) {
        assert_int_equal(store_reader_next(reader, &record, &it->f->why), ST_OK);
        assert_int_equal(record.kind, it->fates[i] == EVENT ? RECORD_EVENT : RECORD_MOVED);
        if (it->fates[i] == EVENT)
            assert_true(bytes_equal(record.id, bytes_of_string(id_text(it->id_of[i]))));
    }
    store_reader_close(reader);
    listing all = list_from(it->f, below(it, 2), SEQUENCES);
    size_t seen = 0;
    for (uint64_t i = 1; i <= it->last; i++)
        if (it->fates[i] == DEAD) assert_int_equal(all.sequences[seen++], i);
    assert_int_equal(all.count, seen);
    for (int id = 0; id < it->sent; id++) {
        id_entry entry;
        assert_int_equal(look(it->f, id_text(id), &entry), ST_OK);
        assert_int_equal(entry.sequence, it->sequence_of[id]);
        assert_int_equal(entry.dead, it->fates[entry.sequence] == DEAD);
        assert_int_equal(entry.purged, it->was_purged[id]);
    }
}

static void run_steps(model *it, int steps) {
    for (int step = 0; step < steps && it->last + 2 < SEQUENCES; step++) {
        uint64_t what = below(it, 100);
        if (what < 30)
            do_append(it);
        else if (what < 50)
            do_bury(it);
        else if (what < 65)
            do_advance(it);
        else if (what < 82)
            do_move(it, LETTER_REPLAY);
        else if (what < 95)
            do_move(it, LETTER_PURGE);
        else if (what < 97)
            do_reopen(it);
        else
            check_contents(it);
        check_ledger(it);
    }
}

static void random_operations_keep_to_the_model(void **state) {
    fixture *f = *state;
    static model it;
    it = (model){.f = f, .random = 1};
    run_steps(&it, 3000);
    check_contents(&it);
    print_message("last %llu, replayed %llu, purged %llu\n", (unsigned long long)it.last,
                  (unsigned long long)it.replayed, (unsigned long long)it.purged);
    assert_true(it.replayed > 50 && it.purged > 50);
}

/* ---- the same, killed again and again ------------------------------------------------------ */

static void keep_model(const fixture *f, model *it, const char *mode) {
    char path[80];
    (void)snprintf(path, sizeof path, "%s.model", f->directory);
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    size_t done = mode[0] == 'r' ? fread(it, sizeof *it, 1, file) : fwrite(it, sizeof *it, 1, file);
    assert_int_equal(done, 1);
    assert_int_equal(fclose(file), 0);
}

/* The child: some steps from where the one before it was killed, and then it is killed. */
static int operate_and_die(fixture *f) {
    static model it;
    open_fixture(f);
    keep_model(f, &it, "r");
    it.f = f;
    take_over_position(&it);
    check_ledger(&it);
    run_steps(&it, 60);
    keep_model(f, &it, "w");
    return raise(SIGKILL);
}

static void random_operations_survive_kills(void **state) {
    fixture *f = *state;
    static model it;
    it = (model){.random = 7};
    keep_model(f, &it, "w");
    for (int round = 0; round < 25; round++) {
        int status;
        pid_t child = start_child(f, "operate", round, 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    keep_model(f, &it, "r");
    open_fixture(f);
    it.f = f;
    take_over_position(&it);
    check_ledger(&it);
    check_contents(&it);
    assert_true(it.replayed > 50 && it.purged > 50);
    run_shell("rm %s.model", f->directory);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        static fixture f;
        init_child(&f, argv);
        return operate_and_die(&f);
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_replay_is_the_same_event_with_a_new_sequence),
        TEST(a_purged_id_is_remembered_for_its_window),
        TEST(a_letter_that_is_not_settled_stays),
        TEST(leaving_moves_the_hint_past_the_letter),
        TEST(one_batch_moves_a_letter_once),
        TEST(a_retry_in_the_batch_of_its_replay_finds_it),
        TEST(a_replay_needs_room_in_the_backlog),
        TEST(a_purge_makes_room_for_a_bury),
        TEST(an_id_made_by_the_server_is_replayed_too),
        TEST(lists_from_a_cursor),
        TEST(random_operations_keep_to_the_model),
        cmocka_unit_test_setup_teardown(random_operations_survive_kills, setup_closed, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
