/* One table: gRPC code -> verdict. A code that the server never gives stands for a proxy's. */
#include "client/publisher/retry.h"

#include <string.h>

enum { CODES = 17 };

static const verdict VERDICTS[CODES] = {
    [0] = {INGEST_TIMEOUT, true, STORED_MAYBE},    /* OK: a stream ended early, politely */
    [1] = {INGEST_TIMEOUT, true, STORED_MAYBE},    /* CANCELLED */
    [2] = {INGEST_FAILED, false, STORED_MAYBE},    /* UNKNOWN */
    [3] = {INGEST_INVALID, false, STORED_NO},      /* INVALID_ARGUMENT */
    [4] = {INGEST_TIMEOUT, true, STORED_MAYBE},    /* DEADLINE_EXCEEDED */
    [5] = {INGEST_INVALID, false, STORED_NO},      /* NOT_FOUND */
    [6] = {INGEST_CONFLICT, false, STORED_NO},     /* ALREADY_EXISTS */
    [7] = {INGEST_DENIED, false, STORED_NO},       /* PERMISSION_DENIED */
    [8] = {INGEST_TIMEOUT, true, STORED_NO},       /* RESOURCE_EXHAUSTED */
    [9] = {INGEST_INVALID, false, STORED_NO},      /* FAILED_PRECONDITION; see DEAD_LETTER */
    [10] = {INGEST_TIMEOUT, true, STORED_NO},      /* ABORTED */
    [11] = {INGEST_INVALID, false, STORED_NO},     /* OUT_OF_RANGE */
    [12] = {INGEST_UNSUPPORTED, false, STORED_NO}, /* UNIMPLEMENTED */
    [13] = {INGEST_FAILED, false, STORED_MAYBE},   /* INTERNAL */
    [14] = {INGEST_TIMEOUT, true, STORED_MAYBE},   /* UNAVAILABLE */
    [15] = {INGEST_FAILED, false, STORED_MAYBE},   /* DATA_LOSS */
    [16] = {INGEST_DENIED, false, STORED_NO},      /* UNAUTHENTICATED */
};

verdict retry_judge(const refusal *why) {
    if (why->code < 0 || why->code >= CODES) return VERDICTS[2];
    if (strcmp(why->reason, "DEAD_LETTER") == 0) return (verdict){INGEST_DEAD, false, STORED_YES};
    return VERDICTS[why->code];
}

static uint32_t random_below(backoff *it, uint32_t bound) {
    it->random ^= it->random << 13; /* xorshift64 */
    it->random ^= it->random >> 7;
    it->random ^= it->random << 17;
    return (uint32_t)(it->random % bound);
}

uint32_t backoff_pause_ms(backoff *it, uint32_t failures, uint32_t told_ms) {
    const uint32_t doublings = failures > 1 ? (failures < 20 ? failures - 1 : 19) : 0;
    uint64_t full = (uint64_t)it->first_ms << doublings;
    if (full > it->last_ms) full = it->last_ms;
    const uint32_t pause = (uint32_t)full - random_below(it, (uint32_t)full / 2 + 1);
    if (told_ms == 0 || told_ms < pause) return pause;
    return told_ms + random_below(it, told_ms / 4 + 1);
}
