/*
 * Two slots, written in turn, each in a page of its own and shorter than a disk sector, so that a
 * torn write spoils at most the one being written. Belongs to the committer's thread, and before
 * it to store_open. A failed write is reported; the committer takes it as it takes a failed WAL
 * write.
 *
 * Not synced with each batch, and that is enough: when the process dies the page cache keeps the
 * file; when the machine dies the file may be up to a second older than the WAL, which makes the
 * witness weaker by that second but never wrong, because the state is noted only after the WAL
 * that it speaks of was synced.
 */
#include "storage/evidence.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    SLOT_STRIDE = 4096,
    /* crc32c, format, generation, writes, the routes, what they buried, the MANIFEST */
    ROUTES_AT = 4 + 4 + 8 + 8,
    BURIED_AT = ROUTES_AT + 8 * STORE_ROUTES_MAX,
    MANIFEST_AT = BURIED_AT + 4 * STORE_ROUTES_MAX,
    SLOT_SIZE = MANIFEST_AT + 8 + 8,
    FORMAT = 1,
};
_Static_assert(SLOT_SIZE <= 512, "a slot must fit in one sector");

static bool read_slot(int file, int index, uint64_t *generation, evidence_state *state) {
    uint8_t slot[SLOT_SIZE];
    if (pread(file, slot, sizeof slot, (off_t)index * SLOT_STRIDE) != SLOT_SIZE) return false;
    if (get_le32(slot) != crc32c_extend(0, slot + 4, SLOT_SIZE - 4)) return false;
    if (get_le32(slot + 4) != FORMAT) return false;
    *generation = get_le64(slot + 8);
    state->writes = get_le64(slot + 16);
    for (int i = 0; i < STORE_ROUTES_MAX; i++)
        state->last[i] = get_le64(slot + ROUTES_AT + 8 * i);
    for (int i = 0; i < STORE_ROUTES_MAX; i++)
        state->buried[i] = get_le32(slot + BURIED_AT + 4 * i);
    state->manifest_number = get_le64(slot + MANIFEST_AT);
    state->manifest_size = get_le64(slot + MANIFEST_AT + 8);
    return true;
}

static void read_newest(evidence *self, bool *found, evidence_state *state) {
    *found = false;
    for (int i = 0; i < 2; i++) {
        uint64_t generation;
        evidence_state candidate;
        if (!read_slot(self->file, i, &generation, &candidate)) continue;
        if (*found && generation <= self->generation) continue;
        *found = true;
        self->generation = generation;
        *state = candidate;
    }
}

void evidence_read(const char *path, bool *found, evidence_state *state) {
    evidence self = {.file = open(path, O_RDONLY | O_CLOEXEC)};
    *found = false;
    if (self.file >= 0) read_newest(&self, found, state);
    evidence_close(&self);
}

outcome evidence_open(evidence *self, const char *path, bool *found, evidence_state *state,
                      failure *why) {
    *self = (evidence){.file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (self->file < 0) return fail(why, ST_IO, "", "%s: %s", path, strerror(errno));
    /* Room for both slots now, so that a full disk cannot refuse them later. */
    int error = posix_fallocate(self->file, 0, 2L * SLOT_STRIDE);
    if (error) {
        evidence_close(self);
        return fail(why, ST_IO, "", "%s: cannot reserve: %s", path, strerror(error));
    }
    read_newest(self, found, state);
    return ST_OK;
}

outcome evidence_write(evidence *self, const evidence_state *state, failure *why) {
    uint8_t slot[SLOT_SIZE];
    self->generation++;
    put_le32(slot + 4, FORMAT);
    put_le64(slot + 8, self->generation);
    put_le64(slot + 16, state->writes);
    for (int i = 0; i < STORE_ROUTES_MAX; i++)
        put_le64(slot + ROUTES_AT + 8 * i, state->last[i]);
    for (int i = 0; i < STORE_ROUTES_MAX; i++)
        put_le32(slot + BURIED_AT + 4 * i, state->buried[i]);
    put_le64(slot + MANIFEST_AT, state->manifest_number);
    put_le64(slot + MANIFEST_AT + 8, state->manifest_size);
    put_le32(slot, crc32c_extend(0, slot + 4, SLOT_SIZE - 4));
    off_t at = (off_t)(self->generation % 2) * SLOT_STRIDE;
    if (pwrite(self->file, slot, sizeof slot, at) != SLOT_SIZE)
        return fail(why, ST_IO, "", "evidence file: %s", strerror(errno));
    self->unsynced = true;
    return ST_OK;
}

outcome evidence_sync(evidence *self, failure *why) {
    if (!self->unsynced) return ST_OK;
    if (fdatasync(self->file) != 0)
        return fail(why, ST_IO, "", "evidence file: cannot sync: %s", strerror(errno));
    self->unsynced = false;
    return ST_OK;
}

void evidence_close(evidence *self) {
    if (self->file >= 0) (void)close(self->file);
    self->file = -1;
}
