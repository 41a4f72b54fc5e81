/*
 * replica_state: the states of the way to one replica, as a table. Pure; replica.c acts on it.
 *
 *   RS_PAUSED -> RS_CONNECTING -> RS_SERVING, and back to RS_PAUSED when the connection is lost.
 */
#ifndef INGEST_CLIENT_REPLICA_STATE_H
#define INGEST_CLIENT_REPLICA_STATE_H

/* X(name, what it does there) */
#define REPLICA_STATES(X)                                                                          \
    X(RS_PAUSED, "waits before it connects")                                                       \
    X(RS_CONNECTING, "connects, and waits for the first word on its health")                       \
    X(RS_UNWELL, "is connected, but says that it takes no events")                                 \
    X(RS_SERVING, "takes events")

/* X(name, when) */
#define REPLICA_EVENTS(X)                                                                          \
    X(RE_TIME, "the pause, or the time to connect, is over")                                       \
    X(RE_WELL, "it says that it takes events, or cannot tell")                                     \
    X(RE_UNWELL, "it says that it takes none")                                                     \
    X(RE_LOST, "the connection, or the stream of events, ended")

typedef enum replica_state {
#define X(name, text) name,
    REPLICA_STATES(X)
#undef X
        REPLICA_STATE_COUNT
} replica_state;

typedef enum replica_event {
#define X(name, text) name,
    REPLICA_EVENTS(X)
#undef X
        REPLICA_EVENT_COUNT
} replica_event;

/* The state after the event; the same one when nothing is to be done. */
replica_state replica_state_next(replica_state state, replica_event event);
const char *replica_state_text(replica_state state);

#endif
