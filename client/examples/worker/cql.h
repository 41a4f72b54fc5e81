/*
 * cql: as much of Cassandra's native protocol, version 4, as a worker needs: statements with bound
 * values, and how they ended
 * (https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v4.spec). Debian has no C
 * driver; a service with one should use that. One connection, one statement at a time: one thread.
 * Blocks for the connection's time-out at most.
 */
#ifndef WORKER_CQL_H
#define WORKER_CQL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cql cql;

typedef enum cql_outcome {
    CQL_DONE,
    CQL_AGAIN, /* not done, or not known: the store is away, busy, or has too few replicas */
    CQL_WRONG  /* no attempt will help: the statement, its values, or our rights */
} cql_outcome;

typedef struct cql_value {
    const void *data; /* big-endian, as the type wants it; NULL: null */
    size_t len;
} cql_value;

typedef struct cql_trouble {
    char code[32]; /* "cql_2200", or "unreachable" */
    char text[256];
} cql_trouble;

/* NULL: it could not be reached; CQL_AGAIN is what to make of it. */
cql *cql_open(const char *host, const char *port, int timeout_ms, cql_trouble *trouble);
void cql_close(cql *it); /* NULL is fine */

/* With consistency LOCAL_QUORUM. After CQL_AGAIN the connection may be broken: see cql_broken. */
cql_outcome cql_execute(cql *it, const char *statement, const cql_value *values, size_t count,
                        cql_trouble *trouble);
bool cql_broken(const cql *it);

#endif
