/*
 * wal_check: looks at RocksDB's write-ahead logs before RocksDB does, because none of its recovery
 * modes both repairs an ordinary torn tail and refuses all other damage.
 */
#ifndef INGEST_STORAGE_WAL_CHECK_H
#define INGEST_STORAGE_WAL_CHECK_H

#include "storage/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct wal_repair {
    bool repaired;
    char file[32];      /* name of the log that was cut */
    uint64_t kept;      /* bytes that it has now */
    uint64_t cut_bytes; /* that were removed from its end, and are in `saved_as` */
} wal_repair;

/*
 * Checks all *.log files in `directory` (missing or empty: ST_OK). A torn tail of the newest is
 * saved as the file `saved_as`, then cut off and synced; anything else is ST_CORRUPT, with the
 * file and the offset. Blocks; reads every log once.
 */
MUST_CHECK outcome wal_check(const char *directory, const char *saved_as, wal_repair *repair,
                             failure *why);

/* What all *.log files in `directory` hold; 0 when there is none. */
uint64_t wal_bytes(const char *directory);

#endif
