/*
 * The common case, a whole event as protobuf, costs a few short texts for headers: the stored bytes
 * are the value. All else decodes the event and builds values in scratch memory.
 */
#include "server/kafka_record.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/event_json.h"
#include "server/rfc3339.h"

#define SEQUENCE_MAX_CHARS 20
#define NO_MEMORY "out of memory for the records of an event"

/* ---- scratch memory: chunks that never move, so that records may point into them ---------- */

typedef struct kafka_record_chunk {
    struct kafka_record_chunk *next;
    size_t capacity;
    size_t used;
    _Alignas(16) uint8_t memory[];
} chunk;

#define CHUNK_MIN_BYTES 16384

static void *take(kafka_record_buffer *buffer, size_t size) {
    size = (size + 15) & ~(size_t)15;
    chunk *at = buffer->chunks;
    if (!at || at->capacity - at->used < size) {
        size_t capacity = at ? at->capacity * 2 : CHUNK_MIN_BYTES;
        if (capacity < size) capacity = size;
        at = malloc(sizeof *at + capacity);
        if (!at) {
            buffer->exhausted = true;
            return NULL;
        }
        *at = (chunk){.next = buffer->chunks, .capacity = capacity};
        buffer->chunks = at;
    }
    void *taken = at->memory + at->used;
    at->used += size;
    return taken;
}

/* Gives back the end of what was taken last. */
static void keep(kafka_record_buffer *buffer, const void *taken, size_t size) {
    chunk *at = buffer->chunks;
    at->used = (size_t)((const uint8_t *)taken - at->memory) + ((size + 15) & ~(size_t)15);
}

static void free_chunks(chunk *at) {
    while (at) {
        chunk *next = at->next;
        free(at);
        at = next;
    }
}

/* All is free again; the newest chunk, which is the largest, stays. */
static void reset(kafka_record_buffer *buffer) {
    buffer->exhausted = false;
    if (!buffer->chunks) return;
    free_chunks(buffer->chunks->next);
    buffer->chunks->next = NULL;
    buffer->chunks->used = 0;
}

static void *take_for_protobuf(void *buffer, size_t size) { return take(buffer, size); }
static void leave_to_reset(void *buffer, void *pointer) {
    (void)buffer;
    (void)pointer;
}

void kafka_record_buffer_free(kafka_record_buffer *buffer) {
    free_chunks(buffer->chunks);
    free(buffer->records);
    *buffer = (kafka_record_buffer){0};
}

/* ---- headers --------------------------------------------------------------------------- */

/* The texts that all records of an event share. */
typedef struct texts {
    char time[RFC3339_SIZE];
    char sequence[SEQUENCE_MAX_CHARS + 1];
    char store[UUID_TEXT_SIZE];
    char group_size[SEQUENCE_MAX_CHARS + 1];
} texts;

/* Decimal; snprintf would be the dearest part of a record. */
static size_t write_decimal(uint64_t value, char *out) {
    char digits[SEQUENCE_MAX_CHARS];
    size_t len = 0;
    do
        digits[len++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    for (size_t i = 0; i < len; i++)
        out[i] = digits[len - 1 - i];
    out[len] = '\0';
    return len;
}

static void add_header(kafka_record *to, const char *name, bytes value) {
    assert(to->header_count < KAFKA_RECORD_HEADERS_MAX);
    to->headers[to->header_count++] = (kafka_header){name, value};
}

static void add_text_header(kafka_record *to, const char *name, const char *value) {
    add_header(to, name, bytes_of_string(value));
}

static const char *content_type(const route_config *route) {
    return route->format == FORMAT_JSON ? "application/json" : "application/protobuf";
}

static void add_headers(kafka_record *to, const event_record *record, const route_config *route,
                        const texts *shared, bytes id) {
    add_text_header(to, "ce_specversion", "1.0");
    add_header(to, "ce_id", id);
    add_header(to, "ce_source", record->source);
    add_header(to, "ce_type", record->type);
    add_text_header(to, "ce_time", shared->time);
    add_text_header(to, "content-type", content_type(route));
    add_text_header(to, "ce_sequence", shared->sequence);
    add_text_header(to, "ce_storeid", shared->store);
    if (record->traceparent.len > 0) add_header(to, "traceparent", record->traceparent);
    if (record->tracestate.len > 0) add_header(to, "tracestate", record->tracestate);
}

/* `index` is the text of the operation's number. */
static void add_group_headers(kafka_record *to, const event_record *record, const texts *shared,
                              bytes index) {
    add_header(to, "ce_groupid", record->id);
    add_header(to, "ce_groupindex", index);
    add_text_header(to, "ce_groupsize", shared->group_size);
}

/* ---- values ---------------------------------------------------------------------------- */

static bool json_value(kafka_record_buffer *buffer, const Ingest__V1__Event *event, size_t guess,
                       bytes *value) {
    char *out = take(buffer, guess);
    if (!out) return false;
    size_t size = event_json_write(event, out, guess);
    if (size > guess) {
        keep(buffer, out, 0);
        out = take(buffer, size);
        if (!out) return false;
        (void)event_json_write(event, out, size);
    }
    keep(buffer, out, size);
    *value = bytes_of(out, size);
    return true;
}

static bool protobuf_value(kafka_record_buffer *buffer, const Ingest__V1__Event *event,
                           bytes *value) {
    size_t size = ingest__v1__event__get_packed_size(event);
    uint8_t *out = take(buffer, size);
    if (!out) return false;
    *value = bytes_of(out, ingest__v1__event__pack(event, out));
    return true;
}

/* An event that shares everything with a decoded one but holds one of its operations. */
typedef struct event_part {
    Ingest__V1__Event event;
    Ingest__V1__Transaction transaction;
} event_part;

static void part_of(event_part *part, const Ingest__V1__Event *whole, size_t index, size_t count) {
    part->transaction = *whole->transaction;
    part->transaction.operations = whole->transaction->operations + index;
    part->transaction.n_operations = count;
    part->event = *whole;
    part->event.transaction = &part->transaction;
}

/* ---- making records -------------------------------------------------------------------- */

typedef struct making {
    const event_record *record;
    const route_config *route;
    const catalogue *catalogue;
    kafka_record_buffer *buffer;
    const texts *shared;
    const Ingest__V1__Event *event; /* decoded; NULL when that is not needed */
} making;

static bool make_whole(const making *it, kafka_record *out) {
    *out = (kafka_record){.topic = it->route->topic, .key = it->record->key};
    add_headers(out, it->record, it->route, it->shared, it->record->id);
    if (it->route->format == FORMAT_JSON)
        return json_value(it->buffer, it->event, it->record->event.len * 2 + 64, &out->value);
    out->value = it->record->event;
    return true;
}

static const char *topic_of_operation(const making *it, size_t index) {
    const char *name = it->event->transaction->operations[index]->name;
    const catalogue_entry *entry = catalogue_find(it->catalogue, bytes_of_string(name));
    return entry && entry->topic ? entry->topic : it->route->topic;
}

static bool make_part(const making *it, size_t index, kafka_record *out) {
    bytes id = it->record->id;
    char *part_id = take(it->buffer, id.len + 1 + SEQUENCE_MAX_CHARS + 1);
    if (!part_id) return false;
    memcpy(part_id, id.data, id.len);
    part_id[id.len] = '/';
    char *number = part_id + id.len + 1;
    size_t number_len = write_decimal(index, number);

    *out = (kafka_record){.topic = topic_of_operation(it, index), .key = it->record->key};
    add_headers(out, it->record, it->route, it->shared, bytes_of(part_id, id.len + 1 + number_len));
    add_group_headers(out, it->record, it->shared, bytes_of(number, number_len));

    event_part part;
    part_of(&part, it->event, index, 1);
    if (it->route->format == FORMAT_JSON)
        return json_value(it->buffer, &part.event, 1024, &out->value);
    return protobuf_value(it->buffer, &part.event, &out->value);
}

static bool reserve_records(kafka_record_buffer *buffer, size_t count) {
    if (count <= buffer->record_capacity) return true;
    kafka_record *grown = realloc(buffer->records, count * sizeof *grown);
    if (!grown) return false;
    buffer->records = grown;
    buffer->record_capacity = count;
    return true;
}

static texts *write_texts(kafka_record_buffer *buffer, const event_record *record,
                          const uuid *store, size_t group_size) {
    texts *out = take(buffer, sizeof *out);
    if (!out) return NULL;
    rfc3339_write(record->time_seconds, record->time_nanos, RFC3339_SHORTEST, out->time);
    write_decimal(record->sequence, out->sequence);
    uuid_format(store, out->store);
    write_decimal(group_size, out->group_size);
    return out;
}

static outcome decode(const event_record *record, kafka_record_buffer *buffer,
                      const Ingest__V1__Event **out, failure *why) {
    ProtobufCAllocator allocator = {take_for_protobuf, leave_to_reset, buffer};
    const Ingest__V1__Event *event =
        ingest__v1__event__unpack(&allocator, record->event.len, record->event.data);
    if (buffer->exhausted) return fail(why, ST_NO_MEMORY, "", NO_MEMORY);
    if (!event)
        return fail(why, ST_CORRUPT, "", "the stored event %llu is not an ingest.v1.Event",
                    (unsigned long long)record->sequence);
    bool transaction = event->body_case == INGEST__V1__EVENT__BODY_TRANSACTION;
    if (record->transaction != transaction || (transaction && event->transaction == NULL) ||
        (transaction && event->transaction->n_operations == 0))
        return fail(why, ST_CORRUPT, "", "the stored event %llu has another body than its record",
                    (unsigned long long)record->sequence);
    *out = event;
    return ST_OK;
}

outcome kafka_record_make(const event_record *record, const route_config *route,
                          const catalogue *all, const uuid *store, kafka_record_buffer *buffer,
                          const kafka_record **records, size_t *count, failure *why) {
    reset(buffer);
    making it = {record, route, all, buffer, NULL, NULL};
    bool split = route->layout == LAYOUT_SPLIT && record->transaction;
    if (split || route->format == FORMAT_JSON) {
        outcome result = decode(record, buffer, &it.event, why);
        if (result != ST_OK) return result;
    }
    *count = split ? it.event->transaction->n_operations : 1;
    it.shared = write_texts(buffer, record, store, *count);
    bool made = it.shared && reserve_records(buffer, *count);
    if (split)
        for (size_t i = 0; i < *count && made; i++)
            made = make_part(&it, i, &buffer->records[i]);
    else
        made = made && make_whole(&it, &buffer->records[0]);
    if (!made) return fail(why, ST_NO_MEMORY, "", NO_MEMORY);
    *records = buffer->records;
    return ST_OK;
}

/* ---- the size at the door -------------------------------------------------------------- */

/* A varint of up to 2^35, and the fixed parts of record batch v2:
 * https://kafka.apache.org/documentation/#recordbatch */
#define VARINT_MAX 5
#define BATCH_HEADER 61
/* length, attributes, timestamp and offset delta, key and value length, header count */
#define RECORD_FRAME (VARINT_MAX + 1 + 2 * VARINT_MAX + 2 * VARINT_MAX + VARINT_MAX)

static size_t varint_size(size_t value) { /* zigzag: one bit goes to the sign */
    size_t size = 1;
    for (value = value * 2; value > 0x7f; value >>= 7)
        size++;
    return size;
}

static size_t headers_size(const kafka_record *record) {
    size_t size = 0;
    for (size_t i = 0; i < record->header_count; i++) {
        size_t name = strlen(record->headers[i].name), value = record->headers[i].value.len;
        size += varint_size(name) + name + varint_size(value) + value;
    }
    return size;
}

static size_t value_size(const Ingest__V1__Event *event, const route_config *route) {
    return route->format == FORMAT_JSON ? event_json_write(event, NULL, 0)
                                        : ingest__v1__event__get_packed_size(event);
}

/* At most: what the event is without operations, and its largest operation in an event of its own.
 * Both count the frame, so the sum is a little over; walking the shared part once for each
 * operation would be quadratic. */
static size_t largest_part_size(const Ingest__V1__Event *event, const route_config *route) {
    event_part part;
    part_of(&part, event, 0, 0);
    size_t shared = value_size(&part.event, route), largest = 0;

    Ingest__V1__Event bare = INGEST__V1__EVENT__INIT;
    bare.body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    bare.transaction = &part.transaction;
    for (size_t i = 0; i < event->transaction->n_operations; i++) {
        part_of(&part, event, i, 1);
        part.transaction.name = NULL;
        size_t size = value_size(&bare, route);
        if (size > largest) largest = size;
    }
    return shared + largest + 2 * VARINT_MAX;
}

size_t kafka_record_max_size(const event_record *record, const Ingest__V1__Event *decoded,
                             const route_config *route) {
    static const texts LONGEST = {
        "9999-12-31T23:59:59.999999999Z",
        "18446744073709551615",
        "00000000-0000-0000-0000-000000000000",
        "18446744073709551615",
    };
    bool split =
        route->layout == LAYOUT_SPLIT && decoded->body_case == INGEST__V1__EVENT__BODY_TRANSACTION;
    kafka_record frame = {0};
    add_headers(&frame, record, route, &LONGEST, record->id);
    size_t size = BATCH_HEADER + RECORD_FRAME + record->key.len;
    if (split) {
        add_group_headers(&frame, record, &LONGEST, bytes_of_string(LONGEST.group_size));
        size += 1 + SEQUENCE_MAX_CHARS + VARINT_MAX; /* "/index" behind ce_id */
        size += largest_part_size(decoded, route);
    } else {
        size += route->format == FORMAT_JSON ? value_size(decoded, route) : record->event.len;
    }
    return size + headers_size(&frame);
}
