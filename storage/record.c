/*
 * The bytes of an outbox record. Pure; any thread; decoding fails with ST_CORRUPT and never reads
 * past the value.
 *
 *   0 version  1 crc32c  5 flags  6 cumulative_bytes  14 accepted_ms  22 time_seconds
 *   30 time_nanos  34 operations  38 (events only) the lengths of id, source, key, type,
 *   traceparent and tracestate as varints, their bytes in that order, then the event to the end
 *
 * The checksum covers the sequence number and all bytes behind it, so a record under a wrong key
 * is found as well. What the committer sets has a fixed width: the size is known before.
 */
#include "storage/record.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"

/* To change the layout: write a new number here, and keep a decoder for every older one until no
 * store can hold such a record. A store's format (store_meta.h) rises with it, so that an older
 * program refuses the store instead of a record. */
#define FORMAT_VERSION 1

enum {
    CRC_AT = 1,
    FLAGS_AT = 5,
    FIXED_SIZE = 38,
    FIELD_COUNT = 6,
    FLAG_KIND_MASK = 0x03,
    FLAG_TRANSACTION = 0x04,
};

static void list_fields(const event_record *record, bytes fields[FIELD_COUNT]) {
    fields[0] = record->id;
    fields[1] = record->source;
    fields[2] = record->key;
    fields[3] = record->type;
    fields[4] = record->traceparent;
    fields[5] = record->tracestate;
}

static uint32_t checksum(uint64_t sequence, const uint8_t *value, size_t len) {
    uint8_t salt[8];
    put_le64(salt, sequence);
    return crc32c_extend(crc32c_extend(0, salt, sizeof salt), value + FLAGS_AT, len - FLAGS_AT);
}

size_t record_encoded_size(const event_record *record) {
    if (record->kind != RECORD_EVENT) return FIXED_SIZE;
    bytes fields[FIELD_COUNT];
    list_fields(record, fields);
    size_t size = FIXED_SIZE + record->event.len;
    for (int i = 0; i < FIELD_COUNT; i++)
        size += varint_size(fields[i].len) + fields[i].len;
    return size;
}

void record_encode(const event_record *record, uint8_t *out) {
    uint8_t *at = out + FLAGS_AT;
    *at++ = (uint8_t)(record->kind | (record->transaction ? FLAG_TRANSACTION : 0));
    at = put_le64(at, record->cumulative_bytes);
    at = put_le64(at, (uint64_t)record->accepted_ms);
    at = put_le64(at, (uint64_t)record->time_seconds);
    at = put_le32(at, (uint32_t)record->time_nanos);
    at = put_le32(at, record->operations);
    if (record->kind == RECORD_EVENT) {
        bytes fields[FIELD_COUNT];
        list_fields(record, fields);
        for (int i = 0; i < FIELD_COUNT; i++)
            at = put_varint(at, fields[i].len);
        for (int i = 0; i < FIELD_COUNT; i++)
            at = put_bytes(at, fields[i]);
        at = put_bytes(at, record->event);
    }
    out[0] = FORMAT_VERSION;
    put_le32(out + CRC_AT, checksum(record->sequence, out, (size_t)(at - out)));
}

static bool decode_fields(decoder *in, event_record *record) {
    bytes *const fields[FIELD_COUNT] = {&record->id,   &record->source,      &record->key,
                                        &record->type, &record->traceparent, &record->tracestate};
    uint64_t sizes[FIELD_COUNT];
    for (int i = 0; i < FIELD_COUNT; i++)
        sizes[i] = take_varint(in);
    for (int i = 0; i < FIELD_COUNT; i++)
        *fields[i] = take_bytes(in, sizes[i]);
    record->event = take_bytes(in, in->left);
    return in->ok;
}

outcome record_decode(uint64_t sequence, bytes value, event_record *record, failure *why) {
    unsigned long long number = sequence;
    if (value.len < FIXED_SIZE)
        return fail(why, ST_CORRUPT, "record", "record %llu: %zu bytes are too few", number,
                    value.len);
    if (value.data[0] != FORMAT_VERSION)
        return fail(why, ST_CORRUPT, "record", "record %llu: unknown format version %u", number,
                    value.data[0]);
    if (get_le32(value.data + CRC_AT) != checksum(sequence, value.data, value.len))
        return fail(why, ST_CORRUPT, "record", "record %llu: checksum mismatch", number);

    decoder in = decoder_of(bytes_of(value.data + FLAGS_AT, value.len - FLAGS_AT));
    uint8_t flags = take_u8(&in);
    *record = (event_record){.kind = (record_kind)(flags & FLAG_KIND_MASK), .sequence = sequence};
    record->transaction = flags & FLAG_TRANSACTION;
    record->cumulative_bytes = take_le64(&in);
    record->accepted_ms = (int64_t)take_le64(&in);
    record->time_seconds = (int64_t)take_le64(&in);
    record->time_nanos = (int32_t)take_le32(&in);
    record->operations = take_le32(&in);
    bool tombstone = record->kind == RECORD_MOVED || record->kind == RECORD_LOST;
    bool sound =
        record->kind == RECORD_EVENT ? decode_fields(&in, record) : tombstone && in.left == 0;
    if (!sound) return fail(why, ST_CORRUPT, "record", "record %llu: malformed", number);
    return ST_OK;
}
