/* Failed events from outside: the public ingest_failed_* functions with the store in hand and
 * through the control socket, the socket with peers of all kinds, and who owns the store. */
#include "failed_fixture.h"

#include "client/consumer/control.h"
#include "client/consumer/control_socket.h"
#include "client/consumer/control_wire.h"
#include "client/publisher/event.h"
#include "ingest/consumer.h"
#include "storage/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* ---- a consumer ----------------------------------------------------------------------------- */

/* What stands in for the engine: changes the store on the control thread. */
typedef struct engine {
    fixture *f;
    control *socket;
    _Atomic int calls;
    _Atomic bool blocked; /* changes wait, */
    _Atomic bool ending;  /*   until they are refused */
    size_t refuse_after;  /* changes of a call that succeed; 0: all */
} engine;

static void reset(void *arg, const failed_record *record) {
    engine *it = arg;
    failed_record again = *record;
    failure why;
    again.state = FAILED_WAITING;
    again.attempts = 0;
    assert_int_equal(failed_store_update(it->f->store, &again, &why), ST_OK);
}

static outcome change(void *arg, control_change what, const uint64_t *numbers, size_t count,
                      uint64_t *done, failure *why) {
    engine *it = arg;
    it->calls++;
    assert_in_range(count, 1, CONTROL_BATCH);
    while (it->blocked && !it->ending)
        usleep(1000);
    if (it->ending) return fail(why, ST_STOPPING, "", "the consumer is ending");
    for (size_t i = 0; i < count; i++) {
        outcome result = what == CHANGE_RETRY
                             ? failed_store_get(it->f->store, numbers[i], reset, it, why)
                             : failed_store_remove(it->f->store, numbers[i], why);
        if (result == ST_OK) ++*done;
        if (it->refuse_after && *done == it->refuse_after)
            return fail(why, ST_IO, "", "it was made to fail here");
    }
    return failed_store_write(it->f->store, why);
}

static void start(engine *it, fixture *f, int64_t peer_ms) {
    *it = (engine){.f = f};
    const control_hooks hooks = {.change = change, .arg = it, .peer_ms = peer_ms};
    if (control_start(f->directory, f->store, &hooks, &it->socket, &f->why) != ST_OK)
        fail_msg("%s\n", f->why.reason);
}

/* ---- events --------------------------------------------------------------------------------- */

static const char EVENT_JSON[] =
    "{\"id\":\"id-1\",\"source\":\"/test\",\"key\":\"k\","
    "\"time\":\"2026-01-02T03:04:05Z\",\"transaction\":{\"operations\":"
    "[{\"name\":\"create_user\",\"data\":{\"name\":\"Ada\"}}]}}";

static bytes encoded_event(uint8_t out[512]) {
    ingest_event *event = ingest_event_from_json(EVENT_JSON, sizeof EVENT_JSON - 1);
    assert_null(ingest_event_error(event));
    size_t len = ingest__v1__event__get_packed_size(event_message(event));
    assert_in_range(len, 1, 512);
    (void)ingest__v1__event__pack(event_message(event), out);
    ingest_event_free(event);
    return bytes_of(out, len);
}

/* `count` events: every tenth is of another operation, every hundredth has another code. */
static void fill(fixture *f, int count) {
    uint8_t event[512];
    char id[32];
    for (int i = 1; i <= count; i++) {
        (void)snprintf(id, sizeof id, "id-%d", i);
        failed_record record = record_of(id, "");
        record.event = encoded_event(event);
        if (i % 10 == 0) record.operation = bytes_of_string("delete_user");
        if (i % 100 == 0) record.code = bytes_of_string("conflict");
        assert_int_equal(failed_store_put(f->store, &record, &f->why), ST_OK);
    }
    assert_int_equal(failed_store_write(f->store, &f->why), ST_OK);
}

static ingest_failed_store *open_outside(const fixture *f) {
    ingest_error error = {0};
    ingest_failed_store *it = ingest_failed_store_open(f->directory, &error);
    if (!it) fail_msg("%s\n", error.reason);
    return it;
}

typedef struct heard {
    uint64_t count, last, most; /* most: then it has enough */
    char json[1024];
    ingest_failed_state state;
    char key[64];
} heard;

static bool hear(void *arg, const ingest_failed_event *event) {
    heard *it = arg;
    assert_true(event->number > it->last);
    it->last = event->number;
    it->state = event->state;
    it->count++;
    (void)snprintf(it->json, sizeof it->json, "%s", event->json ? event->json : "none");
    (void)snprintf(it->key, sizeof it->key, "%s", event->key);
    return it->count != it->most;
}

static heard list(ingest_failed_store *store, ingest_failed_filter filter, uint64_t after,
                  uint64_t limit, bool with_events) {
    heard it = {0};
    ingest_error error = {0};
    if (!ingest_failed_list(store, &filter, after, limit, with_events, hear, &it, &error))
        fail_msg("%s\n", error.reason);
    return it;
}

/* ---- both ways ------------------------------------------------------------------------------ */

static void check_lists(ingest_failed_store *store, uint64_t all) {
    const ingest_failed_filter none = {0};
    heard it = list(store, none, 0, 0, false);
    assert_int_equal(it.count, all);
    assert_string_equal(it.json, "none");
    it = list(store, none, 0, 0, true);
    assert_int_equal(it.count, all);
    assert_string_equal(it.json, EVENT_JSON);
    it = list(store, none, 7, 5, false);
    assert_true(it.count == 5 && it.last == 12);
    assert_int_equal(list(store, none, all - 2, 100, false).count, 2);
    assert_int_equal(list(store, none, UINT64_MAX, 0, false).count, 0);
    it = list(store, (ingest_failed_filter){.number = 42}, 0, 0, false);
    assert_true(it.count == 1 && it.last == 42);
    assert_int_equal(list(store, (ingest_failed_filter){.number = 42}, 42, 0, false).count, 0);
    assert_int_equal(list(store, (ingest_failed_filter){.number = all + 1}, 0, 0, false).count, 0);
    it = list(store, (ingest_failed_filter){.event_id = "id-43"}, 0, 0, false);
    assert_true(it.count == 1 && it.last == 43);
    it = list(store, (ingest_failed_filter){.operation = "delete_user"}, 0, 0, false);
    assert_int_equal(it.count, all / 10);
    it = list(store, (ingest_failed_filter){.operation = "delete_user"}, 0, 13, false);
    assert_true(it.count == 13 && it.last == 130);
    it = list(store, (ingest_failed_filter){.operation = "delete_user", .code = "timeout"}, 0, 0,
              false);
    assert_int_equal(it.count, all / 10 - all / 100);
    assert_int_equal(list(store, (ingest_failed_filter){.code = ""}, 0, 0, false).count, 0);

    heard some = {.most = 3};
    ingest_error error;
    assert_true(ingest_failed_list(store, NULL, 0, 0, true, hear, &some, &error));
    assert_int_equal(some.count, 3);
}

static void check_changes(ingest_failed_store *store, uint64_t all) {
    uint64_t count = 99;
    ingest_error error = {0};
    assert_true(ingest_failed_retry(store, &(ingest_failed_filter){.number = 5}, &count, &error));
    assert_int_equal(count, 1);
    assert_int_equal(list(store, (ingest_failed_filter){.number = 5}, 0, 0, false).state,
                     INGEST_FAILED_WAITING);
    assert_int_equal(list(store, (ingest_failed_filter){.number = 6}, 0, 0, false).state,
                     INGEST_FAILED_GIVEN_UP);
    assert_true(ingest_failed_discard(store, &(ingest_failed_filter){.operation = "delete_user"},
                                      &count, &error));
    assert_int_equal(count, all / 10);
    assert_true(ingest_failed_retry(store, NULL, &count, &error));
    assert_int_equal(count, all - all / 10);
    assert_int_equal(list(store, (ingest_failed_filter){.number = 6}, 0, 0, false).state,
                     INGEST_FAILED_WAITING);
    assert_true(ingest_failed_discard(store, &(ingest_failed_filter){.number = 1}, &count, &error));
    assert_true(ingest_failed_discard(store, &(ingest_failed_filter){.number = 1}, &count, &error));
    assert_int_equal(count, 0);
    assert_int_equal(list(store, (ingest_failed_filter){0}, 0, 0, false).count, all - all / 10 - 1);
}

static void with_the_store_in_hand(void **state) {
    fixture *f = *state;
    fill(f, 2500);
    close_fixture(f);
    ingest_failed_store *outside = open_outside(f);
    check_lists(outside, 2500);
    check_changes(outside, 2500);
    assert_int_equal(try_open(f), ST_UNAVAILABLE);
    ingest_failed_store_close(outside);
    open_fixture(f);
}

static void through_the_socket(void **state) {
    fixture *f = *state;
    engine consumer;
    fill(f, 2500);
    start(&consumer, f, 0);
    ingest_failed_store *outside = open_outside(f);
    check_lists(outside, 2500);
    check_changes(outside, 2500);
    assert_in_range(consumer.calls, 4, 8);
    ingest_failed_store_close(outside);
    control_stop(consumer.socket);
}

static void values_that_are_no_events_are_shown_as_they_are(void **state) {
    fixture *f = *state;
    failed_record record = record_of("", "");
    record.opaque = true;
    record.event = bytes_of("\xff\0garbage", 9);
    record.key = bytes_of("a\0b\xff\xc3\xa4", 6);
    (void)put_one(f, &record);
    record = record_of("not opaque, and still no event", "\xff\xff");
    (void)put_one(f, &record);
    close_fixture(f);
    ingest_failed_store *outside = open_outside(f);
    heard it = list(outside, (ingest_failed_filter){.number = 1}, 0, 0, true);
    assert_string_equal(it.json, "{\"opaque\":\"/wBnYXJiYWdl\"}");
    assert_string_equal(it.key, "a?b?\xc3\xa4");
    it = list(outside, (ingest_failed_filter){.number = 2}, 0, 0, true);
    assert_string_equal(it.json, "{\"opaque\":\"//8=\"}");
    ingest_failed_store_close(outside);
    open_fixture(f);
}

static void held_events_are_discarded_by_their_consumer_alone(void **state) {
    fixture *f = *state;
    uint64_t count;
    ingest_error error = {0};
    fill(f, 3);
    failed_record held = record_of("held", "event");
    held.state = FAILED_HELD;
    assert_int_equal(put_one(f, &held), 4);
    close_fixture(f);
    ingest_failed_store *outside = open_outside(f);
    assert_true(ingest_failed_retry(outside, NULL, &count, &error));
    assert_int_equal(count, 4);
    assert_int_equal(list(outside, (ingest_failed_filter){.number = 4}, 0, 0, false).state,
                     INGEST_FAILED_HELD);
    assert_false(ingest_failed_discard(outside, NULL, &count, &error));
    assert_int_equal(count, 3);
    assert_int_equal(error.status, INGEST_INVALID);
    assert_non_null(strstr(error.reason, "1 of them are held"));
    assert_int_equal(list(outside, (ingest_failed_filter){0}, 0, 0, false).count, 1);
    ingest_failed_store_close(outside);
    open_fixture(f);
}

/* ---- who owns it ---------------------------------------------------------------------------- */

static void what_is_not_there_is_not_made(void **state) {
    fixture *f = *state;
    char path[96];
    ingest_error error = {0};
    (void)snprintf(path, sizeof path, "%s/none", f->directory);
    assert_null(ingest_failed_store_open(path, &error));
    assert_int_equal(error.status, INGEST_INVALID);
    assert_non_null(strstr(error.reason, "there is no store of failed events in"));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_null(ingest_failed_store_open(path, &error));
    assert_int_equal(rmdir(path), 0); /* is empty still */
}

static void an_owner_that_does_not_answer_is_told(void **state) {
    fixture *f = *state;
    ingest_error error = {0};
    assert_null(ingest_failed_store_open(f->directory, &error));
    assert_int_equal(error.status, INGEST_CLOSED);
    assert_non_null(strstr(error.reason, "is in use"));
}

static void a_consumer_that_ended_is_told(void **state) {
    fixture *f = *state;
    engine consumer;
    ingest_error error = {0};
    heard it = {0};
    start(&consumer, f, 0);
    ingest_failed_store *outside = open_outside(f);
    control_stop(consumer.socket);
    assert_false(ingest_failed_list(outside, NULL, 0, 0, false, hear, &it, &error));
    assert_int_equal(error.status, INGEST_CLOSED);
    assert_non_null(strstr(error.reason, "open the store again"));
    ingest_failed_store_close(outside);
}

typedef struct contest {
    fixture *f;
    _Atomic int tools; /* that go on */
    _Atomic int as_owner;
    _Atomic int refused;
} contest;

static void *look_again_and_again(void *arg) {
    contest *it = arg;
    for (int i = 0; i < 40; i++) {
        ingest_error error = {0};
        heard all = {0};
        ingest_failed_store *outside = ingest_failed_store_open(it->f->directory, &error);
        bool done = outside && ingest_failed_list(outside, NULL, 0, 0, i % 2, hear, &all, &error);
        ingest_failed_store_close(outside);
        if (done && all.count != 100) fail_msg("%llu events\n", (unsigned long long)all.count);
        if (!done && error.status != INGEST_CLOSED) fail_msg("%s\n", error.reason);
        if (!done) it->refused++;
        usleep(1000);
    }
    it->tools--;
    return NULL;
}

/* Consumers come and go, tools look: nobody sees anything but the whole store. */
static void consumers_and_tools_take_turns(void **state) {
    fixture *f = *state;
    pthread_t tools[3];
    contest it = {.f = f, .tools = 3};
    int turns = 0;
    fill(f, 100);
    close_fixture(f);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&tools[i], NULL, look_again_and_again, &it), 0);
    while (it.tools > 0 || turns < 3) {
        engine consumer;
        outcome result = try_open(f);
        if (result == ST_UNAVAILABLE) {
            usleep(500);
            continue;
        }
        if (result != ST_OK) fail_msg("%s\n", f->why.reason);
        start(&consumer, f, 0);
        usleep(20000);
        control_stop(consumer.socket);
        close_fixture(f);
        usleep(5000);
        turns++;
    }
    for (int i = 0; i < 3; i++)
        (void)pthread_join(tools[i], NULL);
    print_message("%d turns, %d times refused\n", turns, it.refused);
    open_fixture(f);
}

static void a_long_folder_name_and_a_socket_left_behind(void **state) {
    fixture *f = *state;
    engine consumer;
    struct stat status;
    char path[256];
    char name[121];
    fixture deep = {.limits = f->limits};
    memset(name, 'x', 120);
    name[120] = '\0';
    (void)snprintf(path, sizeof path, "%s/%s", f->directory, name);
    failed_store *store;
    int left_behind;
    assert_int_equal(failed_store_open(path, &f->limits, &store, &f->why), ST_OK);
    assert_int_equal(control_socket_listen(path, &left_behind, &f->why), ST_OK);
    assert_int_equal(close(left_behind), 0); /* its file stays */
    deep.store = store;
    consumer = (engine){.f = &deep};
    const control_hooks hooks = {.change = change, .arg = &consumer};
    assert_int_equal(control_start(path, store, &hooks, &consumer.socket, &f->why), ST_OK);
    ingest_error error = {0};
    ingest_failed_store *outside = ingest_failed_store_open(path, &error);
    if (!outside) fail_msg("%s\n", error.reason);
    assert_int_equal(list(outside, (ingest_failed_filter){0}, 0, 0, false).count, 0);
    ingest_failed_store_close(outside);
    (void)snprintf(path, sizeof path, "%s/%s/%s", f->directory, name, CONTROL_SOCKET);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode, S_IFSOCK | 0600);
    control_stop(consumer.socket);
    assert_int_equal(stat(path, &status), -1);
    failed_store_close(store);
}

/* ---- changes that fail ---------------------------------------------------------------------- */

static void a_failed_change_is_told_with_its_count(void **state) {
    fixture *f = *state;
    engine consumer;
    uint64_t count;
    ingest_error error = {0};
    fill(f, 1200);
    start(&consumer, f, 0);
    consumer.refuse_after = 700;
    ingest_failed_store *outside = open_outside(f);
    assert_false(ingest_failed_discard(outside, NULL, &count, &error));
    assert_int_equal(count, 700);
    assert_int_equal(error.status, INGEST_FAILED);
    assert_string_equal(error.reason, "it was made to fail here");
    char text[FAILED_TEXT_MAX + 2];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_false(
        ingest_failed_discard(outside, &(ingest_failed_filter){.event_id = text}, &count, &error));
    assert_int_equal(error.status, INGEST_INVALID);
    ingest_failed_store_close(outside);
    control_stop(consumer.socket);
}

static void *retry_all(void *arg) {
    const fixture *f = arg;
    uint64_t count;
    ingest_error error = {0};
    ingest_failed_store *outside = open_outside(f);
    assert_false(ingest_failed_retry(outside, NULL, &count, &error));
    assert_int_equal(error.status, INGEST_CLOSED);
    ingest_failed_store_close(outside);
    return NULL;
}

static void a_change_is_refused_when_the_consumer_ends(void **state) {
    fixture *f = *state;
    engine consumer;
    pthread_t tool;
    fill(f, 10);
    start(&consumer, f, 0);
    consumer.blocked = true;
    assert_int_equal(pthread_create(&tool, NULL, retry_all, f), 0);
    while (consumer.calls == 0)
        usleep(1000);
    consumer.ending = true;
    (void)pthread_join(tool, NULL);
    control_stop(consumer.socket);
}

/* ---- peers of all kinds --------------------------------------------------------------------- */

static int connect_raw(const fixture *f) {
    int it;
    failure why = {0};
    if (control_socket_connect(f->directory, 5000, &it, &why) != ST_OK)
        fail_msg("%s\n", why.reason);
    return it;
}

/* The rest until the other end closes; -1: it does not. */
static ssize_t read_to_end(int socket, uint8_t *out, size_t size) {
    size_t len = 0;
    for (;;) {
        ssize_t got = recv(socket, out + len, size - len, 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET)) return (ssize_t)len;
        if (got < 0) return -1;
        len += (size_t)got;
    }
}

static void expect_refusal(const fixture *f, bytes request, const char *text) {
    uint8_t frame[2048];
    control_reply reply;
    failure why = {0};
    int it = connect_raw(f);
    assert_int_equal(send(it, request.data, request.len, MSG_NOSIGNAL), request.len);
    ssize_t len = read_to_end(it, frame, sizeof frame);
    assert_int_equal(close(it), 0);
    assert_true(len > CONTROL_HEAD_SIZE);
    bytes body = bytes_of(frame + CONTROL_LENGTH_SIZE, (size_t)len - CONTROL_LENGTH_SIZE);
    assert_int_equal(control_get_reply(body, &reply, &why), ST_OK);
    assert_int_equal(reply.kind, CONTROL_FAILED);
    if (!memmem(reply.reason.data, reply.reason.len, text, strlen(text)))
        fail_msg("%.*s\n", (int)reply.reason.len, (const char *)reply.reason.data);
}

static void garbage_is_refused_with_a_reason(void **state) {
    fixture *f = *state;
    engine consumer;
    uint8_t frame[CONTROL_LENGTH_SIZE + CONTROL_REQUEST_MAX];
    failed_query query = {.id = bytes_of_string("x")};
    fill(f, 10);
    start(&consumer, f, 0);
    expect_refusal(f, bytes_of("GET / HTTP/1.1\r\n", 4), "a frame of");
    expect_refusal(f, bytes_of("\1\0\0\0", 4), "a frame of 1 bytes");
    expect_refusal(f, bytes_of("\2\0\0\0\1\1", 6), "a request is malformed");
    expect_refusal(f, bytes_of("\2\0\0\0\2\1", 6), "speaks version 2");
    size_t len = control_put_request(CONTROL_LIST, &query, frame, NULL);
    frame[CONTROL_LENGTH_SIZE + 1] = 77;
    expect_refusal(f, bytes_of(frame, len), "no request of kind 77");
    frame[0]--;
    expect_refusal(f, bytes_of(frame, len - 1), "a request is malformed");
    /* and the others are served as before */
    ingest_failed_store *outside = open_outside(f);
    assert_int_equal(list(outside, (ingest_failed_filter){0}, 0, 0, true).count, 10);
    ingest_failed_store_close(outside);
    control_stop(consumer.socket);
}

static void *list_all(void *arg) {
    ingest_failed_store *outside = open_outside(arg);
    assert_int_equal(list(outside, (ingest_failed_filter){0}, 0, 0, true).count, 10);
    ingest_failed_store_close(outside);
    return NULL;
}

static void slow_peers_hold_up_nobody_for_long(void **state) {
    enum { PEER_MS = 700, CROWD = 2 * CONTROL_PEERS };
    fixture *f = *state;
    engine consumer;
    int crowd[CROWD];
    pthread_t tool;
    uint8_t byte;
    fill(f, 10);
    start(&consumer, f, PEER_MS);
    const int64_t began_ms = clock_monotonic_ms();
    for (int i = 0; i < CONTROL_PEERS; i++) {
        crowd[i] = connect_raw(f);
        assert_int_equal(send(crowd[i], "\50\0\0", (size_t)i % 4, MSG_NOSIGNAL), i % 4);
    }
    assert_int_equal(pthread_create(&tool, NULL, list_all, f), 0);
    (void)pthread_join(tool, NULL); /* had to wait for a place */
    assert_in_range(clock_monotonic_ms() - began_ms, PEER_MS / 2, 20 * PEER_MS);
    for (int i = 0; i < CONTROL_PEERS; i++) {
        assert_int_equal(recv(crowd[i], &byte, 1, 0), 0); /* cut off */
        assert_int_equal(close(crowd[i]), 0);
    }
    control_stop(consumer.socket);
}

/* Asks for pages and does not read them: gets what the kernel's buffers hold, and no more. */
static void a_peer_that_does_not_read_is_cut_off(void **state) {
    enum { PEER_MS = 500, SIZE = 512 * 1024 };
    fixture *f = *state;
    engine consumer;
    uint8_t request[CONTROL_LENGTH_SIZE + CONTROL_REQUEST_MAX];
    uint8_t *large = calloc(4, SIZE);
    const failed_query query = {.with_events = true};
    for (int i = 0; i < 5; i++) {
        failed_record record = record_of("", "");
        record.opaque = true;
        record.offset = i;
        record.event = bytes_of(large, SIZE);
        (void)put_one(f, &record);
    }
    start(&consumer, f, PEER_MS);
    int it = connect_raw(f);
    size_t len = control_put_request(CONTROL_LIST, &query, request, NULL);
    assert_int_equal(send(it, request, len, MSG_NOSIGNAL), len);
    usleep((PEER_MS + 1000) * 1000);
    ssize_t got = read_to_end(it, large, (size_t)4 * SIZE);
    assert_in_range(got, 1, 2 * SIZE - 1); /* a page is two of them */
    assert_int_equal(close(it), 0);
    free(large);
    ingest_failed_store *outside = open_outside(f);
    heard all = {0};
    ingest_error error;
    assert_true(ingest_failed_list(outside, NULL, 0, 0, true, hear, &all, &error));
    assert_int_equal(all.count, 5);
    ingest_failed_store_close(outside);
    control_stop(consumer.socket);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(with_the_store_in_hand),
        TEST(through_the_socket),
        TEST(values_that_are_no_events_are_shown_as_they_are),
        TEST(held_events_are_discarded_by_their_consumer_alone),
        TEST(what_is_not_there_is_not_made),
        TEST(an_owner_that_does_not_answer_is_told),
        TEST(a_consumer_that_ended_is_told),
        TEST(consumers_and_tools_take_turns),
        TEST(a_long_folder_name_and_a_socket_left_behind),
        TEST(a_failed_change_is_told_with_its_count),
        TEST(a_change_is_refused_when_the_consumer_ends),
        TEST(garbage_is_refused_with_a_reason),
        TEST(slow_peers_hold_up_nobody_for_long),
        TEST(a_peer_that_does_not_read_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
