/* Powers of two, each in 64 equal parts; below 128 us each microsecond is a bucket. */
#include "client/ingestctl/latency.h"

#include <stddef.h>

static size_t bucket_of(uint64_t us) {
    const int shift = 63 - __builtin_clzll(us | LATENCY_SUBS) - LATENCY_SUB_BITS;
    const size_t bucket = ((size_t)shift << LATENCY_SUB_BITS) + (size_t)(us >> shift);
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

void latency_add(latency *it, uint64_t us, uint64_t times) {
    it->buckets[bucket_of(us)] += times;
    it->count += times;
    if (us > it->max_us) it->max_us = us;
}

static uint64_t end_of(size_t bucket) {
    if (bucket < 2 * LATENCY_SUBS) return bucket;
    const size_t shift = (bucket >> LATENCY_SUB_BITS) - 1;
    return (((bucket & (LATENCY_SUBS - 1)) + LATENCY_SUBS + 1) << shift) - 1;
}

uint64_t latency_quantile_us(const latency *it, double q) {
    const uint64_t rank = (uint64_t)(q * (double)it->count);
    uint64_t seen = 0;
    for (size_t i = 0; i < LATENCY_BUCKETS && it->count; i++) {
        seen += it->buckets[i];
        if (seen > rank || seen == it->count)
            return end_of(i) < it->max_us ? end_of(i) : it->max_us;
    }
    return 0;
}

uint64_t latency_below(const latency *it, uint64_t us) {
    uint64_t seen = 0;
    for (size_t i = 0; us > 0 && i < bucket_of(us); i++)
        seen += it->buckets[i];
    return seen;
}
