/* retries: how often and how soon an operation is tried again. Pure; any thread. */
#ifndef INGEST_CLIENT_RETRIES_H
#define INGEST_CLIENT_RETRIES_H

#include "ingest/consumer.h"

typedef struct retries {
    ingest_retry_policy *policies; /* owned, with the texts in them */
    size_t count;
} retries;

/* Copies them. False: no memory. */
__attribute__((warn_unused_result)) bool
retries_init(retries *it, const ingest_retry_policy *policies, size_t count);
void retries_free(retries *it);

/* Whether an operation that has failed `attempts` times, the last time so, is tried again, and
 * after how long. `chance` is any number, for the jitter: a quarter less to a quarter more. */
bool retries_again(const retries *it, const char *operation, uint32_t attempts,
                   ingest_verdict verdict, const char *code, uint32_t chance, int64_t *after_ms);

#endif
