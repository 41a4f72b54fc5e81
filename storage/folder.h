/* folder: whole folders and files, durably. Any thread; every function blocks. */
#ifndef INGEST_STORAGE_FOLDER_H
#define INGEST_STORAGE_FOLDER_H

#include "storage/status.h"

#define PATH_SIZE 4096

/* FOLDER/NAME; one that is too long is cut, and then found missing. */
void path_join(char path[PATH_SIZE], const char *folder, const char *name);

/* A new or renamed file is there after a power cut only once its folder was synced. */
MUST_CHECK outcome folder_sync(const char *path, failure *why);
/* Locks the folder's file LOCK, made when missing, until *file is closed. ST_UNAVAILABLE: another
 * process has it. */
MUST_CHECK outcome folder_lock(const char *path, int *file, failure *why);
/* Makes it when it is missing. */
MUST_CHECK outcome folder_make(const char *path, failure *why);
/* Removes it with all that is in it; a missing one is ST_OK. */
MUST_CHECK outcome folder_remove(const char *path, failure *why);

/* A second name for the file, or a copy where the file system has no such thing. */
MUST_CHECK outcome file_link(const char *from, const char *to, failure *why);
MUST_CHECK outcome file_copy(const char *from, const char *to, failure *why);

#endif
