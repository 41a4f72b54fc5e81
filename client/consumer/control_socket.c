/* Never waits, but for a connection in a full queue. Fails with ST_IO, or as the header says. */
#include "client/consumer/control_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/consumer/control.h"
#include "client/consumer/control_wire.h"
#include "storage/folder.h"

/* The folder, and the socket's address in it. An address has 108 bytes, a folder's name may have
 * more: then it goes by the folder's descriptor, which is to be closed after use in any case. */
static outcome make_address(const char *directory, struct sockaddr_un *address, int *folder,
                            failure *why) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *folder = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*folder < 0) return fail(why, ST_IO, "data_dir", "%s: %s", directory, strerror(errno));
    int len =
        snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", directory, CONTROL_SOCKET);
    if (len < 0 || (size_t)len >= sizeof address->sun_path)
        (void)snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", *folder,
                       CONTROL_SOCKET);
    return ST_OK;
}

outcome control_socket_listen(const char *directory, int *listener, failure *why) {
    struct sockaddr_un address;
    int folder;
    *listener = -1;
    outcome result = make_address(directory, &address, &folder, why);
    if (result != ST_OK) return result;
    (void)unlinkat(folder, CONTROL_SOCKET, 0);
    int it = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Before it has a name: there is no moment in which others could open it. */
    if (it < 0 || fchmod(it, 0600) != 0 ||
        bind(it, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(it, CONTROL_PEERS) != 0)
        result =
            fail(why, ST_IO, "data_dir", "%s/%s: %s", directory, CONTROL_SOCKET, strerror(errno));
    (void)close(folder);
    if (result == ST_OK)
        *listener = it;
    else if (it >= 0)
        (void)close(it);
    return result;
}

void control_socket_remove(const char *directory) {
    char path[PATH_SIZE];
    path_join(path, directory, CONTROL_SOCKET);
    (void)unlink(path);
}

outcome control_socket_connect(const char *directory, int timeout_ms, int *connected,
                               failure *why) {
    struct sockaddr_un address;
    struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    int folder;
    *connected = -1;
    outcome result = make_address(directory, &address, &folder, why);
    if (result != ST_OK) return result;
    int it = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (it < 0 || setsockopt(it, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0 ||
        setsockopt(it, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
        connect(it, (const struct sockaddr *)&address, sizeof address) != 0) {
        bool nobody = errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN;
        result = fail(why, nobody ? ST_UNAVAILABLE : ST_IO, "data_dir", "%s/%s: %s", directory,
                      CONTROL_SOCKET, strerror(errno));
    }
    (void)close(folder);
    if (result == ST_OK)
        *connected = it;
    else if (it >= 0)
        (void)close(it);
    return result;
}
