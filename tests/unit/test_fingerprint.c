/* Same content, same fingerprint, however it was built; any change changes it. */
#include "cmocka_includes.h"

#include "sample_events.h"
#include "server/fingerprint.h"

typedef struct fixture {
    arena memory;
    Ingest__V1__Event *event;
    uint8_t before[STORE_FINGERPRINT_SIZE];
} fixture;

static int setup(void **state) {
    static fixture it;
    arena_init(&it.memory, NULL, 0);
    it.event = sample_transaction(&it.memory, 2);
    fingerprint_event(it.event, it.before);
    *state = &it;
    return 0;
}

static int teardown(void **state) {
    arena_free(&((fixture *)*state)->memory);
    return 0;
}

static bool changed(const fixture *it) {
    uint8_t now[STORE_FINGERPRINT_SIZE];
    fingerprint_event(it->event, now);
    return memcmp(now, it->before, sizeof now) != 0;
}

static void order_of_map_entries_does_not_matter(void **state) {
    fixture *it = *state;
    it->event->transaction->operations[0]->data = sample_struct(&it->memory, true);
    assert_false(changed(it));
}

static void an_empty_key_is_the_id(void **state) {
    fixture *it = *state;
    it->event->key = arena_string(&it->memory, "", 0);
    fingerprint_event(it->event, it->before);
    it->event->key = it->event->id;
    assert_false(changed(it));
}

static void order_of_operations_matters(void **state) {
    fixture *it = *state;
    it->event->transaction->operations[0]->entity_id = arena_string(&it->memory, "u-2", 3);
    fingerprint_event(it->event, it->before);
    Ingest__V1__Operation **operations = it->event->transaction->operations;
    Ingest__V1__Operation *first = operations[0];
    operations[0] = operations[1];
    operations[1] = first;
    assert_true(changed(it));
}

static void a_changed_number_matters(void **state) {
    fixture *it = *state;
    it->event->transaction->operations[1]->data->fields[1]->value = sample_number(&it->memory, 37);
    assert_true(changed(it));
}

static void a_value_is_not_a_name(void **state) {
    fixture *it = *state;
    Google__Protobuf__Struct__FieldsEntry *field =
        it->event->transaction->operations[0]->data->fields[0];
    field->key = arena_string(&it->memory, "Ada", 3);
    field->value = sample_string(&it->memory, "name");
    assert_true(changed(it));
}

static void raw_is_not_data(void **state) {
    fixture *it = *state;
    it->event->transaction->operations[0]->payload_case = INGEST__V1__OPERATION__PAYLOAD__NOT_SET;
    fingerprint_event(it->event, it->before);
    it->event->transaction->operations[0]->payload_case = INGEST__V1__OPERATION__PAYLOAD_RAW;
    it->event->transaction->operations[0]->raw = (ProtobufCBinaryData){0};
    assert_true(changed(it));
}

static void a_dropped_operation_matters(void **state) {
    fixture *it = *state;
    it->event->transaction->n_operations = 1;
    assert_true(changed(it));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(order_of_map_entries_does_not_matter),
        TEST(an_empty_key_is_the_id),
        TEST(order_of_operations_matters),
        TEST(a_changed_number_matters),
        TEST(a_value_is_not_a_name),
        TEST(raw_is_not_data),
        TEST(a_dropped_operation_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
