#include "server/publisher_machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- policies: what follows from whose fault it is --------------------------------------- */

typedef struct policy {
    const char *name;
    int64_t first_ms; /* the first pause; doubles with every failure in a row, with jitter */
    int64_t last_ms;
    machine_standing standing;
    const char *advice;
} policy;

#define STUCK_ADVICE                                                                               \
    "Kafka answers but does not take this route's records: too few in-sync replicas, or no "       \
    "leader; the route goes on by itself"

static const policy POLICIES[FAULT_COUNT] = {
    [FAULT_NONE] = {"none", 0, 0, STANDING_GOOD, ""},
    [FAULT_AWAY] = {"away", 100, 10000, STANDING_RETRYING, "trying again"},
    [FAULT_DOUBT] = {"doubt", 50, 5000, STANDING_RETRYING, "asking Kafka what it has"},
    [FAULT_RECORD] = {"record", 0, 0, STANDING_GOOD, "looking for the event at fault"},
    [FAULT_ROUTE] = {"route", 1000, 60000, STANDING_BLOCKED,
                     "the route waits; correct the topic or the rights, it goes on by itself"},
    [FAULT_STUCK] = {"stuck", 1000, 10000, STANDING_BLOCKED, STUCK_ADVICE},
    [FAULT_FENCED] = {"fenced", 1000, 30000, STANDING_RETRYING, "asking Kafka what it has"},
    [FAULT_FATAL] = {"fatal", 100, 10000, STANDING_RETRYING, "trying again with a new producer"},
    [FAULT_DEAD_FULL] = {"dead_full", 5000, 60000, STANDING_BLOCKED,
                         "the route waits; purge or replay dead letters, or raise their budget"},
    [FAULT_HALT] = {"halt", 60000, 60000, STANDING_HALTED, ""},
    [FAULT_BUG] = {"bug", 60000, 60000, STANDING_HALTED, "please report this"},
};

#define FENCED_ADVICE                                                                              \
    "fenced several times in a few minutes: does another process publish for the same store (a "   \
    "volume mounted twice or cloned)? Stop it"

static uint64_t random_below(publisher_machine *it, uint64_t bound) {
    it->random ^= it->random << 13; /* xorshift64 */
    it->random ^= it->random >> 7;
    it->random ^= it->random << 17;
    return it->random % bound;
}

/* Between half of it and all of it, doubled for every earlier failure in a row. */
static int64_t pause_ms(publisher_machine *it, const policy *rule) {
    uint32_t doublings = it->failures < 16 ? it->failures : 16;
    int64_t full = rule->first_ms << doublings;
    if (full > rule->last_ms) full = rule->last_ms;
    return full - (int64_t)random_below(it, (uint64_t)full / 2 + 1);
}

static void explain(publisher_machine *it, const char *text, const char *advice) {
    char line[sizeof it->text];
    snprintf(line, sizeof line, "%s%s%s", text, *advice ? "; " : "", advice);
    if (strcmp(line, it->text) == 0) return;
    memcpy(it->text, line, sizeof line);
    it->order.report = true;
}

/* Trouble adds up until a success ends it: another, smaller trouble is no improvement. */
static void raise_standing(publisher_machine *it, machine_standing standing) {
    if (standing <= it->standing) return;
    it->standing = standing;
    it->failed_in = it->state;
    it->order.report = true;
}

static void clear_standing(publisher_machine *it) {
    if (it->standing != STANDING_GOOD) it->order.report = true;
    it->standing = STANDING_GOOD;
}

static bool fenced_often(publisher_machine *it, int64_t now_ms) {
    it->fences_ms[it->fence_count++ % MACHINE_FENCES] = now_ms;
    return it->fence_count >= MACHINE_FENCES &&
           now_ms - it->fences_ms[it->fence_count % MACHINE_FENCES] <= MACHINE_FENCES_MS;
}

/* Perhaps they were more than these brokers take in time. */
static void try_fewer(publisher_machine *it) {
    uint64_t records = it->read - it->position;
    if (records > 1) it->limit = (records + 1) / 2;
}

/* The one way out of every failure. */
static machine_state give_up(publisher_machine *it, fault what, const char *text, int64_t now_ms) {
    const policy *rule = &POLICIES[what];
    machine_standing standing = rule->standing;
    const char *advice = rule->advice;
    if (what == FAULT_FENCED && fenced_often(it, now_ms)) {
        standing = STANDING_BLOCKED;
        advice = FENCED_ADVICE;
    }
    if (what == FAULT_AWAY && it->state == M_FLUSHING && ++it->stuck >= MACHINE_STUCK) {
        standing = STANDING_BLOCKED;
        advice = STUCK_ADVICE;
    }
    explain(it, text, advice);
    raise_standing(it, standing);
    if (it->state == M_FLUSHING) try_fewer(it);
    it->batch_bytes = 0; /* tried anew; it is found again soon */
    it->order.discard = what;
    it->order.wait_ms = pause_ms(it, rule);
    it->failures++;
    /* A probe, which grows again when it gets through. Where dead letters are too many, it takes
     * the position past the last of them: until then they cannot be purged. */
    if (what == FAULT_ROUTE || what == FAULT_DEAD_FULL) it->limit = 1;
    return M_PAUSED;
}

/* ---- settling ---------------------------------------------------------------------------- */

/* Everything up to here is known to be in Kafka. */
static uint64_t settled_before(const publisher_machine *it, const settle_facts *facts) {
    return it->position > facts->hint_sequence ? it->position : facts->hint_sequence;
}

/* Point 3 of the design's section 6. Fills `text` with what is wrong and the way out, and returns
 * false, when only an operator can decide. */
static bool position_is_sound(const publisher_machine *it, const settle_facts *facts, char *text,
                              size_t size) {
    uint64_t before = settled_before(it, facts);
    const char *directory = it->options.store_directory;
    char doubled[64] = "publishes nothing twice";
    if (facts->last_sequence > before)
        snprintf(doubled, sizeof doubled, "may publish %" PRIu64 "..%" PRIu64 " twice", before + 1,
                 facts->last_sequence);
    char restore[256];
    snprintf(restore, sizeof restore,
             "stop the server and run: ingestctl store restore %.128s (%s)",
             directory ? directory : "DATA_DIR", doubled);
    /* Position 0 claims nothing. The store forgets an opening that wrote one and died before it was
     * anchored, so that one may be unknown. */
    if (facts->found && facts->sequence > 0 && facts->known == ST_NOT_FOUND)
        snprintf(text, size,
                 "Kafka's position %" PRIu64 " was written by an opening of this store that is "
                 "unknown here: the volume was rolled back or cloned. Bring the newest volume "
                 "back; or %s",
                 facts->sequence, restore);
    else if (facts->found && facts->sequence > 0 &&
             (facts->known != ST_OK || facts->sequence > facts->last_sequence))
        snprintf(text, size,
                 "Kafka's position %" PRIu64 " lies beyond what this store gave out (last here "
                 "%" PRIu64 "): the volume was rolled back. Bring the newest volume back; or %s",
                 facts->sequence, facts->last_sequence, restore);
    else if (!facts->found && facts->has_published)
        snprintf(text, size,
                 "Kafka has no position of this route, but it has published up to %" PRIu64
                 " at least: the positions topic was deleted. Bring it back; or %s",
                 before, restore);
    else if (facts->found && facts->has_published && facts->sequence < before)
        snprintf(text, size,
                 "Kafka lost what it had committed: its position is %" PRIu64 ", and %" PRIu64
                 "..%" PRIu64 " were published after it. Bring Kafka's newest state back; or, to "
                 "go on without what it lost, %s",
                 facts->sequence, facts->sequence + 1, before, restore);
    else
        return true;
    return false;
}

static machine_state on_settled(publisher_machine *it, const machine_event *event) {
    const settle_facts *facts = &event->settled;
    char text[sizeof it->text];
    if (it->options.transactional && !position_is_sound(it, facts, text, sizeof text))
        return give_up(it, FAULT_HALT, text, event->now_ms);

    uint64_t position = settled_before(it, facts);
    /* Behind `before` only after a time of at_least_once, which leaves no position in Kafka. */
    if (it->options.transactional && facts->found && facts->sequence > position)
        position = facts->sequence;
    bool progress = position > it->position;
    if (progress) it->failures = 0;
    if (progress || it->failed_in == M_SETTLING || it->failed_in == M_ANCHORING) clear_standing(it);
    it->position = position;

    it->founding = it->options.transactional && !facts->found && !facts->has_published;
    if (it->founding) return M_BEGINNING;
    if (it->options.transactional && !facts->has_published) return M_ANCHORING;
    return M_IDLE;
}

/* ---- a transaction ----------------------------------------------------------------------- */

static machine_state on_begun(publisher_machine *it, const machine_event *event) {
    it->read = it->position;
    it->event = 0;
    it->events = 0;
    it->bytes = 0;
    it->largest = 0;
    it->closed = false;
    it->opened_ms = event->now_ms;
    return it->founding ? M_FLUSHING : M_FILLING;
}

static void count_filled(publisher_machine *it, const machine_event *event) {
    if (event->filled.last_sequence > it->read) it->read = event->filled.last_sequence;
    if (event->filled.event_sequence) it->event = event->filled.event_sequence;
    it->events += event->filled.events;
    it->bytes += event->filled.bytes;
    if (event->filled.largest_bytes > it->largest) it->largest = event->filled.largest_bytes;
    it->closed = event->filled.closed;
}

/* Close, or wait for more? */
static machine_state next_of_open(publisher_machine *it, int64_t now_ms) {
    bool empty = it->read == it->position;
    bool full =
        it->closed || it->read - it->position >= it->limit || it->bytes >= it->options.max_bytes;
    bool lingered = now_ms - it->opened_ms >= it->options.linger_ms;
    return !empty && (full || lingered) ? M_FLUSHING : M_LINGERING;
}

static machine_state on_filled(publisher_machine *it, const machine_event *event) {
    count_filled(it, event);
    return next_of_open(it, event->now_ms);
}

static machine_state on_linger_time(publisher_machine *it, const machine_event *event) {
    return next_of_open(it, event->now_ms);
}

static machine_state on_linger_stop(publisher_machine *it, const machine_event *event) {
    (void)event;
    return it->read == it->position ? M_STOPPED : M_FLUSHING;
}

/* Its records got through, so none of them was too large. */
static void note_proven(publisher_machine *it) {
    if (it->largest > it->proven_bytes) it->proven_bytes = it->largest;
    if (it->largest >= it->suspect_bytes) it->suspect_bytes = 0;
}

static void after_commit(publisher_machine *it) {
    it->position = it->read;
    it->failures = 0;
    it->stuck = 0;
    clear_standing(it);
    note_proven(it);
    if (it->halving && it->position < it->suspect_until) { /* it is in what is left: halve that */
        it->limit = (it->suspect_until - it->position + 1) / 2;
        return;
    }
    if (it->position >= it->suspect_until) {
        it->suspect_until = 0;
        it->halving = false;
    }
    it->limit *= 2;
    if (it->limit > it->options.max_events) it->limit = it->options.max_events;
}

static machine_state on_committed(publisher_machine *it, const machine_event *event) {
    int64_t elapsed_ms = event->committed.elapsed_ms;
    char text[128];
    /* librdkafka repeats EndTxn by itself. Sooner than that it cannot have; later, the answer may
     * be to the second one, and the first may still be on its way, to end a later transaction. */
    if (event->committed.transport_error || elapsed_ms >= it->options.doubt_ms) {
        snprintf(text, sizeof text, "a commit is in doubt: %s after %" PRId64 " ms",
                 event->committed.transport_error ? "connection lost" : "answered", elapsed_ms);
        return give_up(it, FAULT_DOUBT, text, event->now_ms);
    }
    if (it->founding) { /* read it back before anything depends on it */
        it->order.wait_ms = 0;
        return M_PAUSED;
    }
    after_commit(it);
    return M_IDLE;
}

/* ---- looking for the event at fault -------------------------------------------------------- */

/* Too large, and alone. Whatever the topic took before, it does so no more. */
static void note_too_large(publisher_machine *it) {
    if (it->suspect_bytes == 0 || it->largest < it->suspect_bytes) it->suspect_bytes = it->largest;
    if (it->proven_bytes >= it->largest) it->proven_bytes = 0;
}

/* Something in it was too large: its largest record, unless one as large has got through; then a
 * batch of them, unless batches are as small as that already. False: size does not tell. */
static bool suspect_size(publisher_machine *it) {
    uint64_t batch = it->batch_bytes ? it->batch_bytes : MACHINE_BATCH_BYTES;
    if (it->largest > it->proven_bytes) {
        it->suspect_bytes = it->largest;
    } else if (batch > it->proven_bytes) {
        batch /= 4;
        it->batch_bytes = batch > it->proven_bytes ? batch : it->proven_bytes;
    } else {
        return false;
    }
    return true;
}

/* A record was refused; which one is not certain, for a broker refuses whole batches. Only a
 * transaction of one event tells. */
static machine_state on_refused(publisher_machine *it, const machine_event *event) {
    if (it->suspect_until == 0) {
        it->suspect_since_ms = event->now_ms;
        it->suspect_attempts = 0;
    }
    it->suspect_attempts++;
    it->suspect_until = it->read;
    it->order.discard = FAULT_RECORD;
    explain(it, event->failed.text, POLICIES[FAULT_RECORD].advice);
    if (it->events == 1) {
        it->order.code = event->failed.code;
        if (event->failed.by_size) note_too_large(it);
        return M_BURYING;
    }
    it->halving = !event->failed.by_size || !suspect_size(it);
    if (it->halving) it->limit = (it->read - it->position) / 2;
    return M_PAUSED;
}

static machine_state on_buried(publisher_machine *it, const machine_event *event) {
    (void)event;
    if (it->halving) it->limit = 1;
    it->halving = false;
    it->suspect_until = 0;
    return M_PAUSED;
}

/* ---- the rest ------------------------------------------------------------------------------ */

static machine_state on_failed(publisher_machine *it, const machine_event *event) {
    fault what = event->failed.fault;
    if (it->state == M_FILLING) count_filled(it, event);
    if (what == FAULT_RECORD && it->events > 0) return on_refused(it, event);
    if (what == FAULT_RECORD) what = FAULT_ROUTE; /* no event in it: the position was refused */
    return give_up(it, what, event->failed.text, event->now_ms);
}

static machine_state to_settling(publisher_machine *it, const machine_event *event) {
    (void)it, (void)event;
    return M_SETTLING;
}

static machine_state to_idle(publisher_machine *it, const machine_event *event) {
    (void)it, (void)event;
    return M_IDLE;
}

static machine_state to_beginning(publisher_machine *it, const machine_event *event) {
    (void)it, (void)event;
    return M_BEGINNING;
}

static machine_state to_filling(publisher_machine *it, const machine_event *event) {
    (void)it, (void)event;
    return M_FILLING;
}

static machine_state to_committing(publisher_machine *it, const machine_event *event) {
    (void)it, (void)event;
    return M_COMMITTING;
}

static machine_state to_stopped(publisher_machine *it, const machine_event *event) {
    (void)it, (void)event;
    return M_STOPPED;
}

/* ---- the table ------------------------------------------------------------------------------- */

typedef machine_state (*handler)(publisher_machine *it, const machine_event *event);

typedef struct transition {
    handler decide;
    uint32_t to; /* the states that it may choose */
} transition;

#define TO(state) (1u << (state))

/* clang-format off */
static const transition TABLE[M_STATE_COUNT][EV_COUNT] = {
    [M_NEW] = {
        [EV_START]     = {to_settling, TO(M_SETTLING)},
    },
    [M_SETTLING] = {
        [EV_SETTLED]   = {on_settled, TO(M_IDLE) | TO(M_ANCHORING) | TO(M_BEGINNING) | TO(M_PAUSED)},
        [EV_FAILED]    = {on_failed, TO(M_PAUSED)},
    },
    [M_ANCHORING] = {
        [EV_ANCHORED]  = {to_idle, TO(M_IDLE)},
        [EV_FAILED]    = {on_failed, TO(M_PAUSED)},
    },
    [M_IDLE] = {
        [EV_AVAILABLE] = {to_beginning, TO(M_BEGINNING)},
        [EV_TIME]      = {to_idle, TO(M_IDLE)},
        [EV_STOP]      = {to_stopped, TO(M_STOPPED)},
    },
    [M_BEGINNING] = {
        [EV_BEGUN]     = {on_begun, TO(M_FILLING) | TO(M_FLUSHING)},
        [EV_FAILED]    = {on_failed, TO(M_PAUSED)},
    },
    [M_FILLING] = {
        [EV_FILLED]    = {on_filled, TO(M_FLUSHING) | TO(M_LINGERING)},
        [EV_FAILED]    = {on_failed, TO(M_PAUSED) | TO(M_BURYING)},
    },
    [M_LINGERING] = {
        [EV_AVAILABLE] = {to_filling, TO(M_FILLING)},
        [EV_TIME]      = {on_linger_time, TO(M_FLUSHING) | TO(M_LINGERING)},
        [EV_STOP]      = {on_linger_stop, TO(M_FLUSHING) | TO(M_STOPPED)},
    },
    [M_FLUSHING] = {
        [EV_FLUSHED]   = {to_committing, TO(M_COMMITTING)},
        [EV_FAILED]    = {on_failed, TO(M_PAUSED) | TO(M_BURYING)},
    },
    [M_COMMITTING] = {
        [EV_COMMITTED] = {on_committed, TO(M_IDLE) | TO(M_PAUSED)},
        [EV_FAILED]    = {on_failed, TO(M_PAUSED) | TO(M_BURYING)},
    },
    [M_BURYING] = {
        [EV_BURIED]    = {on_buried, TO(M_PAUSED)},
        [EV_FAILED]    = {on_failed, TO(M_PAUSED)},
    },
    [M_PAUSED] = {
        [EV_TIME]      = {to_settling, TO(M_SETTLING)},
        [EV_STOP]      = {to_stopped, TO(M_STOPPED)},
    },
};
/* clang-format on */

static int64_t fill_most_ms(const publisher_machine *it) {
    return it->options.linger_ms > MACHINE_FILL_MS ? it->options.linger_ms : MACHINE_FILL_MS;
}

/* What the driver needs to know for the state just chosen. */
static void complete_order(publisher_machine *it, int64_t now_ms) {
    machine_order *order = &it->order;
    order->state = it->state;
    order->text = it->text;
    switch (it->state) {
    case M_SETTLING:
        order->batch = it->batch_bytes;
        break;
    case M_IDLE:
        order->wait_ms = MACHINE_IDLE_MS;
        order->after = it->position;
        break;
    case M_LINGERING:
        order->wait_ms = it->opened_ms + it->options.linger_ms - now_ms;
        if (order->wait_ms <= 0) order->wait_ms = MACHINE_IDLE_MS; /* nothing was read yet */
        order->after = it->read;
        break;
    case M_FILLING:
        order->from = it->read + 1;
        order->upto = it->position + it->limit;
        order->bytes = it->options.max_bytes - it->bytes;
        order->fill_ms = it->opened_ms + fill_most_ms(it) - now_ms;
        order->suspect = it->suspect_bytes;
        order->empty = it->read == it->position;
        break;
    case M_FLUSHING:
        order->sequence = it->read;
        break;
    case M_BURYING:
        order->sequence = it->event;
        order->attempts = it->suspect_attempts;
        order->suspect_ms = now_ms - it->suspect_since_ms;
        break;
    default:
        break;
    }
}

const machine_order *machine_start(publisher_machine *it, const machine_options *options,
                                   int64_t now_ms) {
    *it = (publisher_machine){.options = *options, .state = M_NEW, .limit = options->max_events};
    it->random = options->seed ? options->seed : 1;
    return machine_step(it, &(machine_event){.kind = EV_START, .now_ms = now_ms});
}

const machine_order *machine_step(publisher_machine *it, const machine_event *event) {
    const transition *row = &TABLE[it->state][event->kind];
    it->order = (machine_order){.discard = FAULT_NONE};
    machine_state to = row->decide ? row->decide(it, event) : M_STATE_COUNT;
    if (to == M_STATE_COUNT || !(row->to & TO(to))) {
        char text[128];
        snprintf(text, sizeof text, "bug: %s in %s", machine_event_name(event->kind),
                 machine_state_name(it->state));
        it->order = (machine_order){.discard = FAULT_NONE};
        to = give_up(it, FAULT_BUG, text, event->now_ms);
    }
    it->state = to;
    complete_order(it, event->now_ms);
    return &it->order;
}

const char *machine_state_name(machine_state state) {
    static const char *const NAMES[] = {
#define X(name, meaning) #name,
        MACHINE_STATES(X)
#undef X
    };
    return NAMES[state];
}

const char *machine_event_name(machine_event_kind kind) {
    static const char *const NAMES[] = {
#define X(name, meaning) #name,
        MACHINE_EVENTS(X)
#undef X
    };
    return NAMES[kind];
}

const char *machine_fault_name(fault what) { return POLICIES[what].name; }

bool machine_declared(machine_state state, machine_event_kind kind) {
    return TABLE[state][kind].decide != NULL;
}
