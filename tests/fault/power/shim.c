/*
 * The power shim: a preloaded library that stands between a program and the files of one folder,
 * keeps the model of what is on the disk (disk_model.h), cuts the power at a chosen call, and makes
 * chosen calls fail. A cut ends the process at once and puts in the folder's place what the disk
 * would have. Everything is said by the environment:
 *
 *   POWER_ROOT=FOLDER      the folder; everything below it is watched
 *   POWER_SEED=N           for all that is drawn
 *   POWER_CUT=N            cut instead of the N-th call that changes or syncs something; 0: never
 *   POWER_AIM=KIND:NAME    only such calls on a file whose name begins so count for the cut
 *   POWER_FAULT=KIND:N:ERROR:TIMES   the N-th call of that kind, and those behind it, TIMES in all,
 *                          fail: write sync open rename unlink resize mkdir read alloc;
 *                          EIO ENOSPC ENOMEM EMFILE, or SHORT: half of a write is done
 *   POWER_FROM_MARK=1      both are counted from power_mark()
 *   POWER_SYNC_US=N        a sync takes up to so long
 *   POWER_REPORT=FILE      a line of JSON at the end
 *
 * One lock makes each call and its entry in the model one step. An `alloc` is a malloc, calloc or
 * realloc that the program's own code calls; those of shared libraries are left alone.
 */
#include "disk_model.h"
#include "power.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 65536, SHORT = -1 };

typedef enum call_kind {
    CALL_WRITE,
    CALL_SYNC,
    CALL_OPEN,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_RESIZE,
    CALL_MKDIR,
    CALL_READ,
    CALL_ALLOC,
    CALL_KINDS
} call_kind;

static const char *const KIND_NAMES[CALL_KINDS] = {"write",  "sync",  "open", "rename", "unlink",
                                                   "resize", "mkdir", "read", "alloc"};

static struct {
    int (*open)(const char *, int, ...);
    int (*close)(int);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*read)(int, void *, size_t);
    ssize_t (*pread)(int, void *, size_t, off_t);
    int (*fsync)(int);
    int (*fdatasync)(int);
    int (*ftruncate)(int, off_t);
    int (*fallocate)(int, int, off_t, off_t);
    int (*posix_fallocate)(int, off_t, off_t);
    int (*rename)(const char *, const char *);
    int (*unlink)(const char *);
    int (*mkdir)(const char *, mode_t);
    int (*rmdir)(const char *);
} real;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool inside; /* the shim's own calls go straight through */
static _Thread_local bool log_failed;
static bool watching;
static disk_node *_Atomic files[FILES_MAX]; /* by descriptor; NULL: not ours */

static bool counting;
static uint64_t calls; /* counted so far, that a cut can stand in for */
static uint64_t cut_at;
static call_kind aim_kind = CALL_KINDS; /* none */
static char aim_name[32];
static uint64_t sync_us;
static _Atomic uint64_t kind_calls[CALL_KINDS];
static struct {
    call_kind kind;
    uint64_t at;
    uint64_t times;
    int error;
    _Atomic uint64_t done;
} fault;
static uintptr_t text_from, text_to; /* the program's own code */

/* ---- the start ----------------------------------------------------------------------------- */

static uint64_t number(const char *name) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

static int find_text(struct dl_phdr_info *object, size_t size, void *arg) {
    (void)size, (void)arg;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        text_from = object->dlpi_addr + part->p_vaddr;
        text_to = text_from + part->p_memsz;
    }
    return 1; /* the first object is the program */
}

static call_kind kind_called(const char *name) {
    int kind = 0;
    while (kind < CALL_KINDS && strcmp(name, KIND_NAMES[kind]) != 0)
        kind++;
    return (call_kind)kind;
}

static void read_aim(void) {
    const char *text = getenv("POWER_AIM");
    char kind[16];
    if (!text || sscanf(text, "%15[a-z]:%31s", kind, aim_name) != 2) return;
    aim_kind = kind_called(kind);
    if (aim_kind == CALL_KINDS) abort();
}

static void read_fault(void) {
    static const struct {
        const char *name;
        int error;
    } errors[] = {
        {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM}, {"EMFILE", EMFILE}, {"SHORT", SHORT}};
    const char *text = getenv("POWER_FAULT");
    char kind[16];
    char error[16];
    if (!text || !*text) return;
    if (sscanf(text, "%15[a-z]:%lu:%15[A-Z]:%lu", kind, &fault.at, error, &fault.times) != 4) {
        fprintf(stderr, "power shim: POWER_FAULT=%s is not KIND:N:ERROR:TIMES\n", text);
        abort();
    }
    fault.kind = kind_called(kind);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (strcmp(error, errors[i].name) == 0) fault.error = errors[i].error;
    if (fault.kind == CALL_KINDS || !fault.error) abort();
}

static void find_real(void) {
#define FIND(name) *(void **)&real.name = dlsym(RTLD_NEXT, #name)
    FIND(open), FIND(close), FIND(write), FIND(pwrite), FIND(read), FIND(pread);
    FIND(fsync), FIND(fdatasync), FIND(ftruncate), FIND(fallocate), FIND(posix_fallocate);
    FIND(rename), FIND(unlink), FIND(mkdir), FIND(rmdir);
#undef FIND
}

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("POWER_ROOT");
    find_real();
    if (!folder || !*folder) return;
    inside = true;
    cut_at = number("POWER_CUT");
    sync_us = number("POWER_SYNC_US");
    read_aim();
    read_fault();
    (void)dl_iterate_phdr(find_text, NULL);
    disk_init(folder, number("POWER_SEED"));
    counting = number("POWER_FROM_MARK") == 0;
    inside = false;
    watching = true;
}

/* ---- the cut ------------------------------------------------------------------------------- */

static void report(int status, const disk_losses *losses) {
    const char *path = getenv("POWER_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    (void)fprintf(file,
                  "{\"status\": %d, \"calls\": %lu, \"faults\": %lu, \"files\": %lu, "
                  "\"torn_files\": %lu, \"names\": %lu, \"lost_names\": %lu",
                  status, calls, atomic_load(&fault.done), losses->files, losses->torn_files,
                  losses->names, losses->lost_names);
    for (int i = 0; i < CALL_KINDS; i++)
        (void)fprintf(file, ", \"%s\": %lu", KIND_NAMES[i], atomic_load(&kind_calls[i]));
    (void)fprintf(file, "}\n");
    (void)fclose(file);
}

/* Under the lock, which nobody gets any more. */
static _Noreturn void cut(int status) {
    inside = true;
    disk_check();
    disk_losses losses = disk_cut();
    report(status, &losses);
    _exit(status);
}

void power_cut(int status) {
    (void)pthread_mutex_lock(&lock);
    cut(status);
}

/* An assertion of a library: ends the process as abort() would, and the power with it. */
void __assert_fail(const char *text, const char *file, unsigned line, const char *function) {
    (void)fprintf(stderr, "assertion failed: %s:%u: %s: %s\n", file, line, function, text);
    void *frames[32];
    backtrace_symbols_fd(frames, backtrace(frames, 32), STDERR_FILENO);
    if (!watching || inside) abort();
    power_cut(POWER_ASSERTED_STATUS);
}

void power_mark(void) {
    (void)pthread_mutex_lock(&lock);
    counting = true;
    (void)pthread_mutex_unlock(&lock);
}

bool power_log_failed(void) { return log_failed; }

/* ---- what stands before each call ------------------------------------------------------------ */

static void enter(void) {
    (void)pthread_mutex_lock(&lock);
    inside = true;
}

static void leave(void) {
    int error = errno;
    inside = false;
    (void)pthread_mutex_unlock(&lock);
    errno = error;
}

/* Counts a call of that kind: 0, or how it is to fail. */
static int fails(call_kind kind) {
    if (!counting) return 0;
    uint64_t now = atomic_fetch_add(&kind_calls[kind], 1) + 1;
    if (!fault.at || kind != fault.kind || now < fault.at || now >= fault.at + fault.times)
        return 0;
    atomic_fetch_add(&fault.done, 1);
    return fault.error;
}

static bool counts(call_kind kind, const char *path) {
    if (aim_kind == CALL_KINDS) return true;
    const char *slash = strrchr(path, '/');
    return kind == aim_kind && strncmp(slash ? slash + 1 : path, aim_name, strlen(aim_name)) == 0;
}

/* The same for a call that changes or syncs something, under the lock; may not return. */
static int step(call_kind kind, const char *path) {
    if (counting && counts(kind, path) && ++calls == cut_at) cut(POWER_CUT_STATUS);
    return fails(kind);
}

static disk_node *node_of(int file) {
    if (!watching || inside || file < 0 || file >= FILES_MAX) return NULL;
    return atomic_load_explicit(&files[file], memory_order_acquire);
}

static bool ours(const char *path, char below[DISK_PATH_SIZE]) {
    return watching && !inside && disk_path(path, below);
}

static void note_failure(const disk_node *node) {
    const char *dot = strrchr(disk_name(node), '.');
    if (dot && strcmp(dot, ".log") == 0) log_failed = true;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int open_ours(const char *path, const char *below, int flags, mode_t mode) {
    bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    int result = -1;
    enter();
    int error = changes ? step(CALL_OPEN, below) : fails(CALL_OPEN);
    disk_node *node = disk_find(below);
    if (error) {
        errno = error;
    } else {
        if (node && changes) disk_keep(node);
        result = real.open(path, flags, mode);
    }
    if (result >= FILES_MAX) abort();
    if (result >= 0) {
        if (!node) node = disk_create(below, false);
        if (flags & O_TRUNC) disk_resize(node, 0);
        atomic_store_explicit(&files[result], node, memory_order_release);
    }
    leave();
    return result;
}

int open(const char *path, int flags, ...) {
    char below[DISK_PATH_SIZE];
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    if (!ours(path, below)) return real.open(path, flags, mode);
    return open_ours(path, below, flags, mode);
}

int close(int file) {
    if (!node_of(file)) return real.close(file);
    enter();
    atomic_store_explicit(&files[file], NULL, memory_order_release);
    int result = real.close(file);
    leave();
    return result;
}

int rename(const char *from, const char *to) {
    char old[DISK_PATH_SIZE];
    char new[DISK_PATH_SIZE];
    if (!ours(from, old) || !ours(to, new)) return real.rename(from, to);
    enter();
    int result = -1;
    errno = step(CALL_RENAME, new);
    if (!errno) {
        disk_rename(old, new);
        result = real.rename(from, to);
    }
    leave();
    return result;
}

static int remove_ours(const char *path, const char *below, int (*remove_it)(const char *)) {
    enter();
    int result = -1;
    errno = step(CALL_UNLINK, below);
    if (!errno) {
        disk_unlink(below);
        result = remove_it(path);
    }
    leave();
    return result;
}

int unlink(const char *path) {
    char below[DISK_PATH_SIZE];
    return ours(path, below) ? remove_ours(path, below, real.unlink) : real.unlink(path);
}

int rmdir(const char *path) {
    char below[DISK_PATH_SIZE];
    return ours(path, below) ? remove_ours(path, below, real.rmdir) : real.rmdir(path);
}

int mkdir(const char *path, mode_t mode) {
    char below[DISK_PATH_SIZE];
    if (!ours(path, below)) return real.mkdir(path, mode);
    enter();
    int result = -1;
    errno = step(CALL_MKDIR, below);
    if (!errno) result = real.mkdir(path, mode);
    if (result == 0) (void)disk_create(below, true);
    leave();
    return result;
}

/* ---- bytes ------------------------------------------------------------------------------------
 */

/* `at` < 0: at the file's own offset. */
static ssize_t write_ours(disk_node *node, int file, const void *data, size_t len, off_t at) {
    enter();
    ssize_t result = -1;
    int error = step(CALL_WRITE, disk_name(node));
    if (error == SHORT) {
        len = (len + 1) / 2;
        error = 0;
    }
    off_t where = at;
    if (at < 0) {
        struct stat status;
        bool append = fcntl(file, F_GETFL) & O_APPEND;
        where = append && fstat(file, &status) == 0 ? status.st_size : lseek(file, 0, SEEK_CUR);
    }
    if (error) {
        note_failure(node);
        errno = error;
    } else {
        result = at < 0 ? real.write(file, data, len) : real.pwrite(file, data, len, at);
    }
    if (result > 0) disk_write(node, where, data, (size_t)result);
    leave();
    return result;
}

ssize_t write(int file, const void *data, size_t len) {
    disk_node *node = node_of(file);
    return node ? write_ours(node, file, data, len, -1) : real.write(file, data, len);
}

ssize_t pwrite(int file, const void *data, size_t len, off_t at) {
    disk_node *node = node_of(file);
    return node ? write_ours(node, file, data, len, at) : real.pwrite(file, data, len, at);
}

/* Reading changes nothing, and is only made to fail. */
static bool read_fails(int file) {
    if (!node_of(file)) return false;
    int error = fails(CALL_READ);
    if (error) errno = error;
    return error != 0;
}

ssize_t read(int file, void *data, size_t len) {
    return read_fails(file) ? -1 : real.read(file, data, len);
}

ssize_t pread(int file, void *data, size_t len, off_t at) {
    return read_fails(file) ? -1 : real.pread(file, data, len, at);
}

/* The bytes are on the disk when the call returns; a cut while it takes its time may lose them.
 * The real sync is left out: the model is the disk. */
static int sync_ours(disk_node *node) {
    enter();
    int error = step(CALL_SYNC, disk_name(node));
    uint64_t wait_us = sync_us ? disk_random(sync_us) : 0;
    leave();
    if (wait_us) (void)usleep((useconds_t)wait_us);
    enter();
    if (error) {
        note_failure(node);
        disk_sync_failed(node);
    } else {
        disk_sync(node);
    }
    errno = error;
    leave();
    return error ? -1 : 0;
}

int fsync(int file) {
    disk_node *node = node_of(file);
    return node ? sync_ours(node) : real.fsync(file);
}

int fdatasync(int file) {
    disk_node *node = node_of(file);
    return node ? sync_ours(node) : real.fdatasync(file);
}

/* Only starts the writing: nothing is safe by it. */
int sync_file_range(int file, off_t from, off_t len, unsigned flags) {
    (void)file, (void)from, (void)len, (void)flags;
    return 0;
}

int ftruncate(int file, off_t size) {
    disk_node *node = node_of(file);
    if (!node) return real.ftruncate(file, size);
    enter();
    int result = -1;
    errno = step(CALL_RESIZE, disk_name(node));
    if (!errno) result = real.ftruncate(file, size);
    if (result == 0) disk_resize(node, size);
    leave();
    return result;
}

int fallocate(int file, int mode, off_t at, off_t len) {
    disk_node *node = node_of(file);
    if (!node) return real.fallocate(file, mode, at, len);
    enter();
    int result = -1;
    struct stat before;
    struct stat after;
    errno = step(CALL_RESIZE, disk_name(node));
    if (!errno && fstat(file, &before) == 0) result = real.fallocate(file, mode, at, len);
    if (result == 0 && fstat(file, &after) == 0 && after.st_size != before.st_size)
        disk_resize(node, after.st_size);
    leave();
    return result;
}

int posix_fallocate(int file, off_t at, off_t len) {
    if (!node_of(file)) return real.posix_fallocate(file, at, len);
    return fallocate(file, 0, at, len) == 0 ? 0 : errno;
}

/* ---- memory -----------------------------------------------------------------------------------
 */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

static bool alloc_fails(void *caller) {
    uintptr_t from = (uintptr_t)caller;
    if (!watching || inside || from < text_from || from >= text_to) return false;
    int error = fails(CALL_ALLOC);
    if (error) errno = error;
    return error != 0;
}

void *malloc(size_t size) {
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}
