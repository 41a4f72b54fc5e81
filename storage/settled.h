/*
 * settled: when the events of a route were published, a few marks of it. The id of a published
 * event is remembered for a window from then on; how long it was pending before does not matter. A
 * mark is taken when a window's 24th has passed since the one before, so an id is kept for up to so
 * much longer. The marks are one entry in meta for each route.
 *
 * Belongs to the committer's thread; `expired` is for any thread.
 */
#ifndef INGEST_STORAGE_SETTLED_H
#define INGEST_STORAGE_SETTLED_H

#include "storage/bytes.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { SETTLED_MARKS_MAX = 32, SETTLED_SIZE_MAX = SETTLED_MARKS_MAX * 16 };

typedef struct settled_mark {
    int64_t at_ms; /* wall clock */
    uint64_t sequence;
} settled_mark;

typedef struct settled_marks {
    uint32_t count;
    settled_mark marks[SETTLED_MARKS_MAX]; /* ascending */
    _Atomic uint64_t expired;              /* up to this sequence the window is over */
} settled_marks;

/* Everything up to `sequence` is settled by now. True: the marks have changed, and want saving. */
bool settled_note(settled_marks *self, uint64_t sequence, int64_t now_ms, uint64_t window_ms);

/* Its bytes in meta. */
bytes settled_put(const settled_marks *self, uint8_t out[SETTLED_SIZE_MAX]);
bool settled_get(settled_marks *self, bytes value);

#endif
