#include "client/publisher/replica_state.h"

static const replica_state NEXT[REPLICA_STATE_COUNT][REPLICA_EVENT_COUNT] = {
    [RS_PAUSED] = {[RE_TIME] = RS_CONNECTING,
                   [RE_WELL] = RS_PAUSED,
                   [RE_UNWELL] = RS_PAUSED,
                   [RE_LOST] = RS_PAUSED},
    [RS_CONNECTING] = {[RE_TIME] = RS_PAUSED,
                       [RE_WELL] = RS_SERVING,
                       [RE_UNWELL] = RS_UNWELL,
                       [RE_LOST] = RS_PAUSED},
    [RS_UNWELL] = {[RE_TIME] = RS_UNWELL,
                   [RE_WELL] = RS_SERVING,
                   [RE_UNWELL] = RS_UNWELL,
                   [RE_LOST] = RS_PAUSED},
    [RS_SERVING] = {[RE_TIME] = RS_SERVING,
                    [RE_WELL] = RS_SERVING,
                    [RE_UNWELL] = RS_UNWELL,
                    [RE_LOST] = RS_PAUSED},
};

replica_state replica_state_next(replica_state state, replica_event event) {
    return NEXT[state][event];
}

const char *replica_state_text(replica_state state) {
    static const char *const TEXTS[] = {
#define X(name, text) text,
        REPLICA_STATES(X)
#undef X
    };
    return TEXTS[state];
}
