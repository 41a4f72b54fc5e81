/* A configuration file: refused with a reason, or every value in force is inside its bounds. */
#include "fuzz.h"

#include "server/config.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int file = -1;
    static char name[64];
    if (file < 0) {
        file = memfd_create("config", 0);
        PROMISE(file >= 0);
        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    }
    PROMISE(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    char *argv[] = {"ingestd", "--config", name};
    config all;
    config_action action;
    failure why = {0};
    if (config_load(&all, 3, argv, (char *[]){NULL}, &action, &why) != ST_OK) {
        PROMISE(why.reason[0]);
        return 0;
    }
    PROMISE(action == CONFIG_RUN && all.route_count > 0 && all.route_count <= STORE_ROUTES_MAX);
    PROMISE(all.limits.max_event_bytes >= 1024 && all.limits.max_event_bytes <= 16 << 20);
    config_free(&all);
    return 0;
}
