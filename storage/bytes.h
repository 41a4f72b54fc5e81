/*
 * bytes: a borrowed run of bytes. Never owns, never NUL-terminated; valid as long as its source.
 */
#ifndef INGEST_STORAGE_BYTES_H
#define INGEST_STORAGE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct bytes {
    const uint8_t *data;
    size_t len;
} bytes;

static inline bytes bytes_of(const void *data, size_t len) {
    return (bytes){.data = data, .len = len};
}

/* Of a C string, without its NUL; NULL counts as empty. */
static inline bytes bytes_of_string(const char *text) {
    return (bytes){.data = (const uint8_t *)text, .len = text ? strlen(text) : 0};
}

static inline bool bytes_equal(bytes a, bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

#endif
