/*
 * The way of a PublishRequest from the wire to Kafka, without the store: whatever bytes come, they
 * are refused with a reason, or become a record that is read back the same and Kafka records in
 * every layout and format that are no larger than was said at the door.
 */
#include "fuzz.h"

#include "ingest/v1/ingest_service.pb-c.h"
#include "server/codec.h"
#include "server/default_catalogue.h"
#include "server/event_intake.h"
#include "server/fingerprint.h"
#include "server/kafka_record.h"

#include <string.h>

static config settings;
static catalogue *operations;
static intake rules;

static void set_up(void) {
    char *argv[] = {"ingestd", "--data-dir=/d", "--kafka=k:9092"};
    config_action action;
    failure why;
    PROMISE(config_load(&settings, 3, argv, (char *[]){NULL}, &action, &why) == ST_OK);
    PROMISE(catalogue_parse(bytes_of(ingest_default_catalogue, ingest_default_catalogue_size),
                            &operations, &why) == ST_OK);
    rules = (intake){.config = &settings, .catalogue = operations};
    for (uint32_t i = 0; i < settings.route_count; i++)
        rules.store_routes[i] = i;
}

static bool same(bytes a, bytes b) { return a.len == b.len && memcmp(a.data, b.data, a.len) == 0; }

static void check_stored(event_record *record) {
    event_record back;
    failure why;
    size_t size = record_encoded_size(record);
    record->cumulative_bytes = size;
    uint8_t *value = malloc(size);
    PROMISE(value);
    record_encode(record, value);
    PROMISE(record_decode(7, bytes_of(value, size), &back, &why) == ST_OK);
    PROMISE(same(back.event, record->event) && same(back.id, record->id) &&
            same(back.key, record->key) && same(back.source, record->source) &&
            same(back.type, record->type) && back.operations == record->operations &&
            back.time_seconds == record->time_seconds && back.time_nanos == record->time_nanos);
    free(value);
}

/* Counted as a broker does, but for the batch's own bytes. */
static size_t size_of(const kafka_record *record) {
    size_t size = record->key.len + record->value.len;
    for (size_t i = 0; i < record->header_count; i++)
        size += strlen(record->headers[i].name) + record->headers[i].value.len;
    return size;
}

static void check_published(const event_record *record, const Ingest__V1__Event *event,
                            route_config route) {
    static kafka_record_buffer buffer;
    const kafka_record *made;
    size_t count;
    failure why;
    uuid store = {{1}};
    size_t limit = kafka_record_max_size(record, event, &route);
    PROMISE(kafka_record_make(record, &route, operations, &store, &buffer, &made, &count, &why) ==
            ST_OK);
    bool split = route.layout == LAYOUT_SPLIT && record->operations > 0;
    PROMISE(count == (split ? record->operations : 1));
    for (size_t i = 0; i < count; i++) {
        PROMISE(size_of(&made[i]) <= limit);
        PROMISE(same(made[i].key, record->key));
    }
}

static void take(const Ingest__V1__PublishRequest *request, bytes wire, arena *memory) {
    append_request append = {0};
    failure why = {0};
    uint8_t before[STORE_FINGERPRINT_SIZE];
    intake_source source = {.event = request->event, .path = "event"};
    unsigned count;
    if (!request->event) return;
    if (!codec_find_field(wire, 1, &source.wire, &count) || count != 1)
        source.wire = bytes_of(0, 0);
    fingerprint_event(request->event, before);
    if (intake_event(&rules, &source, memory, &append, &why) != ST_OK) {
        PROMISE(why.field[0] && why.reason[0]);
        return;
    }
    PROMISE(!append.remember || memcmp(before, append.fingerprint, sizeof before) == 0);
    append.record.sequence = 7; /* the committer's part */
    append.record.accepted_ms = 1;
    check_stored(&append.record);

    /* What is stored is what was checked, with id, key and time in it. */
    PROMISE(codec_check(&ingest__v1__event__descriptor, append.record.event, CODEC_LIMITS_DEFAULT,
                        &why) == ST_OK);
    Ingest__V1__Event *event =
        codec_unpack(&ingest__v1__event__descriptor, append.record.event, &memory->allocator);
    PROMISE(event && strlen(event->id) == append.record.id.len && event->time);
    PROMISE(memcmp(event->id, append.record.id.data, append.record.id.len) == 0);
    PROMISE(same(bytes_of(event->key, strlen(event->key)), append.record.key));
    for (int layout = LAYOUT_WHOLE; layout <= LAYOUT_SPLIT; layout++)
        for (int format = FORMAT_PROTOBUF; format <= FORMAT_JSON; format++) {
            route_config route = settings.routes[append.route];
            route.layout = (route_layout)layout;
            route.format = (route_format)format;
            check_published(&append.record, event, route);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!operations) set_up();
    const ProtobufCMessageDescriptor *type = &ingest__v1__publish_request__descriptor;
    bytes wire = bytes_of(data, size);
    failure why = {0};
    if (codec_check(type, wire, CODEC_LIMITS_DEFAULT, &why) != ST_OK) {
        PROMISE(why.reason[0]);
        return 0;
    }
    arena memory;
    arena_init(&memory, NULL, 0);
    Ingest__V1__PublishRequest *request = codec_unpack(type, wire, &memory.allocator);
    PROMISE(request); /* codec_check promised it */
    take(request, wire, &memory);
    arena_free(&memory);
    return 0;
}
