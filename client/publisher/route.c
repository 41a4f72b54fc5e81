#include "client/publisher/route.h"

/* The finalizer of MurmurHash3: each bit of the input reaches each bit of the output. */
static uint64_t mix(uint64_t value) {
    value = (value ^ value >> 33) * UINT64_C(0xff51afd7ed558ccd);
    value = (value ^ value >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return value ^ value >> 33;
}

uint64_t route_hash(bytes text) {
    uint64_t value = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < text.len; i++)
        value = (value ^ text.data[i]) * UINT64_C(1099511628211);
    return mix(value);
}

static bool eligible(const route_facts *replica) {
    return replica->up || (replica->listed && !replica->gone);
}

static bool may_come_back(const route_facts *replica) { return replica->listed; }

static int heaviest(const route_facts *replicas, size_t count, uint64_t key,
                    bool (*admits)(const route_facts *)) {
    int best = ROUTE_NOWHERE;
    uint64_t most = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t weight = mix(key ^ replicas[i].hash);
        if (!admits(&replicas[i]) || (best != ROUTE_NOWHERE && weight <= most)) continue;
        best = (int)i;
        most = weight;
    }
    return best;
}

int route_choose(const route_facts *replicas, size_t count, uint64_t key, int bound) {
    if (bound != ROUTE_NOWHERE && !replicas[bound].gone) return bound;
    const int best = heaviest(replicas, count, key, eligible);
    return best != ROUTE_NOWHERE ? best : heaviest(replicas, count, key, may_come_back);
}
