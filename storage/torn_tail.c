/* One function, in store_open, on its thread. Fails with ST_IO. */
#include "storage/torn_tail.h"

#include "storage/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static outcome sync_name(const char *path, failure *why) {
    char folder[PATH_SIZE];
    const char *slash = strrchr(path, '/');
    (void)snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1,
                   slash ? path : ".");
    return folder_sync(folder, why);
}

/* Should it prove to be more than a torn tail, nothing is gone. */
static outcome save(int file, uint64_t from, uint64_t to, const char *saved_as, failure *why) {
    uint8_t buffer[8192];
    int copy = open(saved_as, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool done = copy >= 0;
    while (done && from < to) {
        size_t want = to - from < sizeof buffer ? (size_t)(to - from) : sizeof buffer;
        done = pread(file, buffer, want, (off_t)from) == (ssize_t)want &&
               write(copy, buffer, want) == (ssize_t)want;
        from += want;
    }
    done = done && fsync(copy) == 0;
    int error = errno;
    if (copy >= 0) (void)close(copy);
    if (done) return sync_name(saved_as, why);
    return fail(why, ST_IO, "", "%s: cannot save a torn tail: %s", saved_as, strerror(error));
}

outcome torn_tail_cut(const char *path, uint64_t from, uint64_t to, const char *saved_as,
                      failure *why) {
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return fail(why, ST_IO, "", "%s: %s", path, strerror(errno));
    outcome result = save(file, from, to, saved_as, why);
    if (result == ST_OK && (ftruncate(file, (off_t)from) != 0 || fsync(file) != 0))
        result = fail(why, ST_IO, "", "%s: cannot cut the torn tail: %s", path, strerror(errno));
    (void)close(file);
    return result;
}
