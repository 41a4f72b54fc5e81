/*
 * What can go wrong, named once. Every function that can fail returns an `outcome` and, where the
 * caller should know more, fills a `failure` with the field and the reason.
 */
#ifndef INGEST_STORAGE_STATUS_H
#define INGEST_STORAGE_STATUS_H

#include <stdbool.h>

/*
 * X(name, gRPC code, retry, text)
 *   gRPC code: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
 *   retry: whether the same request may succeed later without being changed
 */
#define OUTCOME_LIST(X)                                                                            \
    X(ST_OK, 0, false, "ok")                                                                       \
    X(ST_INVALID, 3, false, "invalid argument")                                                    \
    X(ST_UNKNOWN_OPERATION, 3, false, "operation not in the catalogue")                            \
    X(ST_TOO_LARGE, 3, false, "too large")                                                         \
    X(ST_ID_CONFLICT, 6, false, "id already used with other content")                              \
    X(ST_NOT_FOUND, 5, false, "not found")                                                         \
    X(ST_OVERLOADED, 8, true, "too many requests in flight")                                       \
    X(ST_BACKLOG_FULL, 8, true,                                                                    \
      "storage.backlog_budget is spent: events are taken again when Kafka has taken some")         \
    X(ST_DISK_FULL, 8, true,                                                                       \
      "no free space but storage.reserve_free: give the volume of the data folder more")           \
    X(ST_DEAD_FULL, 8, true, "storage.dead_budget is spent: replay or purge dead letters")         \
    X(ST_FULL, 8, true, "the store of failed events is full: retry or discard some of them")       \
    X(ST_STOPPING, 14, true, "shutting down")                                                      \
    X(ST_TIMEOUT, 4, true, "deadline exceeded")                                                    \
    X(ST_UNAVAILABLE, 14, true, "unavailable")                                                     \
    X(ST_DEAD_LETTER, 9, false, "set aside as a dead letter")                                      \
    X(ST_PRECONDITION, 9, false, "failed precondition")                                            \
    X(ST_UNIMPLEMENTED, 12, false, "unimplemented")                                                \
    X(ST_CORRUPT, 15, false, "data corrupt")                                                       \
    X(ST_IO, 13, false, "input/output error")                                                      \
    X(ST_NO_MEMORY, 8, true, "out of memory")                                                      \
    X(ST_INTERNAL, 13, false, "internal error")

typedef enum outcome {
#define X(name, grpc_code, retry, text) name,
    OUTCOME_LIST(X)
#undef X
        OUTCOME_COUNT
} outcome;

typedef struct failure {
    outcome code;
    char field[128];  /* path of the offending field or key; may be empty */
    char reason[384]; /* for people: what, the limit, what to do */
} failure;

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(string, first) __attribute__((format(printf, string, first)))

const char *outcome_name(outcome code); /* "ST_OK" without its prefix: "OK" */
const char *outcome_text(outcome code);
int outcome_grpc_code(outcome code);
bool outcome_retry(outcome code);

/* Fills `why` (may be NULL) and returns `code`, so that it ends a function: `return fail(...)`. */
outcome fail(failure *why, outcome code, const char *field, const char *format, ...)
    PRINTF_LIKE(4, 5);

#endif
