/*
 * cleaner: one thread that gives disk space back behind the publishers, off the path of the
 * acknowledgements. It writes no data: it drops whole tables that hold only settled records, lets
 * RocksDB flush and compact what is left after a drain so that old logs go, and restores the
 * ballast. Started and stopped by store_open and store_close; what fails is logged and tried again.
 */
#ifndef INGEST_STORAGE_CLEANER_H
#define INGEST_STORAGE_CLEANER_H

#include "storage/store_internal.h"

MUST_CHECK outcome cleaner_start(event_store *store, failure *why);
/* Interrupts a compaction that is under way. To be called while RocksDB is open. */
void cleaner_stop(event_store *store);

#endif
