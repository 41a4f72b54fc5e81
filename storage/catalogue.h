/*
 * catalogue: the operations that the service knows, with their effects and their way into Kafka.
 * Read once from text, then immutable: any thread.
 *
 * Format, one entry a line, fields separated by one tab, '#' begins a comment line, empty lines
 * count for nothing; at most 1 MiB:
 *   name  kind  route  topic  indexes  tables
 *   kind: transaction | informative       route: a name from the configuration
 *   topic: for split routes, where this operation's record goes; "-": the route's topic
 *   indexes, tables: comma-separated effects, "-" for none. For the consumer, which resolves them:
 *   all_of(NAME) stands for every table of operation NAME; complete(a|b) for every table of every
 *   operation that changes the index a, in the file's order, then of those that change b: the whole
 *   record, wherever it is kept, but without what these have by a complete() of their own. (In the
 *   column of indexes: every index.) An effect that is reached twice is one, at its first place.
 */
#ifndef INGEST_STORAGE_CATALOGUE_H
#define INGEST_STORAGE_CATALOGUE_H

#include "storage/bytes.h"
#include "storage/status.h"

typedef struct catalogue catalogue;

typedef struct catalogue_entry {
    const char *name;
    bool transaction;
    const char *route;
    const char *topic; /* NULL: the route's */
    const char *const *indexes;
    size_t index_count;
    const char *const *tables;
    size_t table_count;
} catalogue_entry;

/* Copies what it needs of `text`. ST_INVALID names the line (field "catalogue:LINE") and what is
 * wrong. Whether the routes exist is for the caller to check. */
MUST_CHECK outcome catalogue_parse(bytes text, catalogue **out, failure *why);
/* The same from a file; ST_IO when it cannot be read. */
MUST_CHECK outcome catalogue_load(const char *path, catalogue **out, failure *why);
void catalogue_free(catalogue *all);

/* NULL when there is none. Constant time. */
const catalogue_entry *catalogue_find(const catalogue *all, bytes name);
size_t catalogue_count(const catalogue *all);
const catalogue_entry *catalogue_at(const catalogue *all, size_t index); /* in the file's order */

#endif
