/* folder: makes a folder's entries durable. */
#ifndef INGEST_STORAGE_FOLDER_H
#define INGEST_STORAGE_FOLDER_H

#include "storage/status.h"

/* A new or renamed file is there after a power cut only once its folder was synced. Blocks. */
MUST_CHECK outcome folder_sync(const char *path, failure *why);

#endif
