/*
 * salvage: reads a store that may be damaged, through RocksDB, as completely as it can. Private to
 * storage/. One thread; blocks.
 *
 * There are several views of the same data. The first is the database as its MANIFEST says: as it
 * stands when its files are sound, else a copy of it with logs that hold the readable batches
 * alone. The others are made when that one is not there or not complete: one of each table that can
 * be read whole, and one of the logs, whatever the MANIFEST says; the newest comes first. They may
 * show what was deleted since, so the first view has the last word.
 */
#ifndef INGEST_STORAGE_SALVAGE_H
#define INGEST_STORAGE_SALVAGE_H

#include "storage/evidence.h"
#include "storage/folder.h"
#include "storage/manifest.h"
#include "storage/offline.h"
#include "storage/store_internal.h"

typedef struct salvage {
    char directory[PATH_SIZE];
    store_survey *survey; /* borrowed; takes the damages */
    manifest_facts manifest;
    bool witnessed;
    evidence_state seen; /* zeros without a witness */
    bool files_sound;    /* MANIFEST and logs */
    bool tables_doubted; /* the MANIFEST may not name all tables that it should */
    store_db *views;     /* owned; the first may be without a handle: not there */
    int view_count;
    bool rebuilt;                    /* the others were made */
    bool complete[FAMILY_COUNT];     /* the first view was read without an error */
    bool anchored[STORE_ROUTES_MAX]; /* the route's hint is readable */
} salvage;

/* Whether the folder has, or had, a store in it. */
bool salvage_is_store(const char *directory);
/* `survey` must be zeroed; it may be replaced later. */
MUST_CHECK outcome salvage_open(salvage *self, const char *directory, store_survey *survey,
                                failure *why);
/* Removes what it made on disk, unless a repair's result is there. */
void salvage_close(salvage *self);

/* Whether the other views may have what is not in the first one. */
bool salvage_may_have_more(const salvage *self, store_family family);
/* Makes the other views, once; later calls do nothing. */
MUST_CHECK outcome salvage_rebuild(salvage *self, failure *why);

/* Hands over what is readable of a family in the order of its keys; what cannot be read is left
 * out, and in the first view noted as damage. Not ST_OK from `visit` ends it. */
typedef outcome (*salvage_visit)(void *arg, bytes key, bytes value, failure *why);
MUST_CHECK outcome salvage_read_view(salvage *self, int view, store_family family,
                                     salvage_visit visit, void *arg, failure *why);
/* *value as of store_db_get, or NULL: not there, or not readable. */
void salvage_get(const salvage *self, int view, store_family family, bytes key, char **value,
                 size_t *len);

/* Notes something wrong; ST_NO_MEMORY. */
MUST_CHECK outcome salvage_note(store_survey *survey, failure *why, const char *format, ...)
    PRINTF_LIKE(3, 4);

#endif
