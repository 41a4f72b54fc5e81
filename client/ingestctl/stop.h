/*
 * stop: ^C and SIGTERM, for the commands that have something to finish. The first one is noted, and
 * a read or a pause that waits ends early; the second one ends the process.
 */
#ifndef INGEST_CLIENT_INGESTCTL_STOP_H
#define INGEST_CLIENT_INGESTCTL_STOP_H

#include <stdbool.h>

enum { STOP_GRACE_MS = 3000 }; /* for the answers that are still due */

void stop_on_signals(void);
bool stop_asked(void);
/* What is called at the first one, in the signal's handler. Before stop_on_signals. */
void stop_calls(void (*then)(void));

#endif
