/*
 * failed_query: which failed events are meant, and going through them page by page, each page
 * bounded in what is read for it. Any thread; blocks for the disk.
 */
#ifndef INGEST_CLIENT_FAILED_QUERY_H
#define INGEST_CLIENT_FAILED_QUERY_H

#include "storage/failed_store.h"

/* All that is set must hold. Borrowed. */
typedef struct failed_query {
    uint64_t number;           /* 0: any */
    bytes id, operation, code; /* data NULL: any */
    uint64_t after;            /* numbers above it only */
    uint64_t limit;            /* at most so many; 0: no limit */
    bool with_events;
} failed_query;

typedef struct failed_page {
    uint64_t last;  /* looked at, matching or not: the next page goes on behind it */
    uint64_t count; /* matched */
    bool more;      /* there may be others behind `last` */
} failed_page;

/* Calls `each` for those that match, until it returns false (that one counts), `limit` are told or
 * `read_max` were read. A failure leaves in `page` how far it came. */
MUST_CHECK outcome failed_query_page(const failed_store *store, const failed_query *query,
                                     uint64_t read_max,
                                     bool (*each)(void *arg, const failed_record *record),
                                     void *arg, failed_page *page, failure *why);

/* The numbers of the next page, at most `most`. */
MUST_CHECK outcome failed_query_numbers(const failed_store *store, const failed_query *query,
                                        uint64_t *numbers, size_t most, failed_page *page,
                                        failure *why);

enum { FAILED_READ_MAX = 20000 }; /* for a page, when nothing speaks against it */

#endif
