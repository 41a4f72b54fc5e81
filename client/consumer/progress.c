#include "client/consumer/progress.h"

#include <assert.h>
#include <stdio.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* ---- varints ------------------------------------------------------------------------------- */

size_t progress_varint_size(uint64_t value) {
    size_t size = 1;
    while ((value >>= 7) > 0)
        size++;
    return size;
}

static size_t put_varint(uint8_t *out, uint64_t value) {
    size_t size = 0;
    for (; value > 0x7f; value >>= 7)
        out[size++] = (uint8_t)(value | 0x80);
    out[size++] = (uint8_t)value;
    return size;
}

/* Takes one off the front; false: there is none that is whole. */
static bool take_varint(bytes *from, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64 && from->len > 0; shift += 7) {
        const uint8_t byte = *from->data;
        *from = bytes_of(from->data + 1, from->len - 1);
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool take_run(bytes *from, uint32_t *state, uint64_t *length) {
    uint64_t wide;
    if (!take_varint(from, &wide) || wide > UINT32_MAX || !take_varint(from, length)) return false;
    *state = (uint32_t)wide;
    return *length > 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

void progress_begin(progress_writer *it) {
    it->len = 0;
    it->state = PROGRESS_NOT_BEGUN;
    it->length = 0;
    it->full = false;
}

static void put_run(progress_writer *it) {
    if (it->length == 0) return;
    const size_t needed = progress_varint_size(it->state) + progress_varint_size(it->length);
    if (it->full || it->len + needed > sizeof it->encoded) {
        it->full = true;
        return;
    }
    it->len += put_varint(it->encoded + it->len, it->state);
    it->len += put_varint(it->encoded + it->len, it->length);
}

void progress_add(progress_writer *it, uint32_t state, uint64_t length) {
    if (state == it->state) {
        it->length += length;
        return;
    }
    put_run(it);
    it->state = state;
    it->length = length;
}

static size_t put_base64(char *out, const uint8_t *data, size_t len) {
    size_t size = 0;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t bits = (uint32_t)data[i] << 16;
        const size_t left = len - i;
        if (left > 1) bits |= (uint32_t)data[i + 1] << 8;
        if (left > 2) bits |= data[i + 2];
        out[size++] = ALPHABET[bits >> 18];
        out[size++] = ALPHABET[bits >> 12 & 63];
        if (left > 1) out[size++] = ALPHABET[bits >> 6 & 63];
        if (left > 2) out[size++] = ALPHABET[bits & 63];
    }
    return size;
}

size_t progress_end(progress_writer *it, uint32_t crc, const moves *moved,
                    char text[PROGRESS_TEXT_MAX + 1]) {
    uint8_t encoded[MOVES_BYTES_MAX];
    if (it->state != PROGRESS_NOT_BEGUN) put_run(it);
    it->length = 0;
    assert(!it->full);
    size_t size = (size_t)snprintf(text, PROGRESS_TEXT_MAX + 1, "1.%08x.", crc);
    size += put_base64(text + size, it->encoded, it->len);
    const size_t len = moves_encode(moved, encoded);
    if (len > 0) {
        text[size++] = '.';
        size += put_base64(text + size, encoded, len);
    }
    text[size] = '\0';
    return size;
}

/* ---- reading ------------------------------------------------------------------------------- */

static int digit_of(const char *alphabet, size_t count, uint8_t c) {
    const char *at = memchr(alphabet, c, count);
    return at ? (int)(at - alphabet) : -1;
}

static bool take_crc(const uint8_t *text, uint32_t *crc) {
    *crc = 0;
    for (size_t i = 0; i < 8; i++) {
        const int digit = digit_of("0123456789abcdef", 16, text[i]);
        if (digit < 0) return false;
        *crc = *crc << 4 | (uint32_t)digit;
    }
    return true;
}

static bool take_base64(bytes text, uint8_t *out, size_t room, size_t *len) {
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < text.len; i++) {
        const int digit = digit_of(ALPHABET, 64, text.data[i]);
        if (digit < 0) return false;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have < 8) continue;
        have -= 8;
        if (*len == room) return false;
        out[(*len)++] = (uint8_t)(bits >> have);
    }
    return have < 6 && (bits & ((1U << have) - 1)) == 0;
}

static bool runs_are_sound(const progress *it) {
    bytes rest = bytes_of(it->encoded, it->len);
    uint32_t state;
    uint64_t length, sum = 0;
    while (rest.len > 0) {
        if (!take_run(&rest, &state, &length) || length > INT64_MAX - sum) return false;
        sum += length;
    }
    return true;
}

/* Behind the head. */
static bool take_parts(bytes text, progress *out) {
    uint8_t moved[MOVES_BYTES_MAX];
    size_t moved_len = 0;
    const uint8_t *point = text.len ? memchr(text.data, '.', text.len) : NULL;
    const bytes runs = bytes_of(text.data, point ? (size_t)(point - text.data) : text.len);
    if (!take_base64(runs, out->encoded, sizeof out->encoded, &out->len)) return false;
    const size_t used = runs.len + (point ? 1 : 0);
    return take_base64(bytes_of(text.data + used, text.len - used), moved, sizeof moved,
                       &moved_len) &&
           (moved_len > 0) == (point != NULL) &&
           moves_decode(&out->moves, bytes_of(moved, moved_len)) && runs_are_sound(out);
}

outcome progress_parse(bytes text, progress *out, failure *why) {
    enum { HEAD = PROGRESS_HEAD_CHARS };
    out->ours = false;
    out->len = 0;
    out->crc = 0;
    out->moves = (moves){0};
    if (text.len == 0) return ST_OK;
    if (text.len > 1 && text.data[1] == '.' && text.data[0] > '1' && text.data[0] <= '9')
        return fail(why, ST_UNIMPLEMENTED, "metadata",
                    "the group's progress was written by a later version of this library");
    out->ours = text.len >= HEAD && memcmp(text.data, "1.", 2) == 0 && text.data[10] == '.' &&
                take_crc(text.data + 2, &out->crc) &&
                take_parts(bytes_of(text.data + HEAD, text.len - HEAD), out);
    if (out->ours) return ST_OK;
    out->len = 0;
    out->moves = (moves){0};
    return fail(why, ST_INVALID, "metadata",
                "is not this library's: another program commits to the group");
}

uint32_t progress_state(const progress *it, uint64_t distance) {
    bytes rest = bytes_of(it->encoded, it->len);
    uint32_t state;
    uint64_t length;
    while (take_run(&rest, &state, &length)) {
        if (distance < length) return state;
        distance -= length;
    }
    return PROGRESS_NOT_BEGUN;
}
