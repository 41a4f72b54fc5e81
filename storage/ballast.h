/*
 * ballast: a file that holds disk space and nothing else, given up when the store could not be
 * opened otherwise. RocksDB's opening has to write (it flushes what the WAL has), and a volume may
 * be filled to the last byte by somebody else; without room a store could not even be opened to
 * publish its backlog, which is what makes room.
 *
 * Belongs to store_open, then to the cleaner's thread; `ballast_missing` is for any thread.
 */
#ifndef INGEST_STORAGE_BALLAST_H
#define INGEST_STORAGE_BALLAST_H

#include "storage/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ballast {
    int file; /* -1: closed */
    uint64_t wanted;
    uint64_t size;
    _Atomic uint64_t missing; /* wanted - size */
} ballast;

/* Opens or creates the file; cuts it to `wanted` when it is larger. See ballast_restore for the
 * rest. */
MUST_CHECK outcome ballast_open(ballast *self, const char *path, uint64_t wanted, failure *why);
/* Gives all of it back to the volume, now. Blocks. */
MUST_CHECK outcome ballast_release(ballast *self, failure *why);
/*
 * Takes what is missing when `spare` bytes are as much. Blocks for moments; no room is no failure.
 * False: the volume cannot preallocate, and there is no ballast, nor anything missing.
 */
bool ballast_restore(ballast *self, uint64_t spare);
void ballast_close(ballast *self);

static inline uint64_t ballast_missing(const ballast *self) {
    return atomic_load_explicit(&self->missing, memory_order_relaxed);
}

#endif
