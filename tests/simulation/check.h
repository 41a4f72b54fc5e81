/* check: the promises, against the logs as a reader of committed records sees them. */
#ifndef INGEST_SIMULATION_CHECK_H
#define INGEST_SIMULATION_CHECK_H

#include "cluster.h"
#include "life.h"
#include "server/publisher.h"
#include "volume.h"

#define LIFE_EVENTS 120
#define LLU(number) ((unsigned long long)(number))

typedef struct host {
    volume *disk;
    process *process;
    event_store *store;
    publisher *publisher; /* NULL: down */
} host;

typedef enum life_kind {
    KIND_WHOLE,       /* nothing may be missing */
    KIND_LOST,        /* Kafka loses commits */
    KIND_ROLLED_BACK, /* the volume goes back to an older snapshot */
    KIND_CLONED,      /* two volumes with one identity */
} life_kind;

typedef struct life {
    life_kind kind;
    bool calm;
    int64_t pace;
    unsigned processes;
    host hosts[2];
    size_t host_count;
    host zombie; /* has lost its disk */
    volume volumes[2];
    volume snapshot;
    event events[LIFE_EVENTS];
    host *home[LIFE_EVENTS]; /* who was sent it */
    size_t event_count;
    size_t submitted;
    bool lost[LIFE_EVENTS]; /* by Kafka, or may be */
    bool must_halt;         /* after the loss */
    bool may_double;        /* it took positions, not the events */
    life_figures *figures;
} life;

bool host_is_halted(host *on, publisher_status *status);

/* Before the partition loses what is at `kept` and behind; and after all have. */
void check_note_loss(life *it, const partition *from, int64_t kept);
void check_expect_halt(life *it);
/* Everything is acknowledged, and settled or halted. */
bool check_finished(life *it);
void check_promises(life *it);

#endif
