#include "client/consumer/retries.h"

#include <stdlib.h>
#include <string.h>

static const ingest_retry_policy USUAL = {
    .attempts = 10, .backoff_ms = 500, .backoff_last_ms = 60000};

static void free_codes(const char *const *codes) {
    for (size_t i = 0; codes && codes[i]; i++)
        free((char *)(uintptr_t)codes[i]);
    free((void *)(uintptr_t)codes);
}

static const char *const *copy_codes(const char *const *codes) {
    size_t count = 0;
    while (codes[count])
        count++;
    char **copy = calloc(count + 1, sizeof(*copy));
    for (size_t i = 0; copy && i < count; i++)
        if (!(copy[i] = strdup(codes[i]))) {
            free_codes((const char *const *)copy);
            return NULL;
        }
    return (const char *const *)copy;
}

bool retries_init(retries *it, const ingest_retry_policy *policies, size_t count) {
    *it = (retries){0};
    if (count == 0) return true;
    if (!(it->policies = calloc(count, sizeof *it->policies))) return false;
    for (; it->count < count; it->count++) {
        const ingest_retry_policy *from = &policies[it->count];
        ingest_retry_policy *to = &it->policies[it->count];
        *to = *from;
        to->operation = from->operation ? strdup(from->operation) : NULL;
        to->final_codes = from->final_codes ? copy_codes(from->final_codes) : NULL;
        if (!to->attempts) to->attempts = USUAL.attempts;
        if (!to->backoff_ms) to->backoff_ms = USUAL.backoff_ms;
        if (!to->backoff_last_ms) to->backoff_last_ms = USUAL.backoff_last_ms;
        if ((from->operation && !to->operation) || (from->final_codes && !to->final_codes)) {
            it->count++;
            retries_free(it);
            return false;
        }
    }
    return true;
}

void retries_free(retries *it) {
    for (size_t i = 0; i < it->count; i++) {
        free((char *)(uintptr_t)it->policies[i].operation);
        free_codes(it->policies[i].final_codes);
    }
    free(it->policies);
    *it = (retries){0};
}

static const ingest_retry_policy *policy_of(const retries *it, const char *operation) {
    const ingest_retry_policy *found = &USUAL;
    for (size_t i = 0; i < it->count; i++) {
        const ingest_retry_policy *one = &it->policies[i];
        if (one->operation && strcmp(one->operation, operation) == 0) return one;
        if (!one->operation) found = one;
    }
    return found;
}

bool retries_again(const retries *it, const char *operation, uint32_t attempts,
                   ingest_verdict verdict, const char *code, uint32_t chance, int64_t *after_ms) {
    const ingest_retry_policy *policy = policy_of(it, operation);
    *after_ms = 0;
    if (verdict == INGEST_FINAL || attempts >= policy->attempts) return false;
    for (size_t i = 0; policy->final_codes && policy->final_codes[i]; i++)
        if (strcmp(policy->final_codes[i], code) == 0) return false;
    int64_t wait = policy->backoff_ms;
    for (uint32_t i = 1; i < attempts && wait < policy->backoff_last_ms; i++)
        wait *= 2;
    if (wait > policy->backoff_last_ms) wait = policy->backoff_last_ms;
    *after_ms = wait - wait / 4 + (int64_t)(chance % (uint32_t)(wait / 2 + 1));
    return true;
}
