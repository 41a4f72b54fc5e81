/*
 * manifest: looks at RocksDB's MANIFEST before RocksDB does. RocksDB takes one that was cut at the
 * end of a record for a sound one, and then deletes the tables that it does not name; and it
 * refuses one whose last record was torn by a power cut.
 */
#ifndef INGEST_STORAGE_MANIFEST_H
#define INGEST_STORAGE_MANIFEST_H

#include "storage/status.h"
#include "storage/wal_check.h"

#include <stdint.h>

/* How far a MANIFEST has come. */
typedef struct manifest_extent {
    uint64_t number; /* in its name */
    uint64_t size;
} manifest_extent;

static inline bool manifest_extent_equal(const manifest_extent *a, const manifest_extent *b) {
    return a->number == b->number && a->size == b->size;
}

typedef struct manifest_facts {
    char file[32];          /* its name, as CURRENT says */
    manifest_extent extent; /* of what is sound in it */
    uint64_t size;          /* with edits behind the sound part that were never synced */
    bool flushed_known;     /* false: written by a RocksDB that we do not understand */
    uint64_t flushed;       /* the tables have all writes up to here, by RocksDB's numbers */
    uint64_t next_file;     /* above every file number given so far; 0: not known */
    wal_needs logs;
} manifest_facts;

/* A torn tail is ST_OK. ST_CORRUPT: CURRENT or the MANIFEST is missing or damaged, or less than
 * `seen` (zeros: unknown), and how. Blocks; changes nothing. */
MUST_CHECK outcome manifest_check(const char *database, const manifest_extent *seen,
                                  manifest_facts *facts, failure *why);
/*
 * Saves a torn tail as `saved_as`, and cuts it off. To be called when the logs were found to go on
 * where the sound part ends: then what is cut had no effect yet. Blocks.
 */
MUST_CHECK outcome manifest_repair(const char *database, const manifest_facts *facts,
                                   const char *saved_as, failure *why);
/* Of a database in use: what it is now, synced or not. Zeros when it cannot be told. */
manifest_extent manifest_now(const char *database);
/* The same, after a sync of it and of its name: what a power cut cannot take back. Blocks. */
MUST_CHECK outcome manifest_sync(const char *database, manifest_extent *synced, failure *why);

/*
 * How far the MANIFEST of a database in use is known to be on the disk, for the evidence. That a
 * sync went well proves nothing alone: had RocksDB's own failed before, ours would find clean
 * pages. So what was synced counts only at the next look, when no job of RocksDB has failed
 * meanwhile.
 */
typedef struct manifest_watch {
    manifest_extent noted; /* what is known */
    manifest_extent seen;  /* what was synced at the last look, and */
    uint64_t errors;       /* RocksDB's background errors by then */
} manifest_watch;

/* `errors` as of now. *advanced: `noted` has changed, and is to be written down. Blocks when there
 * is something to sync. */
MUST_CHECK outcome manifest_look(manifest_watch *self, const char *database, uint64_t errors,
                                 bool *advanced, failure *why);

#endif
