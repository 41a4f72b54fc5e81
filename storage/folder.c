/* Fails with ST_IO, or as the header says. */
#include "storage/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

void path_join(char path[PATH_SIZE], const char *folder, const char *name) {
    (void)snprintf(path, PATH_SIZE, "%s/%s", folder, name);
}

outcome folder_sync(const char *path, failure *why) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = folder >= 0 && fsync(folder) == 0;
    int error = errno;
    if (folder >= 0) (void)close(folder);
    if (done) return ST_OK;
    return fail(why, ST_IO, "", "%s: cannot sync the folder: %s", path, strerror(error));
}

outcome folder_lock(const char *path, int *file, failure *why) {
    char lock[PATH_SIZE];
    path_join(lock, path, "LOCK");
    *file = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*file < 0) return fail(why, ST_IO, "", "%s: %s", lock, strerror(errno));
    if (flock(*file, LOCK_EX | LOCK_NB) == 0) return ST_OK;
    if (errno == EWOULDBLOCK)
        return fail(why, ST_UNAVAILABLE, "", "%s is in use by another process", path);
    return fail(why, ST_IO, "", "cannot lock %s: %s", lock, strerror(errno));
}

outcome folder_make(const char *path, failure *why) {
    if (mkdir(path, 0700) == 0 || errno == EEXIST) return ST_OK;
    return fail(why, ST_IO, "", "cannot create %s: %s", path, strerror(errno));
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    return remove(path);
}

outcome folder_remove(const char *path, failure *why) {
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT) return ST_OK;
    return fail(why, ST_IO, "", "cannot remove %s: %s", path, strerror(errno));
}

outcome file_link(const char *from, const char *to, failure *why) {
    return link(from, to) == 0 ? ST_OK : file_copy(from, to, why);
}

static bool copy_bytes(int from, int to) {
    char buffer[65536];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)got) != got) return false;
    return got == 0;
}

outcome file_copy(const char *from, const char *to, failure *why) {
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool done = out >= 0 && copy_bytes(in, out);
    int error = errno;
    if (in >= 0) (void)close(in);
    if (out >= 0) (void)close(out);
    return done ? ST_OK : fail(why, ST_IO, "", "cannot copy %s: %s", from, strerror(error));
}
