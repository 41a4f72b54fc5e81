/*
 * control: the server's side of the control socket, through which `ingestctl failed` and the
 * ingest_failed_* functions reach the failed events of a consumer that runs. A unix socket, 0600,
 * in the data folder; the frames are described in control_wire.h. There is nothing else on it.
 *
 * One request after the other on a connection, each answered by a page that is bounded in time,
 * memory and what is read for it; whoever wants more asks again. So no peer holds anything for
 * long: at most CONTROL_PEERS of them, each with one request and one page; others wait in the
 * socket's queue. Whoever sends garbage is told so and cut off, as is whoever takes longer than
 * CONTROL_PEER_MS to ask the next thing or to read an answer. Only processes of the same user, or
 * root, are served.
 *
 * Threads: one of its own. It reads the store itself (failed_store_each runs beside writes), and
 * asks for changes through control_hooks.
 */
#ifndef INGEST_CLIENT_CONTROL_H
#define INGEST_CLIENT_CONTROL_H

#include "storage/failed_store.h"

enum {
    CONTROL_PEERS = 8,
    CONTROL_PEER_MS = 30000,
    CONTROL_BATCH = 1000,         /* numbers for one call of `change` */
    CONTROL_PAGE_BYTES = 1 << 20, /* a page ends behind the record that exceeds it */
};

typedef enum control_change { CHANGE_RETRY, CHANGE_DISCARD } control_change;

typedef struct control_hooks {
    /*
     * On the control thread; may block until it is done and synced, for some seconds. The records
     * of `numbers` (ascending, at most CONTROL_BATCH) were there a moment ago, those that are not
     * any more are passed over. `done`: how many were changed, also when it fails.
     * CHANGE_RETRY: they go on at the effect where they stopped, as soon as may be, attempts
     * counted anew. CHANGE_DISCARD: they are deleted as if done. ST_STOPPING: the consumer is
     * ending; must be what callers get that wait when control_stop is called, or that never
     * returns.
     */
    outcome (*change)(void *arg, control_change change, const uint64_t *numbers, size_t count,
                      uint64_t *done, failure *why);
    void *arg;
    int64_t peer_ms; /* CONTROL_PEER_MS when 0 */
} control_hooks;

typedef struct control control;

/* `directory` is the store's, and `store` open: its lock says that no other process serves here. A
 * socket that another process left behind is replaced. Both outlive the control. */
MUST_CHECK outcome control_start(const char *directory, const failed_store *store,
                                 const control_hooks *hooks, control **out, failure *why);
/* Removes the socket, ends the thread; to be called before the store is closed. NULL is fine. */
void control_stop(control *control);

#endif
