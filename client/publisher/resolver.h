/*
 * resolver: looks up the names of a target, again and again, on a thread of its own, since a lookup
 * may block for long. A target without names is told at once and has no thread.
 */
#ifndef INGEST_CLIENT_RESOLVER_H
#define INGEST_CLIENT_RESOLVER_H

#include "client/publisher/target.h"

typedef struct resolver resolver;

/*
 * The endpoints, tidy; they go over. Or `why` they are not known (NULL, 0): what was known stays.
 * The resolver's thread, or within resolver_start; must not block. Not after resolver_stop.
 */
typedef void (*resolver_news)(void *of, endpoint *all, size_t count, const char *why);

/* Takes `names` over. */
resolver *resolver_start(target *names, resolver_news news, void *of);
/* The addresses seem to be out of date. Any thread; does not block. */
void resolver_ask(resolver *it);
/* Does not wait for a lookup under way: what that still needs frees itself afterwards. */
void resolver_stop(resolver *it);

#endif
