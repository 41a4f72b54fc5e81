/* One function; any thread; fails with ST_IO. */
#include "storage/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

outcome folder_sync(const char *path, failure *why) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = folder >= 0 && fsync(folder) == 0;
    int error = errno;
    if (folder >= 0) (void)close(folder);
    if (done) return ST_OK;
    return fail(why, ST_IO, "", "%s: cannot sync the folder: %s", path, strerror(error));
}
