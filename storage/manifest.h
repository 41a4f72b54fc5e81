/*
 * manifest: looks at RocksDB's MANIFEST before RocksDB does. RocksDB takes one that was cut at the
 * end of a record for a sound one, and then deletes the tables that it does not name.
 */
#ifndef INGEST_STORAGE_MANIFEST_H
#define INGEST_STORAGE_MANIFEST_H

#include "storage/status.h"

#include <stdint.h>

typedef struct manifest_facts {
    char file[32];      /* its name, as CURRENT says */
    bool flushed_known; /* false: written by a RocksDB that we do not understand */
    uint64_t flushed;   /* the tables have all writes up to here, by RocksDB's numbers */
    uint64_t next_file; /* above every file number given so far; 0: not known */
} manifest_facts;

/* ST_CORRUPT: CURRENT or the MANIFEST is missing or damaged, and how. Blocks; changes nothing. */
MUST_CHECK outcome manifest_check(const char *database, manifest_facts *facts, failure *why);

#endif
