/* The check of RocksDB's log: passes it, repairs its tail, or refuses it; checked again, a repaired
 * log passes as it is. */
#include "fuzz.h"

#include "storage/wal_check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], log_file[96], tail[96];

static void set_up(void) {
    (void)snprintf(folder, sizeof folder, "/dev/shm/fuzz-wal-XXXXXX");
    PROMISE(mkdtemp(folder));
    (void)snprintf(log_file, sizeof log_file, "%s/000004.log", folder);
    (void)snprintf(tail, sizeof tail, "%s/torn-tail", folder);
}

static void clean_up(void) {
    (void)unlink(log_file);
    (void)unlink(tail);
    (void)rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!folder[0]) {
        set_up();
        (void)atexit(clean_up);
    }
    int file = open(log_file, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    PROMISE(file >= 0 && write(file, data, size) == (ssize_t)size);
    (void)close(file);
    const wal_bounds bounds = {0}; /* nothing is known from elsewhere */
    wal_repair repair;
    failure why = {0};
    if (wal_check(folder, tail, &bounds, &repair, &why) != ST_OK) {
        PROMISE(why.reason[0]);
        return 0;
    }
    if (!repair.repaired) return 0;
    PROMISE(repair.kept + repair.cut_bytes == size);
    PROMISE(wal_check(folder, tail, &bounds, &repair, &why) == ST_OK && !repair.repaired);
    return 0;
}
