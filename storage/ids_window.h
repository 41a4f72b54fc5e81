/*
 * ids_window: how long the id of a published event is remembered, so that the ids stay within
 * their budget. Marks say when how many bytes of ids had been put; the window in force goes back to
 * the mark behind which there is as much as may be kept, and never further than what was forgotten
 * already. (The configured window itself runs from the publishing: see settled.h.) The marks are
 * one entry in meta. What no longer counts leaves the disk in compactions, see cleaner.h.
 *
 * Belongs to the committer's thread; the atomics are for any thread.
 */
#ifndef INGEST_STORAGE_IDS_WINDOW_H
#define INGEST_STORAGE_IDS_WINDOW_H

#include "storage/bytes.h"
#include "storage/status.h"

#include <stdatomic.h>

enum { IDS_MARKS_MAX = 64 };

typedef struct ids_mark {
    int64_t at_ms;      /* wall clock */
    uint64_t put_bytes; /* by then */
} ids_mark;

typedef struct ids_window {
    uint64_t window_ms; /* as configured */
    uint64_t budget_bytes;
    uint64_t put_bytes;           /* ids put, ever */
    _Atomic int64_t forgotten_ms; /* published ids put up to here may be gone for the budget's sake;
                                     0: none */
    uint32_t count;               /* marks; the newest is marks[count - 1] */
    ids_mark marks[IDS_MARKS_MAX];
    uint64_t saved_bytes; /* put_bytes as meta has them */
    _Atomic uint64_t in_force_ms;
    _Atomic uint64_t remembered_bytes; /* within the window; pending and dead ones apart */
} ids_window;

enum { IDS_WINDOW_SIZE_MAX = 8 + 8 + IDS_MARKS_MAX * 16 };

void ids_window_init(ids_window *self, uint64_t window_ms, uint64_t budget_bytes);
/* An id was put whose key has that size. */
void ids_window_count(ids_window *self, size_t key_size, int64_t now_ms);
/* Brings the window in force up to date. Once a second. */
void ids_window_update(ids_window *self, int64_t now_ms);

/* Its bytes in meta. */
bytes ids_window_put(const ids_window *self, uint8_t out[IDS_WINDOW_SIZE_MAX]);
MUST_CHECK bool ids_window_get(ids_window *self, bytes value);

static inline int64_t ids_window_forgotten_ms(const ids_window *self) {
    return atomic_load_explicit(&self->forgotten_ms, memory_order_relaxed);
}

static inline uint64_t ids_window_in_force_ms(const ids_window *self) {
    return atomic_load_explicit(&self->in_force_ms, memory_order_relaxed);
}

#endif
