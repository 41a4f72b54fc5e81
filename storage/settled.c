/* Arithmetic only: no I/O, nothing that can fail. */
#include "storage/settled.h"

#include "storage/encoding.h"

#include <string.h>

enum { MARKS_A_WINDOW = 24 };

/* Of the marks whose window is over the newest is kept: it says what is expired. */
static void expire(settled_marks *self, int64_t now_ms, uint64_t window_ms) {
    uint32_t over = 0;
    while (over < self->count && now_ms - self->marks[over].at_ms >= (int64_t)window_ms)
        over++;
    if (over == 0) return;
    self->expired = self->marks[over - 1].sequence;
    self->count -= over - 1;
    memmove(self->marks, self->marks + over - 1, self->count * sizeof *self->marks);
}

/* When there is no room, which only a changed window brings about, the newest mark moves on: what
 * it stood for is kept for longer. */
static void add_mark(settled_marks *self, uint64_t sequence, int64_t now_ms) {
    if (self->count < SETTLED_MARKS_MAX) self->count++;
    self->marks[self->count - 1] = (settled_mark){.at_ms = now_ms, .sequence = sequence};
}

bool settled_note(settled_marks *self, uint64_t sequence, int64_t now_ms, uint64_t window_ms) {
    for (uint32_t i = 0; i < self->count; i++) /* the clock was set back */
        if (self->marks[i].at_ms > now_ms) self->marks[i].at_ms = now_ms;
    expire(self, now_ms, window_ms);
    const settled_mark last = self->count ? self->marks[self->count - 1] : (settled_mark){0};
    const int64_t apart_ms = (int64_t)(window_ms / MARKS_A_WINDOW);
    if (sequence <= last.sequence || (self->count && now_ms - last.at_ms < apart_ms)) return false;
    add_mark(self, sequence, now_ms);
    return true;
}

bytes settled_put(const settled_marks *self, uint8_t out[SETTLED_SIZE_MAX]) {
    uint8_t *at = out;
    for (uint32_t i = 0; i < self->count; i++) {
        at = put_le64(at, (uint64_t)self->marks[i].at_ms);
        at = put_le64(at, self->marks[i].sequence);
    }
    return bytes_of(out, (size_t)(at - out));
}

bool settled_get(settled_marks *self, bytes value) {
    decoder in = decoder_of(value);
    for (self->count = 0; in.left && self->count < SETTLED_MARKS_MAX; self->count++) {
        self->marks[self->count].at_ms = (int64_t)take_le64(&in);
        self->marks[self->count].sequence = take_le64(&in);
    }
    return in.ok && in.left == 0;
}
