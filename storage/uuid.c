/*
 * UUIDs of version 4 and 7. Random bits come from getrandom; version 7 draws them from a small
 * pool per thread, so that most calls make no system call. Cannot fail: a kernel without
 * getrandom ends the process, because a store id that repeats would be worse.
 */
#include "storage/uuid.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void fill_random(uint8_t *out, size_t len) {
    /* Up to 256 bytes come whole and are not interrupted, once the kernel's pool is ready. */
    if (getrandom(out, len, 0) != (ssize_t)len) abort();
}

static void set_version(uuid *id, uint8_t version) {
    id->octets[6] = (uint8_t)((id->octets[6] & 0x0f) | version << 4);
    id->octets[8] = (uint8_t)((id->octets[8] & 0x3f) | 0x80);
}

uuid uuid_random(void) {
    uuid id;
    fill_random(id.octets, sizeof id.octets);
    set_version(&id, 4);
    return id;
}

uuid uuid_time_ordered(int64_t wall_ms) {
    static _Thread_local uint8_t pool[250];
    static _Thread_local size_t pool_left;
    enum { RANDOM_SIZE = 10 };
    if (pool_left < RANDOM_SIZE) {
        fill_random(pool, sizeof pool);
        pool_left = sizeof pool;
    }
    pool_left -= RANDOM_SIZE;
    uuid id;
    for (int i = 0; i < 6; i++)
        id.octets[i] = (uint8_t)((uint64_t)wall_ms >> (40 - 8 * i));
    memcpy(id.octets + 6, pool + pool_left, RANDOM_SIZE);
    set_version(&id, 7);
    return id;
}

void uuid_format(const uuid *id, char text[UUID_TEXT_SIZE]) {
    static const char DIGITS[] = "0123456789abcdef";
    char *out = text;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *out++ = '-';
        *out++ = DIGITS[id->octets[i] >> 4];
        *out++ = DIGITS[id->octets[i] & 0x0f];
    }
    *out = '\0';
}

static int digit_value(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

bool uuid_parse(const char *text, uuid *id) {
    uuid parsed;
    for (int i = 0; i < 16; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-') return false;
        int high = digit_value(text[0]);
        int low = high < 0 ? -1 : digit_value(text[1]);
        if (low < 0) return false;
        parsed.octets[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (*text) return false;
    *id = parsed;
    return true;
}

bool uuid_equal(const uuid *a, const uuid *b) {
    return memcmp(a->octets, b->octets, sizeof a->octets) == 0;
}
