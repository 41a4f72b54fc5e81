/* Decoding fails as the header says and never reads past the frame. */
#include "client/consumer/control_wire.h"

#include <stdlib.h>

#include "storage/encoding.h"
#include "storage/failed_record.h"

enum { FLAG_EVENTS = 1, FLAG_FIRST_TEXT = 2, TEXT_COUNT = 3 };

static const char *const TEXT_NAMES[TEXT_COUNT] = {"event_id", "operation", "code"};

static void list_texts(failed_query *query, bytes *texts[TEXT_COUNT]) {
    texts[0] = &query->id;
    texts[1] = &query->operation;
    texts[2] = &query->code;
}

/* The frame's beginning, with the length of what ends at `end`. */
static void put_head(uint8_t *frame, const uint8_t *end, control_kind kind) {
    put_le32(frame, (uint32_t)(end - frame) - CONTROL_LENGTH_SIZE);
    frame[CONTROL_LENGTH_SIZE] = CONTROL_VERSION;
    frame[CONTROL_LENGTH_SIZE + 1] = (uint8_t)kind;
}

static outcome take_head(decoder *in, control_kind *kind, failure *why) {
    const uint8_t version = take_u8(in);
    *kind = (control_kind)take_u8(in);
    if (!in->ok) return fail(why, ST_INVALID, "frame", "a frame is cut short");
    if (version == CONTROL_VERSION) return ST_OK;
    return fail(why, ST_UNIMPLEMENTED, "version",
                "the other end of the control socket speaks version %u, this one %d: use the "
                "consumer's own version of the tool",
                version, CONTROL_VERSION);
}

outcome control_get_length(const uint8_t head[CONTROL_LENGTH_SIZE], uint32_t most, uint32_t *length,
                           failure *why) {
    *length = get_le32(head);
    if (*length >= CONTROL_HEAD_SIZE - CONTROL_LENGTH_SIZE && *length <= most) return ST_OK;
    return fail(why, ST_INVALID, "frame", "a frame of %u bytes, which may have 2 to %u", *length,
                most);
}

/* ---- requests ------------------------------------------------------------------------------- */

size_t control_put_request(control_kind kind, const failed_query *query,
                           uint8_t out[CONTROL_LENGTH_SIZE + CONTROL_REQUEST_MAX], failure *why) {
    failed_query copy = *query;
    bytes *texts[TEXT_COUNT];
    list_texts(&copy, texts);
    uint8_t flags = query->with_events ? FLAG_EVENTS : 0;
    for (int i = 0; i < TEXT_COUNT; i++) {
        if (texts[i]->data) flags |= (uint8_t)(FLAG_FIRST_TEXT << i);
        if (texts[i]->len <= FAILED_TEXT_MAX) continue;
        (void)fail(why, ST_INVALID, TEXT_NAMES[i], "%s has %zu bytes, and at most %d are compared",
                   TEXT_NAMES[i], texts[i]->len, FAILED_TEXT_MAX);
        return 0;
    }
    uint8_t *at = out + CONTROL_HEAD_SIZE;
    at = put_le64(at, query->after);
    at = put_le64(at, query->limit);
    at = put_le64(at, query->number);
    *at++ = flags;
    for (int i = 0; i < TEXT_COUNT; i++)
        at = put_bytes(put_varint(at, texts[i]->len), *texts[i]);
    put_head(out, at, kind);
    return (size_t)(at - out);
}

outcome control_get_request(bytes frame, control_kind *kind, failed_query *query, failure *why) {
    decoder in = decoder_of(frame);
    outcome result = take_head(&in, kind, why);
    if (result != ST_OK) return result;
    *query = (failed_query){.after = take_le64(&in)};
    query->limit = take_le64(&in);
    query->number = take_le64(&in);
    const uint8_t flags = take_u8(&in);
    query->with_events = flags & FLAG_EVENTS;
    bytes *texts[TEXT_COUNT];
    list_texts(query, texts);
    for (int i = 0; i < TEXT_COUNT; i++) {
        bytes text = take_bytes(&in, take_varint(&in));
        if (flags & FLAG_FIRST_TEXT << i) *texts[i] = text;
    }
    if (!in.ok || in.left > 0) return fail(why, ST_INVALID, "frame", "a request is malformed");
    if (*kind >= CONTROL_LIST && *kind <= CONTROL_DISCARD) return ST_OK;
    return fail(why, ST_INVALID, "kind", "there is no request of kind %u", (unsigned)*kind);
}

/* ---- replies -------------------------------------------------------------------------------- */

/* Room for `more` bytes behind what is there; NULL: no memory. */
static uint8_t *make_room(control_buffer *out, size_t more) {
    if (out->size - out->len < more) {
        size_t size = 2 * out->size > out->len + more ? 2 * out->size : out->len + more;
        uint8_t *data = realloc(out->data, size);
        if (!data) return NULL;
        out->data = data;
        out->size = size;
    }
    return out->data + out->len;
}

static bool end_frame(control_buffer *out, const uint8_t *end, control_kind kind) {
    put_head(out->data + out->len, end, kind);
    out->len = (size_t)(end - out->data);
    return true;
}

enum { RECORD_FIXED = CONTROL_HEAD_SIZE + 8 + VARINT_MAX_SIZE + FAILED_RECORD_MAX };

bool control_record_fits(const failed_record *record) {
    return record->event.len <= CONTROL_REPLY_MAX - RECORD_FIXED;
}

bool control_put_record(control_buffer *out, const failed_record *record) {
    uint8_t figures[FAILED_RECORD_MAX];
    uint8_t *at = make_room(out, RECORD_FIXED + record->event.len);
    if (!at) return false;
    bytes encoded = failed_record_encode(record, record->event.len, figures);
    at = put_le64(at + CONTROL_HEAD_SIZE, record->number);
    at = put_bytes(put_varint(at, encoded.len), encoded);
    return end_frame(out, put_bytes(at, record->event), CONTROL_RECORD);
}

bool control_put_done(control_buffer *out, const failed_page *page) {
    uint8_t *at = make_room(out, CONTROL_HEAD_SIZE + 8 + 8 + 1);
    if (!at) return false;
    at = put_le64(at + CONTROL_HEAD_SIZE, page->last);
    at = put_le64(at, page->count);
    *at++ = page->more;
    return end_frame(out, at, CONTROL_DONE);
}

bool control_put_failed(control_buffer *out, uint64_t count, const failure *why) {
    bytes field = bytes_of_string(why->field);
    bytes reason = bytes_of_string(why->reason);
    uint8_t *at = make_room(out, CONTROL_HEAD_SIZE + 8 + 1 + VARINT_MAX_SIZE + sizeof *why);
    if (!at) return false;
    at = put_le64(at + CONTROL_HEAD_SIZE, count);
    *at++ = (uint8_t)outcome_grpc_code(why->code);
    at = put_bytes(put_varint(at, field.len), field);
    return end_frame(out, put_bytes(at, reason), CONTROL_FAILED);
}

static outcome get_record(decoder *in, control_reply *reply, failure *why) {
    const uint64_t number = take_le64(in);
    bytes figures = take_bytes(in, take_varint(in));
    bytes event = take_bytes(in, in->left);
    uint64_t event_size;
    if (!in->ok) return fail(why, ST_INVALID, "frame", "a record on the socket is cut short");
    outcome result = failed_record_decode(number, figures, &reply->record, &event_size, why);
    reply->record.event = event;
    return result;
}

outcome control_get_reply(bytes frame, control_reply *reply, failure *why) {
    decoder in = decoder_of(frame);
    *reply = (control_reply){0};
    outcome result = take_head(&in, &reply->kind, why);
    if (result != ST_OK) return result;
    switch (reply->kind) {
    case CONTROL_RECORD:
        return get_record(&in, reply, why);
    case CONTROL_DONE:
        reply->page.last = take_le64(&in);
        reply->page.count = take_le64(&in);
        reply->page.more = take_u8(&in) != 0;
        break;
    case CONTROL_FAILED:
        reply->page.count = take_le64(&in);
        reply->grpc_code = take_u8(&in);
        reply->field = take_bytes(&in, take_varint(&in));
        reply->reason = take_bytes(&in, in.left);
        break;
    default:
        return fail(why, ST_INVALID, "kind", "there is no reply of kind %u", (unsigned)reply->kind);
    }
    if (in.ok && in.left == 0) return ST_OK;
    return fail(why, ST_INVALID, "frame", "a reply is malformed");
}
