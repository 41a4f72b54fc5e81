/*
 * CRC32C by the instruction that x86-64 (SSE4.2) has for it, and otherwise by a table of 256
 * entries, built on first use. Pure; any thread; cannot fail.
 */
#include "storage/crc32c.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL_REVERSED 0x82f63b78u

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void build_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL_REVERSED : 0);
        table[i] = crc;
    }
}

uint32_t crc32c_extend_portable(uint32_t crc, const void *data, size_t len) {
    const uint8_t *at = data;
    (void)pthread_once(&table_once, build_table);
    crc = ~crc;
    while (len--)
        crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t extend_sse42(uint32_t crc, const uint8_t *at,
                                                               size_t len) {
    uint64_t wide = (uint32_t)~crc;
    for (; len >= 8; len -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        wide = _mm_crc32_u64(wide, word);
    }
    uint32_t narrow = (uint32_t)wide;
    while (len--)
        narrow = _mm_crc32_u8(narrow, *at++);
    return ~narrow;
}

uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len) {
    if (__builtin_cpu_supports("sse4.2")) return extend_sse42(crc, data, len);
    return crc32c_extend_portable(crc, data, len);
}
#else
uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len) {
    return crc32c_extend_portable(crc, data, len);
}
#endif
