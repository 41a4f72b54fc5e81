/* The space is taken by fallocate alone, never written: it costs no I/O. */
#include "storage/ballast.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void set_size(ballast *self, uint64_t size) {
    self->size = size;
    atomic_store_explicit(&self->missing, self->wanted - size, memory_order_relaxed);
}

static outcome cut(ballast *self, uint64_t size, failure *why) {
    /* The sync makes journalling file systems give the blocks back now. */
    if (ftruncate(self->file, (off_t)size) != 0 || fsync(self->file) != 0)
        return fail(why, ST_IO, "", "cannot cut the ballast: %s", strerror(errno));
    set_size(self, size);
    return ST_OK;
}

outcome ballast_open(ballast *self, const char *path, uint64_t wanted, failure *why) {
    self->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat status;
    if (self->file < 0 || fstat(self->file, &status) != 0)
        return fail(why, ST_IO, "", "%s: %s", path, strerror(errno));
    self->wanted = wanted;
    if ((uint64_t)status.st_size > wanted) return cut(self, wanted, why);
    set_size(self, (uint64_t)status.st_size);
    return ST_OK;
}

outcome ballast_release(ballast *self, failure *why) { return cut(self, 0, why); }

bool ballast_restore(ballast *self, uint64_t spare) {
    uint64_t missing = self->wanted - self->size;
    if (missing == 0 || spare < missing) return true;
    if (fallocate(self->file, 0, (off_t)self->size, (off_t)missing) == 0) {
        set_size(self, self->wanted);
    } else if (errno == EOPNOTSUPP) {
        self->wanted = self->size;
        set_size(self, self->size);
        return false;
    }
    return true;
}

void ballast_close(ballast *self) {
    if (self->file >= 0) (void)close(self->file);
    self->file = -1;
}
