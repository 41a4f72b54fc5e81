/*
 * publisher_machine: every decision of the publisher, as a state machine without threads, clock
 * or I/O. The state names the one thing that the driver has to do now; the driver does it and
 * hands back an event that says how it went:
 *
 *     order *next = machine_start(...);
 *     while (next->state != M_STOPPED)
 *         next = machine_step(machine, perform(next));
 *
 * The happy path:
 *     SETTLING -> IDLE -> BEGINNING -> FILLING -> FLUSHING -> COMMITTING -> IDLE -> ...
 * Every failure, of whatever kind, takes one way: throw the producer away, pause, settle. What
 * differs (how long, what the operator is told, whether to look for a poisonous event) is in one
 * table of policies; which event may come in which state, and where it may lead, in another.
 *
 * Invariants, checked by tests/simulation against a simulated Kafka:
 *   I1 a producer never lives on after an abort, a failure or a doubt;
 *   I2 a transaction starts at the settled position + 1, and the position it carries is the last
 *      sequence that was read for it;
 *   I3 the settled position moves only on a commit beyond doubt or on what was read from Kafka;
 *   I4 an event is set aside only after it failed as the only event of a transaction.
 *
 * Which one failed is not told: a broker refuses whole batches. Where it was the size, the largest
 * record of the transaction is the suspect, and from then on every record as large goes alone: the
 * first of many poisons takes a few transactions, each other one two (what is before it, and it).
 * When such a one gets through, it may have been a batch of them together, and batches get smaller.
 * Where size was not the reason, or does not tell, the transaction is halved.
 */
#ifndef INGEST_SERVER_PUBLISHER_MACHINE_H
#define INGEST_SERVER_PUBLISHER_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/status.h"

/* X(name, what the driver does in it) */
#define MACHINE_STATES(X)                                                                          \
    X(M_NEW, "nothing yet")                                                                        \
    X(M_SETTLING, "new producer; ask Kafka where the route stands")                                \
    X(M_ANCHORING, "sync to the store that a position record exists")                              \
    X(M_IDLE, "wait for events")                                                                   \
    X(M_BEGINNING, "begin a transaction")                                                          \
    X(M_FILLING, "read events and produce them")                                                   \
    X(M_LINGERING, "wait for more events for the open transaction")                                \
    X(M_FLUSHING, "produce the position, wait for all delivery reports")                           \
    X(M_COMMITTING, "commit, timed alone")                                                         \
    X(M_BURYING, "move one event to the dead letters")                                             \
    X(M_PAUSED, "wait before settling again")                                                      \
    X(M_STOPPED, "end")

/* X(name, when) */
#define MACHINE_EVENTS(X)                                                                          \
    X(EV_START, "the publisher starts")                                                            \
    X(EV_SETTLED, "Kafka was asked where the route stands")                                        \
    X(EV_ANCHORED, "the anchor is synced")                                                         \
    X(EV_AVAILABLE, "there are events to read")                                                    \
    X(EV_TIME, "the wait is over")                                                                 \
    X(EV_STOP, "a wait was ended by publisher_stop")                                               \
    X(EV_BEGUN, "a transaction is open")                                                           \
    X(EV_FILLED, "read up to the limits, or to the end of what there is")                          \
    X(EV_FLUSHED, "all records are delivered")                                                     \
    X(EV_COMMITTED, "the commit returned OK")                                                      \
    X(EV_BURIED, "the event is a dead letter")                                                     \
    X(EV_FAILED, "what the state wanted failed; see fault")

typedef enum machine_state {
#define X(name, meaning) name,
    MACHINE_STATES(X)
#undef X
        M_STATE_COUNT
} machine_state;

typedef enum machine_event_kind {
#define X(name, meaning) name,
    MACHINE_EVENTS(X)
#undef X
        EV_COUNT
} machine_event_kind;

/* Whose fault a failure is; this decides what happens next. */
typedef enum fault {
    FAULT_NONE,
    FAULT_AWAY,      /* nobody's: Kafka does not answer, or not in time */
    FAULT_DOUBT,     /* a commit may or may not have happened */
    FAULT_RECORD,    /* a record was refused for what it is */
    FAULT_ROUTE,     /* the topic or our rights: the route cannot be written */
    FAULT_STUCK,     /* nobody's either: Kafka answers, and takes nothing from this route */
    FAULT_FENCED,    /* another producer took our transactional id, or we slept too long */
    FAULT_FATAL,     /* the library gave up on this producer */
    FAULT_DEAD_FULL, /* no room for another dead letter */
    FAULT_HALT,      /* only an operator can decide */
    FAULT_BUG,       /* an event that the table does not know */
    FAULT_COUNT
} fault;

typedef enum machine_standing {
    STANDING_GOOD,
    STANDING_RETRYING,
    STANDING_BLOCKED,
    STANDING_HALTED
} machine_standing;

/* What settling found. */
typedef struct settle_facts {
    bool found; /* a position record of this route */
    uint64_t sequence;
    outcome known;          /* with found: store_check_position's answer */
    bool has_published;     /* the store knows that a position record was committed */
    uint64_t hint_sequence; /* settled once, durable in the store; all up to here may be deleted */
    uint64_t last_sequence; /* last synced in the store */
} settle_facts;

typedef struct machine_event {
    machine_event_kind kind;
    int64_t now_ms; /* monotonic */
    union {
        settle_facts settled; /* EV_SETTLED */
        struct {              /* EV_COMMITTED */
            int64_t elapsed_ms;
            bool transport_error; /* one was reported since the transaction began */
        } committed;
    };
    /* EV_FILLED, and EV_FAILED in M_FILLING: what was read by this order. */
    struct {
        uint64_t last_sequence;  /* last record read; 0: none */
        uint64_t event_sequence; /* last of them that is an event, and not a moved one; 0: none */
        uint64_t events;
        uint64_t bytes;
        uint64_t largest_bytes; /* the largest record */
        bool closed;            /* a suspect ends it: the one read last, or one left unread */
    } filled;
    struct { /* EV_FAILED */
        fault fault;
        int32_t code;     /* librdkafka's, or 0 */
        bool by_size;     /* FAULT_RECORD: a record, or a batch of them, is too large */
        const char *text; /* borrowed during the call */
    } failed;
} machine_event;

/* What the driver has to do now. */
typedef struct machine_order {
    machine_state state;
    fault discard;    /* not FAULT_NONE: first throw the producer away, for this reason */
    int64_t wait_ms;  /* M_IDLE, M_LINGERING, M_PAUSED: at most */
    uint64_t after;   /* M_IDLE, M_LINGERING: for a record above this sequence */
    uint64_t from;    /* M_FILLING: the first sequence to read, */
    uint64_t upto;    /*   the last one, */
    uint64_t bytes;   /*   and stop when so many bytes were read, */
    int64_t fill_ms;  /*   or after so long, */
    uint64_t suspect; /*   and have a record of so many bytes or more alone in the transaction */
    bool empty;       /*   (nothing was read for it yet) */
    uint64_t
        batch; /* M_SETTLING: the new producer's batches stay below, in bytes; 0: the default */
    uint64_t sequence;  /* M_FLUSHING: the position to produce; M_BURYING: the event */
    int32_t code;       /* M_BURYING: librdkafka's error, */
    uint32_t attempts;  /*   how often it failed, */
    int64_t suspect_ms; /*   and how long ago for the first time */
    bool report;        /* standing or text are new: tell people */
    const char *text;   /* the last failure, for people; the machine's */
} machine_order;

typedef struct machine_options {
    bool transactional; /* false: at least once, no position in Kafka */
    uint64_t max_events;
    uint64_t max_bytes;
    int64_t linger_ms;
    int64_t doubt_ms;            /* a commit that took this long is in doubt */
    uint64_t seed;               /* of the jitter */
    const char *store_directory; /* for the texts that name a command; borrowed; may be NULL */
} machine_options;

#define MACHINE_FENCES 3 /* so many within MACHINE_FENCES_MS raise the alarm */
#define MACHINE_FENCES_MS (5 * 60 * 1000)
/* So many flushes in a row ran out of time, with Kafka answering in between. */
#define MACHINE_STUCK 2
#define MACHINE_BATCH_BYTES 1000000 /* of the producer, when the order says nothing else */
#define MACHINE_IDLE_MS 1000        /* M_IDLE comes back this often, for the driver's chores */
/* A transaction takes no more events when it has been open for so long: a large one pays once for
 * what each of them costs, but its readers wait for its end. */
#define MACHINE_FILL_MS 500

/* Read the public part, touch nothing. */
typedef struct publisher_machine {
    machine_state state;
    machine_standing standing;
    uint64_t position; /* settled */
    char text[512];    /* of the last failure; "" when there was none */
    /* private */
    machine_options options;
    machine_order order;
    machine_state failed_in; /* where the present standing comes from */
    bool founding;           /* the transaction writes the first position record, no events */
    uint32_t failures;       /* in a row */
    uint32_t stuck;          /* flushes that ran out of time since the last commit */
    uint64_t random;
    int64_t fences_ms[MACHINE_FENCES]; /* the last ones, as a ring */
    uint32_t fence_count;
    /* the open transaction */
    uint64_t read;  /* last sequence read for it */
    uint64_t event; /* last of its events */
    uint64_t events;
    uint64_t bytes;
    uint64_t largest;  /* bytes of its largest record */
    bool closed;       /* takes no more events */
    int64_t opened_ms; /* its first event was read */
    /* looking for a poisonous event */
    uint64_t limit;         /* records in the next transaction */
    uint64_t suspect_until; /* one of (position, this] failed; 0: no suspicion */
    bool halving;           /* no size tells which one */
    uint64_t suspect_bytes; /* records of this size or more go alone; 0: none */
    uint64_t proven_bytes;  /* a record of this size got through */
    uint64_t batch_bytes;   /* see machine_order.batch */
    uint32_t suspect_attempts;
    int64_t suspect_since_ms;
} publisher_machine;

const machine_order *machine_start(publisher_machine *it, const machine_options *options,
                                   int64_t now_ms);
const machine_order *machine_step(publisher_machine *it, const machine_event *event);

const char *machine_state_name(machine_state state);
const char *machine_event_name(machine_event_kind kind);
const char *machine_fault_name(fault what);
/* Whether the table has this pair; for the tests. */
bool machine_declared(machine_state state, machine_event_kind kind);

#endif
