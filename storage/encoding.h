/*
 * encoding: numbers to and from bytes. Big-endian in keys, because RocksDB orders keys as bytes;
 * little-endian or varint in values, and on the control socket of the consumer.
 */
#ifndef INGEST_STORAGE_ENCODING_H
#define INGEST_STORAGE_ENCODING_H

#include "storage/bytes.h"

#define VARINT_MAX_SIZE 10

static inline uint8_t *put_le32(uint8_t *out, uint32_t value) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
    return out + 4;
}

static inline uint8_t *put_le64(uint8_t *out, uint64_t value) {
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (8 * i));
    return out + 8;
}

static inline uint8_t *put_be64(uint8_t *out, uint64_t value) {
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (56 - 8 * i));
    return out + 8;
}

static inline uint32_t get_le32(const uint8_t *in) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
        value |= (uint32_t)in[i] << (8 * i);
    return value;
}

static inline uint64_t get_le64(const uint8_t *in) {
    return (uint64_t)get_le32(in) | (uint64_t)get_le32(in + 4) << 32;
}

static inline uint64_t get_be64(const uint8_t *in) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | in[i];
    return value;
}

static inline size_t varint_size(uint64_t value) {
    size_t size = 1;
    for (; value >= 0x80; value >>= 7)
        size++;
    return size;
}

static inline uint8_t *put_varint(uint8_t *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

static inline uint8_t *put_bytes(uint8_t *out, bytes run) {
    if (run.len) memcpy(out, run.data, run.len);
    return out + run.len;
}

/*
 * Reads values in order. A read past the end clears `ok` and gives zeros from then on, so that a
 * decoder reads all its fields and checks once.
 */
typedef struct decoder {
    const uint8_t *at;
    size_t left;
    bool ok;
} decoder;

static inline decoder decoder_of(bytes run) {
    return (decoder){.at = run.data, .left = run.len, .ok = true};
}

static inline bytes take_bytes(decoder *in, uint64_t len) {
    if (!in->ok || len > in->left) {
        in->ok = false;
        return bytes_of(NULL, 0);
    }
    bytes run = bytes_of(in->at, (size_t)len);
    in->at += len;
    in->left -= (size_t)len;
    return run;
}

static inline uint8_t take_u8(decoder *in) {
    bytes run = take_bytes(in, 1);
    return run.len ? run.data[0] : 0;
}

static inline uint32_t take_le32(decoder *in) {
    bytes run = take_bytes(in, 4);
    return run.len ? get_le32(run.data) : 0;
}

static inline uint64_t take_le64(decoder *in) {
    bytes run = take_bytes(in, 8);
    return run.len ? get_le64(run.data) : 0;
}

static inline uint64_t take_varint(decoder *in) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t octet = take_u8(in);
        value |= (uint64_t)(octet & 0x7f) << shift;
        if (!(octet & 0x80)) return value;
    }
    in->ok = false;
    return 0;
}

#endif
