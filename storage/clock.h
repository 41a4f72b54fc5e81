/* The two clocks. Wall time is for people and records, monotonic time for waiting and measuring. */
#ifndef INGEST_STORAGE_CLOCK_H
#define INGEST_STORAGE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_wall_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline int64_t clock_monotonic_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline int64_t clock_monotonic_ms(void) { return clock_monotonic_us() / 1000; }

#endif
