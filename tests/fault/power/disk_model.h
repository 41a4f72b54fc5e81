/*
 * disk_model: what of a folder is on the disk, and what only the page cache has. Nearly the
 * strictest disk that POSIX allows:
 *   - bytes and the size of a file are there once fsync or fdatasync of that file succeeded;
 *   - a name (created, renamed, removed) is as it should be once its folder was synced; syncing a
 *     new file does not save its name;
 *   - of all else any part may be there after a cut: blocks of 512 bytes or 4 KiB in any
 *     combination, the size with or without the bytes, each change of a name for itself, but:
 *   - a rename comes with all that happened before it to the names of its folder, as on every file
 *     system with a journal. RocksDB 7.8 needs that: the tables that its recovery writes have their
 *     names synced only after CURRENT was renamed to a manifest that lists them.
 *
 * Nothing here is thread-safe: the shim holds its lock. Paths are below the root and relative to
 * it; "" is the root. Runs out of memory by abort().
 */
#ifndef INGEST_TESTS_DISK_MODEL_H
#define INGEST_TESTS_DISK_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { DISK_PATH_SIZE = 4096 };

typedef struct disk_node disk_node; /* a file or folder, whatever its names; never freed */

typedef struct disk_losses { /* of a cut */
    uint64_t files;          /* that had unsynced bytes */
    uint64_t torn_files;     /* of which some but not all were kept */
    uint64_t names;          /* unsynced changes of names */
    uint64_t lost_names;     /* of which were lost */
} disk_losses;

/* Takes what is in the folder as synced. */
void disk_init(const char *root, uint64_t seed);
uint64_t disk_random(uint64_t below); /* the model's generator, for whatever depends on the seed */
/* `path` relative to the root, in `out`; false when it is elsewhere. Resolves . and .. as text. */
bool disk_path(const char *path, char out[DISK_PATH_SIZE]);

disk_node *disk_find(const char *path); /* as a program sees it now; NULL: none */
const char *disk_name(const disk_node *node);
disk_node *disk_create(const char *path, bool folder);
/* To be called before the first change of a file that was there at the start. */
void disk_keep(disk_node *node);
void disk_write(disk_node *node, off_t at, const void *data, size_t len);
void disk_resize(disk_node *node, off_t size);
/* Both are called before the real call, as long as the real file is there. */
void disk_unlink(const char *path);
void disk_rename(const char *from, const char *to);

void disk_sync(disk_node *node);
/* As Linux does it: the unsynced bytes count as clean, and will never reach the disk. */
void disk_sync_failed(disk_node *node);

/* Compares the model's idea of the page cache with the real files; aborts at a difference, which
 * would be a call that the shim does not know. */
void disk_check(void);
/* Puts in the place of the folder what the disk has after a cut; the old one stays beside it, with
 * ".before" behind its name. */
disk_losses disk_cut(void);

#endif
