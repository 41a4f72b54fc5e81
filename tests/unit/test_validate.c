/* Each rule refuses with its outcome and the field's path, and leaves good events alone. */
#include "cmocka_includes.h"

#include <math.h>

#include "sample_events.h"
#include "server/default_catalogue.h"
#include "server/validate.h"

static catalogue *all;
static arena memory;
static Ingest__V1__Event *event;

static int load(void **state) {
    (void)state;
    return catalogue_parse(bytes_of(ingest_default_catalogue, ingest_default_catalogue_size), &all,
                           NULL) == ST_OK
               ? 0
               : 1;
}

static int unload(void **state) {
    (void)state;
    catalogue_free(all);
    return 0;
}

static int setup(void **state) {
    (void)state;
    arena_init(&memory, NULL, 0);
    event = sample_transaction(&memory, 2);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_free(&memory);
    return 0;
}

static void assert_accepted(const char *type, uint32_t operations) {
    validated_event valid;
    failure why = {0};
    const outcome result = validate_event(event, all, 3, "event", &memory, &valid, &why);
    if (result != ST_OK) fail_msg("%s: %s", why.field, why.reason);
    assert_string_equal(valid.type, type);
    assert_int_equal(valid.operations, operations);
}

static void assert_refused(outcome expected, const char *field) {
    validated_event valid;
    failure why = {0};
    assert_int_equal(validate_event(event, all, 3, "event", &memory, &valid, &why), expected);
    assert_string_equal(why.field, field);
    assert_true(strlen(why.reason) > 0);
}

static char *repeated(char c, size_t count) {
    char *text = arena_alloc(&memory, count + 1);
    memset(text, c, count);
    text[count] = '\0';
    return text;
}

static void good_events_pass(void **state) {
    (void)state;
    assert_accepted("create_user", 2);
    event->transaction->n_operations = 1;
    event->transaction->name = repeated('x', 0);
    assert_accepted("create_user", 1);
    event = sample_informative(&memory);
    assert_accepted("generate_otp", 0);
}

static void every_entry_of_the_catalogue_passes(void **state) {
    (void)state;
    for (size_t i = 0; i < catalogue_count(all); i++) {
        const catalogue_entry *entry = catalogue_at(all, i);
        event = entry->transaction ? sample_transaction(&memory, 1) : sample_informative(&memory);
        if (entry->transaction)
            event->transaction->operations[0]->name =
                arena_string(&memory, entry->name, strlen(entry->name));
        assert_accepted(entry->name, entry->transaction ? 1 : 0);
    }
    assert_int_equal(catalogue_count(all), 43);
}

static void the_envelope_is_checked(void **state) {
    (void)state;
    event->source = repeated('x', 0);
    assert_refused(ST_INVALID, "event.source");
    event->source = repeated('x', EVENT_SOURCE_MAX_BYTES + 1);
    assert_refused(ST_TOO_LARGE, "event.source");
    event->source = repeated('x', EVENT_SOURCE_MAX_BYTES);
    event->id = repeated('x', EVENT_ID_MAX_BYTES + 1);
    assert_refused(ST_TOO_LARGE, "event.id");
    event->id = repeated('x', EVENT_ID_MAX_BYTES);
    event->key = repeated('x', EVENT_KEY_MAX_BYTES + 1);
    assert_refused(ST_TOO_LARGE, "event.key");
    event->key = repeated('x', EVENT_KEY_MAX_BYTES);
    assert_accepted("create_user", 2);
    event->body_case = INGEST__V1__EVENT__BODY__NOT_SET;
    assert_refused(ST_INVALID, "event");
}

static void the_time_is_checked(void **state) {
    (void)state;
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    event->time = &time;
    time.seconds = 253402300799;
    time.nanos = 999999999;
    assert_accepted("create_user", 2);
    time.nanos = 1000000000;
    assert_refused(ST_INVALID, "event.time");
    time.nanos = 0;
    time.seconds = -62135596801;
    assert_refused(ST_INVALID, "event.time");
}

static void operations_are_checked(void **state) {
    (void)state;
    event->transaction->operations[1]->name = repeated('x', 3);
    assert_refused(ST_UNKNOWN_OPERATION, "event.transaction.operations[1].name");
    event->transaction->operations[1]->name = arena_string(&memory, "generate_otp", 12);
    assert_refused(ST_INVALID, "event.transaction.operations[1].name");
    event->transaction->operations[1]->name = repeated('x', 0);
    assert_refused(ST_INVALID, "event.transaction.operations[1].name");
    event->transaction->n_operations = 1;
    event->transaction->operations[0]->entity_id = repeated('x', EVENT_ENTITY_ID_MAX_BYTES + 1);
    assert_refused(ST_TOO_LARGE, "event.transaction.operations[0].entity_id");
}

static void a_transaction_needs_operations_and_a_name(void **state) {
    (void)state;
    event->transaction->n_operations = 0;
    assert_refused(ST_INVALID, "event.transaction.operations");
    event->transaction->n_operations = 2;
    event->transaction->name = repeated('x', 0);
    assert_refused(ST_INVALID, "event.transaction.name");
    event->transaction->name = repeated('x', 3);
    assert_refused(ST_UNKNOWN_OPERATION, "event.transaction.name");
    event = sample_transaction(&memory, 4); /* these tests allow 3 */
    assert_refused(ST_TOO_LARGE, "event.transaction.operations");
}

static void a_transaction_is_not_informative(void **state) {
    (void)state;
    event = sample_informative(&memory);
    event->informative->name = arena_string(&memory, "create_user", 11);
    assert_refused(ST_INVALID, "event.informative.name");
}

static void json_data_is_checked(void **state) {
    (void)state;
    Google__Protobuf__Struct *data = event->transaction->operations[0]->data;
    data->fields[1]->value = sample_number(&memory, NAN);
    assert_refused(ST_INVALID, "event.transaction.operations[0].data.age");
    data->fields[1]->value = NULL;
    assert_refused(ST_INVALID, "event.transaction.operations[0].data.age");
    data->fields[1]->value = sample_string(&memory, "x");
    data->fields[1]->value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET;
    assert_refused(ST_INVALID, "event.transaction.operations[0].data.age");
}

static void a_name_given_twice_is_refused(void **state) {
    (void)state;
    /* Few names and many take different ways. */
    static const size_t COUNTS[] = {2, 12, 13, 500};
    for (size_t c = 0; c < sizeof COUNTS / sizeof *COUNTS; c++) {
        Google__Protobuf__Struct *data = event->transaction->operations[0]->data;
        data->n_fields = COUNTS[c];
        data->fields =
            arena_alloc(&memory, COUNTS[c] * sizeof(Google__Protobuf__Struct__FieldsEntry *));
        for (size_t i = 0; i < COUNTS[c]; i++) {
            data->fields[i] = SAMPLE_NEW(&memory, Google__Protobuf__Struct__FieldsEntry,
                                         GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT);
            data->fields[i]->key = repeated('a', i);
            data->fields[i]->value = sample_number(&memory, 1);
        }
        assert_accepted("create_user", 2);
        data->fields[COUNTS[c] - 1]->key = repeated('a', 0);
        assert_refused(ST_INVALID, "event.transaction.operations[0].data");
    }
}

static void attributes_are_checked(void **state) {
    (void)state;
    enum { COUNT = EVENT_ATTRIBUTES_MAX + 1 };
    Ingest__V1__Event__AttributesEntry *entries[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        entries[i] = SAMPLE_NEW(&memory, Ingest__V1__Event__AttributesEntry,
                                INGEST__V1__EVENT__ATTRIBUTES_ENTRY__INIT);
        entries[i]->key = repeated('a', i + 1);
    }
    event->attributes = entries;
    event->n_attributes = COUNT;
    assert_refused(ST_TOO_LARGE, "event.attributes");
    event->n_attributes = COUNT - 1;
    assert_accepted("create_user", 2);
    entries[3]->value = repeated('x', EVENT_ATTRIBUTE_VALUE_MAX_BYTES + 1);
    assert_refused(ST_TOO_LARGE, "event.attributes.aaaa");
    entries[3]->value = repeated('x', 1);
    entries[3]->key = repeated('a', 1);
    assert_refused(ST_INVALID, "event.attributes");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(good_events_pass),
        TEST(every_entry_of_the_catalogue_passes),
        TEST(the_envelope_is_checked),
        TEST(the_time_is_checked),
        TEST(operations_are_checked),
        TEST(a_transaction_needs_operations_and_a_name),
        TEST(a_transaction_is_not_informative),
        TEST(json_data_is_checked),
        TEST(a_name_given_twice_is_refused),
        TEST(attributes_are_checked),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
