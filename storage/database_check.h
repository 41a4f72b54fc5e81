/*
 * database_check: all that must hold of RocksDB's files before RocksDB may open them: the MANIFEST,
 * the logs, and that there is a database where there had been one. Before the opening, one thread.
 */
#ifndef INGEST_STORAGE_DATABASE_CHECK_H
#define INGEST_STORAGE_DATABASE_CHECK_H

#include "storage/evidence.h"
#include "storage/wal_check.h"

/* What a crash had left behind and was cut off. */
typedef struct database_cuts {
    wal_repair log;
    char manifest[32]; /* its name; "": nothing of it was cut */
    uint64_t manifest_kept;
} database_cuts;

/* Cuts what was never acknowledged, and keeps it in directory/torn-tail and torn-manifest. `seen`:
 * what the evidence says (zeros: nothing). ST_CORRUPT: anything that was synced is not there. */
MUST_CHECK outcome database_check(const char *directory, const char *database,
                                  const evidence_state *seen, database_cuts *cuts, failure *why);

/* RocksDB would begin anew where it finds no CURRENT: ST_CORRUPT where it must not, because there
 * are tables or logs, or the evidence has seen some. */
MUST_CHECK outcome database_exists(const char *directory, const char *database, bool witnessed,
                                   bool *exists, failure *why);

#endif
