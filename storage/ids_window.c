/* Arithmetic only: no I/O, nothing that can fail. */
#include "storage/ids_window.h"

#include "storage/encoding.h"
#include "storage/idempotency.h"

/* What RocksDB adds to an entry: lengths, sequence number, filter, index. */
enum { ENTRY_OVERHEAD = 16 };

/* Two fifths of the budget are remembered: half as much again waits for a compaction, which then
 * writes what is kept beside the old tables. Together that is the budget. */
static uint64_t kept_bytes(const ids_window *self) { return self->budget_bytes / 5 * 2; }

static uint64_t mark_bytes(const ids_window *self) { return self->budget_bytes / 64; }

void ids_window_init(ids_window *self, uint64_t window_ms, uint64_t budget_bytes) {
    *self = (ids_window){
        .window_ms = window_ms, .budget_bytes = budget_bytes, .in_force_ms = window_ms};
}

static void add_mark(ids_window *self, int64_t now_ms) {
    if (self->count == IDS_MARKS_MAX) {
        self->count--;
        memmove(self->marks, self->marks + 1, self->count * sizeof *self->marks);
    }
    self->marks[self->count++] = (ids_mark){.at_ms = now_ms, .put_bytes = self->put_bytes};
}

void ids_window_count(ids_window *self, size_t key_size, int64_t now_ms) {
    uint64_t marked = self->count ? self->marks[self->count - 1].put_bytes : 0;
    self->put_bytes += key_size + ID_VALUE_SIZE + ENTRY_OVERHEAD;
    if (self->put_bytes - marked >= mark_bytes(self)) add_mark(self, now_ms);
}

void ids_window_update(ids_window *self, int64_t now_ms) {
    for (uint32_t i = 0; i < self->count; i++) {
        const ids_mark *mark = &self->marks[i];
        if (self->put_bytes - mark->put_bytes > kept_bytes(self) &&
            mark->at_ms > self->forgotten_ms)
            self->forgotten_ms = mark->at_ms;
    }
    int64_t window_ms = (int64_t)self->window_ms;
    if (self->forgotten_ms && now_ms - self->forgotten_ms < window_ms)
        window_ms = now_ms > self->forgotten_ms ? now_ms - self->forgotten_ms : 0;
    uint64_t before = 0;
    for (uint32_t i = 0; i < self->count && self->marks[i].at_ms <= now_ms - window_ms; i++)
        before = self->marks[i].put_bytes;
    self->in_force_ms = (uint64_t)window_ms;
    self->remembered_bytes = self->put_bytes - before;
}

/* ---- bytes ------------------------------------------------------------------------------- */

bytes ids_window_put(const ids_window *self, uint8_t out[IDS_WINDOW_SIZE_MAX]) {
    uint8_t *at = put_le64(out, self->put_bytes);
    at = put_le64(at, (uint64_t)self->forgotten_ms);
    for (uint32_t i = 0; i < self->count; i++) {
        at = put_le64(at, (uint64_t)self->marks[i].at_ms);
        at = put_le64(at, self->marks[i].put_bytes);
    }
    return bytes_of(out, (size_t)(at - out));
}

bool ids_window_get(ids_window *self, bytes value) {
    decoder in = decoder_of(value);
    self->put_bytes = self->saved_bytes = take_le64(&in);
    self->forgotten_ms = (int64_t)take_le64(&in);
    for (self->count = 0; in.left && self->count < IDS_MARKS_MAX; self->count++) {
        self->marks[self->count].at_ms = (int64_t)take_le64(&in);
        self->marks[self->count].put_bytes = take_le64(&in);
    }
    return in.ok && in.left == 0;
}
