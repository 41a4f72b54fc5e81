#include "client/consumer/window.h"

#include <assert.h>
#include <stdlib.h>

enum {
    FIRST_CAPACITY = 64,
    FRONT_BYTES = 16, /* kept for the first record, which may always begin */
    OTHERS_BYTES = PROGRESS_BYTES_MAX - FRONT_BYTES,
};

void window_init(window *it, int64_t committed) { *it = (window){.next = committed}; }

void window_free(window *it) {
    free(it->entries);
    *it = (window){0};
}

window_entry *window_at(const window *it, uint64_t number) {
    assert(number >= it->first && number < it->end);
    return &it->entries[number & (it->capacity - 1)];
}

/* Offsets from this record to the next one, or to the end of what was read. */
static uint64_t span_of(const window *it, uint64_t number) {
    const int64_t until = number + 1 < it->end ? window_at(it, number + 1)->offset : it->next;
    return (uint64_t)(until - window_at(it, number)->offset);
}

static bool grow(window *it) {
    const size_t larger = it->capacity ? it->capacity * 2 : FIRST_CAPACITY;
    window_entry *moved = malloc(larger * sizeof *moved);
    if (!moved) return false;
    for (uint64_t number = it->first; number < it->end; number++)
        moved[number & (larger - 1)] = *window_at(it, number);
    free(it->entries);
    it->entries = moved;
    it->capacity = larger;
    return true;
}

/* ---- what the text may come to ----------------------------------------------------------------
 */

static size_t widest_state(const window_entry *entry) {
    return progress_varint_size(PROGRESS_PARTLY + (uint64_t)entry->effects);
}

/* As a run of its own, at most. Its span may still grow by markers that are found behind it, which
 * is why it has a few bytes more. */
enum { SPAN_BYTES = 3, SPLIT_BYTES = 1 + SPAN_BYTES };

static size_t cost_of(const window_entry *entry) { return widest_state(entry) + SPAN_BYTES; }

/* The longest text that can come of what has begun: records that are done or wait are runs with
 * their neighbours, whatever comes; the others stand alone. */
static size_t exact_bound(const window *it) {
    size_t bound = 0;
    uint64_t run = 0;
    uint32_t run_state = UINT32_MAX;
    for (uint64_t number = it->first; number < it->end; number++) {
        const window_entry *entry = window_at(it, number);
        const bool alone = entry->begun && entry->state != PROGRESS_DONE;
        if (!alone && entry->state == run_state) {
            run += span_of(it, number);
            continue;
        }
        if (run) bound += progress_varint_size(run_state) + progress_varint_size(run);
        run = alone ? 0 : span_of(it, number);
        run_state = alone ? UINT32_MAX : entry->state;
        if (alone) bound += widest_state(entry) + progress_varint_size(span_of(it, number));
    }
    if (run) bound += progress_varint_size(run_state) + progress_varint_size(run);
    return bound;
}

static size_t worst_of(const window *it, uint64_t number) {
    const window_entry *entry = window_at(it, number);
    return widest_state(entry) + progress_varint_size(span_of(it, number));
}

bool window_begin(window *it, uint64_t number) {
    window_entry *entry = window_at(it, number);
    const size_t cost = cost_of(entry) + SPLIT_BYTES;
    if (entry->begun) return true;
    if (number != it->first && it->worst > OTHERS_BYTES) {
        if (it->bound + cost > OTHERS_BYTES) it->bound = exact_bound(it);
        if (it->bound + cost > OTHERS_BYTES) return false;
    }
    it->bound += cost;
    entry->begun = true;
    return true;
}

/* ---- records ------------------------------------------------------------------------------- */

static void trim(window *it) {
    while (it->first < it->end && window_at(it, it->first)->state == PROGRESS_DONE) {
        it->worst -= worst_of(it, it->first);
        it->counted -= !window_at(it, it->first)->part;
        it->first++;
    }
}

/* Sets `next`, which is part of the last record's span. */
static void read_to(window *it, int64_t next) {
    const bool any = it->first < it->end;
    if (any) it->worst -= worst_of(it, it->end - 1);
    it->next = next;
    if (any) it->worst += worst_of(it, it->end - 1);
}

bool window_add(window *it, int64_t offset, uint32_t effects, uint32_t state, void *owner,
                uint64_t *number) {
    assert(offset >= it->next);
    if (it->end - it->first == it->capacity && !grow(it)) return false;
    read_to(it, offset);
    it->next = offset + 1;
    *number = it->end++;
    *window_at(it, *number) = (window_entry){.offset = offset,
                                             .state = state,
                                             .effects = effects,
                                             .begun = state >= PROGRESS_PARTLY,
                                             .owner = owner};
    it->worst += worst_of(it, *number);
    it->counted++;
    it->bound += cost_of(window_at(it, *number));
    trim(it);
    return true;
}

void window_wait(window *it, uint64_t number) {
    window_entry *entry = window_at(it, number);
    if (!entry->part) it->counted--;
    entry->part = true;
}

void window_whole(window *it, uint64_t number, uint32_t effects) {
    window_entry *entry = window_at(it, number);
    if (entry->part) it->counted++;
    entry->part = false;
    it->worst -= worst_of(it, number);
    entry->effects = effects;
    it->worst += worst_of(it, number);
}

void window_passed(window *it, int64_t next) {
    if (next > it->next) read_to(it, next);
}

void window_set(window *it, uint64_t number, uint32_t state) {
    window_at(it, number)->state = state;
    trim(it);
}

/* ---- what is committed --------------------------------------------------------------------- */

int64_t window_offset(const window *it) {
    return it->first < it->end ? window_at(it, it->first)->offset : it->next;
}

size_t window_text(const window *it, uint32_t crc, const moves *moved,
                   char text[PROGRESS_TEXT_MAX + 1]) {
    progress_writer to;
    progress_begin(&to);
    for (uint64_t number = it->first; number < it->end; number++)
        progress_add(&to, window_at(it, number)->state, span_of(it, number));
    return progress_end(&to, crc, moved, text);
}
