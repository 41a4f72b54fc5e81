/*
 * window: the records of one partition that are under way, by their offsets: what is done of each,
 * how far the group may commit, and the text that goes with it. Pure; one thread.
 *
 * What may be in the window is bounded by the text: every state that its events can come to must
 * fit. A record that waits (for its turn, or for the other parts of its group) takes no room of its
 * own, as it is one run with its neighbours; so the question is asked when an event begins. The
 * first record that is not done may always begin.
 */
#ifndef INGEST_CLIENT_WINDOW_H
#define INGEST_CLIENT_WINDOW_H

#include "client/consumer/progress.h"

typedef struct window_entry {
    int64_t offset;
    uint32_t state;   /* as in progress.h */
    uint32_t effects; /* of its event; 0: does not keep progress (a later part of a group) */
    bool begun;       /* an effect may have been called */
    bool part;        /* of a group that is not whole: not counted */
    void *owner;      /* the caller's; NULL when nobody cares any more */
} window_entry;

typedef struct window {
    window_entry *entries; /* owned; a ring */
    size_t capacity;       /* a power of two, or 0 */
    uint64_t first, end;   /* entries by number: they stay the same while others come and go */
    int64_t next;          /* offset behind the last record that was read */
    size_t counted;        /* entries that are not parts */
    size_t worst;          /* bytes of the longest text of all entries */
    size_t bound;          /* of what has begun; what ends is taken off when it is too large */
} window;

void window_init(window *it, int64_t committed);
void window_free(window *it);

/* Offsets rise. `state` is what was found in Kafka; what is done already may be gone at once.
 * False: no memory. */
MUST_CHECK bool window_add(window *it, int64_t offset, uint32_t effects, uint32_t state,
                           void *owner, uint64_t *number);
window_entry *window_at(const window *it, uint64_t number);
/* It is a part of a group that is not whole yet; and now it is, and has so many effects. */
void window_wait(window *it, uint64_t number);
void window_whole(window *it, uint64_t number, uint32_t effects);
/* Records up to here hold nothing for us: markers of transactions at the end. */
void window_passed(window *it, int64_t next);

/* True: it is begun now. False: not before others are done. */
MUST_CHECK bool window_begin(window *it, uint64_t number);
/* New state of a record. What is done at the front leaves. */
void window_set(window *it, uint64_t number, uint32_t state);

/* The first offset that is not done. */
int64_t window_offset(const window *it);
/* The text for it. */
size_t window_text(const window *it, uint32_t crc, const moves *moved,
                   char text[PROGRESS_TEXT_MAX + 1]);

#endif
