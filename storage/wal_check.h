/*
 * wal_check: looks at RocksDB's write-ahead logs before RocksDB does, because none of its recovery
 * modes both repairs an ordinary torn tail and refuses all other damage.
 */
#ifndef INGEST_STORAGE_WAL_CHECK_H
#define INGEST_STORAGE_WAL_CHECK_H

#include "storage/status.h"

#include <stddef.h>
#include <stdint.h>

enum { WAL_FAMILIES_MAX = 16 };

/* Which logs are needed: for each column family (by RocksDB's number) those from `from` on that
 * hold a write of it. */
typedef struct wal_needs {
    bool known;
    uint64_t from[WAL_FAMILIES_MAX];
} wal_needs;

/* What is known from elsewhere, as RocksDB's sequence numbers: they count every write. */
typedef struct wal_bounds {
    bool flushed_known;
    uint64_t flushed; /* the tables have all up to here; the logs must go on from there */
    wal_needs needs;
    uint64_t synced;    /* the evidence saw a sync up to here; 0: there is no evidence */
    bool manifest_torn; /* then nothing up to `synced` may be missing; later, RocksDB would have
                           deleted tables that the MANIFEST no longer names */
} wal_bounds;

typedef struct wal_repair {
    bool repaired;
    char file[32];      /* name of the log that was cut */
    uint64_t kept;      /* bytes that it has now */
    uint64_t cut_bytes; /* that were removed from its end, and are in `saved_as` */
} wal_repair;

/*
 * Checks all *.log files in `directory` (missing or empty: ST_OK): each whole, each batch going on
 * where the one before ended, the first no later than `bounds->flushed`, and none missing behind
 * the first that is needed. A torn
 * tail of the last one written to is saved as the file `saved_as`, then cut off and synced, unless
 * the evidence says that it had been synced; anything else is ST_CORRUPT, with the file and the
 * offset (field "wal": a log is damaged; "db": something else is missing), and changes nothing.
 * Without `saved_as` a torn tail is left as well. Blocks; reads every log once.
 */
MUST_CHECK outcome wal_check(const char *directory, const char *saved_as, const wal_bounds *bounds,
                             wal_repair *repair, failure *why);

/* What all *.log files in `directory` hold; 0 when there is none. */
uint64_t wal_bytes(const char *directory);

#endif
