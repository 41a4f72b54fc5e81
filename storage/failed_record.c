/*
 * Decoding fails with ST_CORRUPT and never reads past the value.
 *
 *   figures   0 version  1 crc32c  5 state, and FLAG_OPAQUE  6 effects_done  10 effects
 *             14 catalogue_crc  18 attempts  22 first_failed_ms  30 last_failed_ms
 *             38 next_attempt_ms  46 partition  50 offset  58 size of the event
 *             66 the lengths of the texts as varints, then the texts, in the order of list_texts
 *   event     0 version  1 crc32c  5 the event to the end
 *
 * The checksums cover the number and all bytes behind them, so a value under a wrong key is found
 * as well.
 */
#include "storage/failed_record.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"

/* To change the layout: write a new number here, and keep a decoder for every older one until no
 * store can hold such a record. The store's format (failed_store.c) rises with it. */
#define FORMAT_VERSION 1

enum {
    CRC_AT = 1,
    BODY_AT = 5,
    FIXED_SIZE = 66,
    TEXT_COUNT = 9,
    STATE_MASK = 0x03,
    FLAG_OPAQUE = 0x04,
};
_Static_assert(FIXED_SIZE + TEXT_COUNT * (VARINT_MAX_SIZE + FAILED_TEXT_MAX) <= FAILED_RECORD_MAX,
               "the longest figures fit");

static void list_texts(failed_record *record, bytes *texts[TEXT_COUNT]) {
    bytes *const all[TEXT_COUNT] = {&record->source, &record->id,        &record->type,
                                    &record->key,    &record->operation, &record->effect,
                                    &record->code,   &record->reason,    &record->topic};
    memcpy(texts, all, sizeof all);
}

static uint32_t checksum(uint64_t number, bytes body) {
    uint8_t salt[8];
    put_le64(salt, number);
    return crc32c_extend(crc32c_extend(0, salt, sizeof salt), body.data, body.len);
}

bytes failed_record_encode(const failed_record *record, uint64_t event_size,
                           uint8_t out[FAILED_RECORD_MAX]) {
    failed_record copy = *record;
    bytes *texts[TEXT_COUNT];
    list_texts(&copy, texts);
    uint8_t *at = out + BODY_AT;
    *at++ = (uint8_t)(record->state | (record->opaque ? FLAG_OPAQUE : 0));
    at = put_le32(at, record->effects_done);
    at = put_le32(at, record->effects);
    at = put_le32(at, record->catalogue_crc);
    at = put_le32(at, record->attempts);
    at = put_le64(at, (uint64_t)record->first_failed_ms);
    at = put_le64(at, (uint64_t)record->last_failed_ms);
    at = put_le64(at, (uint64_t)record->next_attempt_ms);
    at = put_le32(at, (uint32_t)record->partition);
    at = put_le64(at, (uint64_t)record->offset);
    at = put_le64(at, event_size);
    for (int i = 0; i < TEXT_COUNT; i++) {
        if (texts[i]->len > FAILED_TEXT_MAX) texts[i]->len = FAILED_TEXT_MAX;
        at = put_varint(at, texts[i]->len);
    }
    for (int i = 0; i < TEXT_COUNT; i++)
        at = put_bytes(at, *texts[i]);
    out[0] = FORMAT_VERSION;
    put_le32(out + CRC_AT,
             checksum(record->number, bytes_of(out + BODY_AT, (size_t)(at - out) - BODY_AT)));
    return bytes_of(out, (size_t)(at - out));
}

/* Gives the bytes behind the checksum. */
static outcome check(const char *what, uint64_t number, bytes value, bytes *body, failure *why) {
    unsigned long long shown = number;
    if (value.len < BODY_AT)
        return fail(why, ST_CORRUPT, what, "failed event %llu: its %s are %zu bytes, too few",
                    shown, what, value.len);
    if (value.data[0] != FORMAT_VERSION)
        return fail(why, ST_CORRUPT, what, "failed event %llu: its %s have the unknown version %u",
                    shown, what, value.data[0]);
    *body = bytes_of(value.data + BODY_AT, value.len - BODY_AT);
    if (get_le32(value.data + CRC_AT) != checksum(number, *body))
        return fail(why, ST_CORRUPT, what, "failed event %llu: its %s have a wrong checksum", shown,
                    what);
    return ST_OK;
}

outcome failed_record_decode(uint64_t number, bytes value, failed_record *record,
                             uint64_t *event_size, failure *why) {
    bytes body;
    outcome result = check("figures", number, value, &body, why);
    if (result != ST_OK) return result;
    decoder in = decoder_of(body);
    const uint8_t flags = take_u8(&in);
    *record = (failed_record){.number = number,
                              .state = (failed_state)(flags & STATE_MASK),
                              .opaque = flags & FLAG_OPAQUE};
    record->effects_done = take_le32(&in);
    record->effects = take_le32(&in);
    record->catalogue_crc = take_le32(&in);
    record->attempts = take_le32(&in);
    record->first_failed_ms = (int64_t)take_le64(&in);
    record->last_failed_ms = (int64_t)take_le64(&in);
    record->next_attempt_ms = (int64_t)take_le64(&in);
    record->partition = (int32_t)take_le32(&in);
    record->offset = (int64_t)take_le64(&in);
    *event_size = take_le64(&in);
    bytes *texts[TEXT_COUNT];
    uint64_t sizes[TEXT_COUNT];
    list_texts(record, texts);
    for (int i = 0; i < TEXT_COUNT; i++)
        sizes[i] = take_varint(&in);
    bool sound = record->state >= FAILED_WAITING && !(flags & ~(STATE_MASK | FLAG_OPAQUE));
    for (int i = 0; i < TEXT_COUNT; i++) {
        *texts[i] = take_bytes(&in, sizes[i]);
        sound = sound && sizes[i] <= FAILED_TEXT_MAX;
    }
    if (sound && in.ok && in.left == 0) return ST_OK;
    return fail(why, ST_CORRUPT, "figures", "failed event %llu: its figures are malformed",
                (unsigned long long)number);
}

void failed_event_encode(uint64_t number, bytes event, uint8_t head[FAILED_EVENT_HEAD]) {
    head[0] = FORMAT_VERSION;
    put_le32(head + CRC_AT, checksum(number, event));
}

outcome failed_event_decode(uint64_t number, bytes value, bytes *event, failure *why) {
    return check("bytes", number, value, event, why);
}
