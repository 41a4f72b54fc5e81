/* Where events go: targets, rendezvous hashing, lanes, and the states of a replica. */
#include "cmocka_includes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/publisher/lanes.h"
#include "client/publisher/replica_state.h"
#include "client/publisher/route.h"
#include "client/publisher/target.h"

/* ---- targets ------------------------------------------------------------------------------- */

static void test_targets(void **state) {
    (void)state;
    target all;
    char why[256];
    assert_true(target_parse("dns:///ingest:50051,10.0.0.1:1,[::1]:2,unix:/s,db:3", NULL, &all, why,
                             sizeof why));
    assert_int_equal(all.count, 5);
    assert_true(all.lookup);
    assert_false(all.loopback);
    assert_string_equal(all.parts[0].host, "ingest");
    assert_string_equal(all.parts[0].port, "50051");
    assert_string_equal(all.parts[0].fixed.authority, "ingest:50051");
    assert_string_equal(all.parts[1].fixed.address, "ipv4:10.0.0.1:1");
    assert_string_equal(all.parts[2].fixed.address, "ipv6:[::1]:2");
    assert_string_equal(all.parts[3].fixed.address, "unix:/s");
    assert_true(all.parts[0].every && !all.parts[4].every);
    assert_string_equal(all.parts[4].host, "db");
    target_free(&all);
    assert_true(target_parse("localhost:1,127.0.0.2:2,unix:/x", "name", &all, why, sizeof why));
    assert_true(all.loopback);
    assert_string_equal(all.parts[1].fixed.authority, "name");
    target_free(&all);
}

static void test_bad_targets(void **state) {
    (void)state;
    static const char *const BAD[] = {"",     "host", "host:",    ":1",     "host:0", "host:65536",
                                      "h:1,", "h:1x", "dns:///",  "unix:",  "a:b:1",  "[::1]",
                                      "[]:1", "h: 1", "dns:///a", "[::1:1", "::1:1",  NULL};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        target all;
        char why[256] = "";
        if (target_parse(BAD[i], NULL, &all, why, sizeof why)) fail_msg("taken: %s", BAD[i]);
        assert_non_null(strstr(why, "target: "));
    }
}

/* ---- routes -------------------------------------------------------------------------------- */

enum { REPLICAS = 5, KEYS = 10000 };

static void make_facts(route_facts facts[REPLICAS]) {
    for (int i = 0; i < REPLICAS; i++) {
        char address[32];
        (void)snprintf(address, sizeof address, "ipv4:10.0.0.%d:50051", i);
        facts[i] = (route_facts){route_hash(bytes_of_string(address)), true, true, false};
    }
}

static uint64_t key_of(int number) {
    char key[32];
    (void)snprintf(key, sizeof key, "key-%d", number);
    return route_hash(bytes_of_string(key));
}

static void test_keys_spread_and_stay(void **state) {
    (void)state;
    route_facts facts[REPLICAS];
    int home[KEYS], share[REPLICAS] = {0};
    make_facts(facts);
    for (int i = 0; i < KEYS; i++) {
        home[i] = route_choose(facts, REPLICAS, key_of(i), ROUTE_NOWHERE);
        share[home[i]]++;
    }
    for (int i = 0; i < REPLICAS; i++)
        assert_in_range(share[i], KEYS / REPLICAS * 9 / 10, KEYS / REPLICAS * 11 / 10);
    facts[2].up = false; /* away for a moment: nothing moves */
    for (int i = 0; i < KEYS; i++)
        assert_int_equal(route_choose(facts, REPLICAS, key_of(i), ROUTE_NOWHERE), home[i]);
    facts[2].gone = true; /* its own keys move, and no other */
    for (int i = 0; i < KEYS; i++) {
        const int now = route_choose(facts, REPLICAS, key_of(i), ROUTE_NOWHERE);
        assert_true(home[i] == 2 ? now != 2 : now == home[i]);
    }
}

static void test_bound_events(void **state) {
    (void)state;
    route_facts facts[REPLICAS];
    make_facts(facts);
    for (int i = 0; i < KEYS; i++) {
        facts[3].up = facts[3].listed = facts[3].gone = false;
        assert_int_equal(route_choose(facts, REPLICAS, key_of(i), 3), 3);
        facts[3].gone = true;
        assert_int_not_equal(route_choose(facts, REPLICAS, key_of(i), 3), 3);
    }
}

static void test_routes_in_need(void **state) {
    (void)state;
    route_facts facts[REPLICAS];
    assert_int_equal(route_choose(NULL, 0, 1, ROUTE_NOWHERE), ROUTE_NOWHERE);
    make_facts(facts);
    for (int i = 0; i < REPLICAS; i++)
        facts[i].up = !(facts[i].gone = true);
    assert_in_range(route_choose(facts, REPLICAS, 7, ROUTE_NOWHERE), 0, REPLICAS - 1);
    for (int i = 0; i < REPLICAS; i++)
        facts[i].listed = false;
    assert_int_equal(route_choose(facts, REPLICAS, 7, ROUTE_NOWHERE), ROUTE_NOWHERE);
    facts[4].up = true; /* left the list, but is there */
    assert_int_equal(route_choose(facts, REPLICAS, 7, ROUTE_NOWHERE), 4);
}

/* Pinned: another hash would tear the order of keys at an upgrade. */
static void test_hash_is_pinned(void **state) {
    (void)state;
    assert_true(route_hash(bytes_of_string("")) == UINT64_C(0xefd01f60ba992926));
    assert_true(route_hash(bytes_of_string("u-1")) == UINT64_C(0x2e9db84d05a78d5f));
}

/* ---- lanes --------------------------------------------------------------------------------- */

enum { EVENTS = 2000 };

/* Against a model: of each key the first that was added and not removed may go, and no other. */
static void test_lanes_against_a_model(void **state) {
    (void)state;
    static delivery *events[EVENTS];
    static bool in[EVENTS], first[EVENTS];
    lanes all;
    unsigned seed = 7;
    lanes_init(&all, 8); /* long buckets */
    for (int i = 0; i < EVENTS; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "%d", rand_r(&seed) % 50);
        events[i] = delivery_new(key, "id", grpc_empty_slice(), NULL, NULL);
        events[i]->key_hash = route_hash(bytes_of_string(key));
    }
    for (int round = 0, added = 0; round < 3 * EVENTS; round++) {
        if (added < EVENTS && rand_r(&seed) % 2) {
            bool alone = true;
            for (int i = 0; i < added; i++)
                alone = alone && !(in[i] && strcmp(events[i]->key, events[added]->key) == 0);
            first[added] = lanes_add(&all, events[added]);
            assert_int_equal(first[added], alone);
            in[added++] = true;
        } else if (added) {
            const int leaving = rand_r(&seed) % added;
            if (!in[leaving]) continue;
            in[leaving] = false;
            int next = -1;
            for (int i = added - 1; first[leaving] && i > leaving; i--)
                if (in[i] && strcmp(events[i]->key, events[leaving]->key) == 0) next = i;
            const delivery *got = lanes_remove(&all, events[leaving]);
            assert_ptr_equal(got, next < 0 ? NULL : events[next]);
            if (next >= 0) first[next] = true;
        }
    }
    for (int i = 0; i < EVENTS; i++) {
        if (in[i]) (void)lanes_remove(&all, events[i]);
        delivery_free(events[i]);
    }
    for (size_t i = 0; i <= all.mask; i++)
        assert_null(all.buckets[i]);
    lanes_free(&all);
}

/* ---- replicas ------------------------------------------------------------------------------ */

static void test_states_of_a_replica(void **state) {
    (void)state;
    for (int each = 0; each < REPLICA_STATE_COUNT; each++) {
        assert_int_equal(replica_state_next(each, RE_LOST), RS_PAUSED);
        assert_non_null(replica_state_text(each));
    }
    assert_int_equal(replica_state_next(RS_PAUSED, RE_TIME), RS_CONNECTING);
    assert_int_equal(replica_state_next(RS_CONNECTING, RE_TIME), RS_PAUSED);
    assert_int_equal(replica_state_next(RS_CONNECTING, RE_WELL), RS_SERVING);
    assert_int_equal(replica_state_next(RS_CONNECTING, RE_UNWELL), RS_UNWELL);
    assert_int_equal(replica_state_next(RS_UNWELL, RE_WELL), RS_SERVING);
    assert_int_equal(replica_state_next(RS_SERVING, RE_UNWELL), RS_UNWELL);
    assert_int_equal(replica_state_next(RS_PAUSED, RE_WELL), RS_PAUSED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_bad_targets),
        cmocka_unit_test(test_keys_spread_and_stay),
        cmocka_unit_test(test_bound_events),
        cmocka_unit_test(test_routes_in_need),
        cmocka_unit_test(test_hash_is_pinned),
        cmocka_unit_test(test_lanes_against_a_model),
        cmocka_unit_test(test_states_of_a_replica),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
