/*
 * survey: goes over all of a salvaged store, says what is there and what is lost, and on wish
 * hands over what a repaired store has to hold. Private to storage/. One thread; blocks.
 */
#ifndef INGEST_STORAGE_SURVEY_H
#define INGEST_STORAGE_SURVEY_H

#include "storage/salvage.h"

/* Takes an entry of the repaired store. Later ones replace earlier ones of the same key. */
typedef outcome (*survey_put)(void *arg, store_family family, bytes key, bytes value, failure *why);

/* What is readable of meta, in the form in which an open store has it; freed by store_free. When it
 * is not whole survey->identity_lost is set. ST_PRECONDITION: a newer format. */
MUST_CHECK outcome survey_meta(salvage *from, event_store **meta, failure *why);

/*
 * Fills the survey (but for `kept_in`) and hands the entries of outbox, dead and ids to `put`, if
 * it is not NULL. In `meta` the ledgers become those of the repaired store, each synced.last the
 * last sequence given out, and `moved` the lost ones above the hint.
 */
MUST_CHECK outcome survey_walk(salvage *from, event_store *meta, survey_put put, void *arg,
                               failure *why);

#endif
