/* torn_tail: cuts what a crash left at the end of a file, and keeps it. Private to storage/. */
#ifndef INGEST_STORAGE_TORN_TAIL_H
#define INGEST_STORAGE_TORN_TAIL_H

#include "storage/status.h"

#include <stdint.h>

/* Saves the bytes of the file from `from` to its end `to` as the file `saved_as`, and cuts them
 * off; synced, and in that order. Blocks. ST_IO: what had been done stays done. */
MUST_CHECK outcome torn_tail_cut(const char *path, uint64_t from, uint64_t to, const char *saved_as,
                                 failure *why);

#endif
