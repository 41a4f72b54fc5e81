/* latency: a histogram of durations whose buckets are 1.6% wide. Zero-initialise; one thread. */
#ifndef INGEST_CLIENT_INGESTCTL_LATENCY_H
#define INGEST_CLIENT_INGESTCTL_LATENCY_H

#include <stdint.h>

enum {
    LATENCY_SUB_BITS = 6,
    LATENCY_SUBS = 1 << LATENCY_SUB_BITS,
    LATENCY_BUCKETS = 40 * LATENCY_SUBS
};

typedef struct latency {
    uint64_t count, max_us;
    uint64_t buckets[LATENCY_BUCKETS];
} latency;

void latency_add(latency *it, uint64_t us, uint64_t times);
/* The upper end of the bucket in which the quantile lies, 0 <= q <= 1; 0 when there is none. */
uint64_t latency_quantile_us(const latency *it, double q);

/* How many were below a power of two, as far as the buckets tell it apart: 1 and more. */
uint64_t latency_below(const latency *it, uint64_t us);

#endif
