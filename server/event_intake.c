/*
 * The received bytes are kept: what is filled in is appended to them as further fields, which every
 * protobuf decoder reads as if they had stood there
 * (https://protobuf.dev/programming-guides/encoding/, "last one wins"). So an event is never
 * encoded again on its way to Kafka.
 */
#include "server/event_intake.h"

#include "server/fingerprint.h"
#include "server/kafka_record.h"
#include "server/proto_time.h"
#include "server/validate.h"
#include "storage/clock.h"

enum {
    TRACEPARENT_MAX_BYTES = 128, /* W3C Trace Context level 1 has 55 */
    TRACESTATE_MAX_BYTES = 512,
};

static int config_route(const config *all, const char *name) {
    for (size_t i = 0; i < all->route_count; i++)
        if (strcmp(all->routes[i].name, name) == 0) return (int)i;
    return -1;
}

outcome intake_check_routes(const intake *rules, failure *why) {
    for (size_t i = 0; i < catalogue_count(rules->catalogue); i++) {
        const catalogue_entry *entry = catalogue_at(rules->catalogue, i);
        if (config_route(rules->config, entry->route) < 0)
            return fail(why, ST_INVALID, "catalogue",
                        "operation %s goes to route %s, which is not configured under routes",
                        entry->name, entry->route);
    }
    return ST_OK;
}

const route_config *intake_route(const intake *rules, uint32_t store_route) {
    for (size_t i = 0; i < rules->config->route_count; i++)
        if (rules->store_routes[i] == store_route) return &rules->config->routes[i];
    return NULL;
}

/* ---- filling in ------------------------------------------------------------------------ */

static void make_id(Ingest__V1__Event *event, int64_t now_ms, arena *memory) {
    const uuid id = uuid_time_ordered(now_ms);
    event->id = arena_alloc(memory, UUID_TEXT_SIZE);
    uuid_format(&id, event->id);
}

static void make_time(Ingest__V1__Event *event, int64_t now_ms, arena *memory) {
    event->time = arena_alloc(memory, sizeof *event->time);
    proto_timestamp(event->time, now_ms);
}

/* Encodes only the fields that were filled in, as an Event of their own. */
static bytes with_appended(bytes wire, const Ingest__V1__Event *event, bool id, bool key, bool time,
                           arena *memory) {
    Ingest__V1__Event extra = INGEST__V1__EVENT__INIT;
    if (id) extra.id = event->id;
    if (key) extra.key = event->key;
    if (time) extra.time = event->time;
    const size_t size = ingest__v1__event__get_packed_size(&extra);
    uint8_t *joined = arena_alloc(memory, wire.len + size);
    memcpy(joined, wire.data, wire.len);
    ingest__v1__event__pack(&extra, joined + wire.len);
    return bytes_of(joined, wire.len + size);
}

static bytes packed(const Ingest__V1__Event *event, arena *memory) {
    uint8_t *out = arena_alloc(memory, ingest__v1__event__get_packed_size(event));
    return bytes_of(out, ingest__v1__event__pack(event, out));
}

static bytes fill_in(intake_source *source, arena *memory) {
    Ingest__V1__Event *event = source->event;
    const int64_t now_ms = clock_wall_ms();
    const bool id = !event->id[0], key = !event->key[0], time = !event->time;
    if (id) make_id(event, now_ms, memory);
    if (key) event->key = event->id;
    if (time) make_time(event, now_ms, memory);
    if (source->wire.len == 0) return packed(event, memory);
    if (!id && !key && !time) return source->wire;
    return with_appended(source->wire, event, id, key, time, memory);
}

/* ---- the request ----------------------------------------------------------------------- */

static bytes trace_field(bytes value, size_t max) { return value.len <= max ? value : (bytes){0}; }

static void fill_record(const intake_source *source, const validated_event *valid, bytes encoded,
                        event_record *record) {
    const Ingest__V1__Event *event = source->event;
    *record = (event_record){
        .kind = RECORD_EVENT,
        .id = bytes_of_string(event->id),
        .source = bytes_of_string(event->source),
        .key = bytes_of_string(event->key),
        .type = bytes_of_string(valid->type),
        .time_seconds = event->time->seconds,
        .time_nanos = event->time->nanos,
        .transaction = valid->entry->transaction,
        .operations = valid->operations,
        .traceparent = trace_field(source->traceparent, TRACEPARENT_MAX_BYTES),
        .tracestate = trace_field(source->tracestate, TRACESTATE_MAX_BYTES),
        .event = encoded,
    };
}

/* Each part of a split group repeats the envelope, so a small event with many attributes and
 * operations can become a large transaction. */
static size_t split_size(const intake_source *source, const event_record *record) {
    Ingest__V1__Event envelope = *source->event;
    envelope.body_case = INGEST__V1__EVENT__BODY__NOT_SET;
    return record->event.len + record->operations * ingest__v1__event__get_packed_size(&envelope);
}

/* What the event becomes must fit Kafka: each record its topic, all of them one transaction. */
static outcome check_records(const intake_source *source, const event_record *record,
                             const route_config *route, failure *why) {
    const size_t largest = kafka_record_max_size(record, source->event, route);
    if (largest > route->max_record_bytes)
        return fail(why, ST_TOO_LARGE, source->path,
                    "becomes a Kafka record of %zu bytes, route %s allows %llu "
                    "(routes.max_record_bytes); send less data, or a reference to it",
                    largest, route->name, (unsigned long long)route->max_record_bytes);
    if (route->layout != LAYOUT_SPLIT) return ST_OK;
    const size_t sum = split_size(source, record);
    if (sum > route->transaction_max_bytes)
        return fail(why, ST_TOO_LARGE, source->path,
                    "splits into records of %zu bytes in all, route %s allows %llu "
                    "(routes.transaction_max_bytes); send fewer attributes or operations",
                    sum, route->name, (unsigned long long)route->transaction_max_bytes);
    return ST_OK;
}

outcome intake_event(const intake *rules, intake_source *source, arena *memory,
                     append_request *request, failure *why) {
    const config *settings = rules->config;
    const size_t sent =
        source->wire.len ? source->wire.len : ingest__v1__event__get_packed_size(source->event);
    if (sent > settings->limits.max_event_bytes)
        return fail(why, ST_TOO_LARGE, source->path,
                    "has %zu bytes, limits.max_event_bytes allows %llu; send less data, or a "
                    "reference to it",
                    sent, (unsigned long long)settings->limits.max_event_bytes);

    validated_event valid;
    const outcome result =
        validate_event(source->event, rules->catalogue, settings->limits.max_operations,
                       source->path, memory, &valid, why);
    if (result != ST_OK) return result;

    request->remember = source->event->id[0] != '\0';
    if (request->remember) fingerprint_event(source->event, request->fingerprint);
    const bytes encoded = fill_in(source, memory);
    fill_record(source, &valid, encoded, &request->record);

    const int index = config_route(settings, valid.entry->route);
    const route_config *route = &settings->routes[index];
    request->route = rules->store_routes[index];
    return check_records(source, &request->record, route, why);
}
