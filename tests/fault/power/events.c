/* Events by number. No state; any thread. */
#include "events.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

const char *const event_routes[EVENT_ROUTES] = {"transactions", "informative", "audit"};

uint64_t event_mix(uint64_t number) {
    number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9u;
    number = (number ^ (number >> 27)) * 0x94d049bb133111ebu;
    return number ^ (number >> 31);
}

/* Most go one way, so that one route grows long. */
uint32_t event_route(uint64_t number) {
    uint64_t drawn = event_mix(number ^ 1) % 8;
    return drawn < 5 ? 0 : drawn < 7 ? 1 : 2;
}

bool event_remembered(uint64_t number) { return event_mix(number ^ 2) % 8 != 0; }

/* Mostly small; some longer than a block of the WAL. */
static size_t body_size(uint64_t number) {
    uint64_t drawn = event_mix(number ^ 3);
    if (drawn % 64 == 0) return 20000 + drawn / 64 % (EVENT_BODY_MAX - 20000);
    return drawn / 64 % (drawn % 4 ? 400 : 3000);
}

static void fill_body(uint8_t *body, size_t size, uint64_t number) {
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = event_mix(number + at);
        memcpy(body + at, &word, size - at < 8 ? size - at : 8);
    }
}

void event_fill(append_request *request, event_memory *memory, uint64_t number) {
    uint64_t drawn = event_mix(number ^ 4);
    size_t size = body_size(number);
    (void)snprintf(memory->id, sizeof memory->id, "%016" PRIx64, number);
    /* Long ones: RocksDB's MANIFEST has keys in it, and so its edits are longer than a block. */
    (void)snprintf(memory->source, sizeof memory->source, "/worker/%u/%0*u", (unsigned)(drawn % 4),
                   (int)(drawn / 4 % 370) + 1, 0u);
    (void)snprintf(memory->key, sizeof memory->key, "key-%u", (unsigned)(drawn / 4 % 50));
    fill_body(memory->body, size, number);
    *request = (append_request){.route = event_route(number), .remember = event_remembered(number)};
    request->record = (event_record){
        .kind = RECORD_EVENT,
        .id = bytes_of_string(memory->id),
        .source = bytes_of_string(memory->source),
        .key = bytes_of_string(memory->key),
        .type = bytes_of_string("create_user"),
        .time_seconds = (int64_t)(drawn % 2000000000),
        .time_nanos = (int32_t)(drawn % 1000000000),
        .transaction = request->route == 0,
        .operations = request->route == 0,
        .event = bytes_of(memory->body, size),
    };
    for (size_t i = 0; i < STORE_FINGERPRINT_SIZE; i += 8) {
        uint64_t word = event_mix(number ^ (5 + i));
        memcpy(request->fingerprint + i, &word, 8);
    }
}

bool event_matches(const event_record *record, uint64_t *number) {
    static _Thread_local event_memory memory;
    append_request expected;
    char text[17];
    char *end;
    if (record->id.len != 16) return false;
    memcpy(text, record->id.data, 16);
    text[16] = '\0';
    *number = strtoull(text, &end, 16);
    if (*end) return false;
    event_fill(&expected, &memory, *number);
    const event_record *wanted = &expected.record;
    return record->kind == RECORD_EVENT && bytes_equal(record->source, wanted->source) &&
           bytes_equal(record->key, wanted->key) && bytes_equal(record->type, wanted->type) &&
           record->time_seconds == wanted->time_seconds &&
           record->time_nanos == wanted->time_nanos && record->transaction == wanted->transaction &&
           record->operations == wanted->operations && record->traceparent.len == 0 &&
           record->tracestate.len == 0 && bytes_equal(record->event, wanted->event);
}
