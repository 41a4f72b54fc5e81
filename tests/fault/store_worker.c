/*
 * A user of the storage library that loses its power: appends, reads, publishes, buries, and keeps
 * the oracle of all that it was told (power/oracle.h). Runs under the power shim (power/shim.c).
 *
 *   store_worker VOLUME ORACLE SEED ACKS TOLERANT
 *
 * Opens the store in VOLUME, checks it against the oracle, then works until the power is cut, or
 * for about ACKS new events, closes, and cuts the power itself. TOLERANT is 1 when calls are made
 * to fail: then an error may be answered, and the store may stop for good.
 *
 * Exit status: 0 done, 86 cut, 74 the store has stopped (its reason on standard output), 75 it has
 * refused to open, 1 a promise is broken (on standard error).
 */
#include "power/events.h"
#include "power/oracle.h"
#include "power/power.h"

#include "storage/clock.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STATUS_STOPPED = 74,
    STATUS_REFUSED = 75,
    APPENDERS = 4,
    LIST_MAX = 8,
    ANSWER_MS = 20000,
    ERRORS_MAX = 200, /* answered; then there is nothing more to be seen */
    SAMPLE = 300,     /* older ids that are looked up at each opening */
};

static event_store *store;
static uint64_t seed;
static uint64_t acks_wanted;
static bool tolerant;
static _Atomic bool stopping;
static _Atomic uint64_t next_event;
static _Atomic uint64_t errors_answered;

/* ---- random numbers, one stream a thread ------------------------------------------------------
 */

static _Thread_local uint64_t stream;

static void begin_stream(uint64_t of) { stream = event_mix(seed ^ event_mix(of + 1)); }

static uint64_t draw(uint64_t below) {
    stream += 0x9e3779b97f4a7c15u;
    return event_mix(stream) % below;
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* An error that the store has answered: the end without faults, to be lived with otherwise. Damage
 * is never to be seen. */
static void tolerate(const char *doing, outcome result, const failure *why) {
    if (!tolerant || result == ST_CORRUPT)
        violation("%s: %s: %s", doing, outcome_name(result), why ? why->reason : "");
    if (atomic_fetch_add(&errors_answered, 1) > ERRORS_MAX) stopping = true;
}

static void on_fatal(void *arg, const char *reason) {
    (void)arg;
    if (!tolerant) violation("the store has stopped: %s", reason);
    (void)printf("stopped: %s\n", reason);
    (void)fflush(stdout);
    power_cut(STATUS_STOPPED);
}

static _Noreturn void refused(outcome result, const failure *why) {
    if (!tolerant || result == ST_CORRUPT)
        violation("refused to open: %s: %s", outcome_name(result), why->reason);
    (void)printf("refused: %s: %s\n", outcome_name(result), why->reason);
    (void)fflush(stdout);
    power_cut(STATUS_REFUSED);
}

/* ---- opening: all that was told is true --------------------------------------------------------
 */

static void open_store(const char *volume) {
    static char directory[4096];
    store_options options;
    failure why;
    uint32_t route;
    (void)snprintf(directory, sizeof directory, "%s/store", volume);
    store_options_init(&options);
    options.directory = directory;
    options.reserve_free_bytes = 0;
    options.ballast_bytes = 1 << 20;
    options.memtable_bytes = 64 << 10; /* so that there are flushes and compactions */
    options.fatal = on_fatal;
    outcome result = store_open(&options, &store, &why);
    if (result != ST_OK) refused(result, &why);
    for (uint32_t i = 0; i < EVENT_ROUTES; i++) {
        result = store_route(store, event_routes[i], &route, &why);
        if (result != ST_OK) refused(result, &why);
        if (route != i) violation("route %s has become number %u", event_routes[i], route);
    }
}

/* What the record of this place has to be. */
static void check_record(uint32_t route, const event_record *record) {
    uint64_t number;
    known_place place = oracle_place(route, record->sequence);
    if (record->kind == RECORD_MOVED) {
        if (!place.bury_tried)
            violation("route %u: %" PRIu64 " has become a dead letter by itself", route,
                      record->sequence);
        return;
    }
    if (place.buried)
        violation("route %u: %" PRIu64 " was buried, and is back", route, record->sequence);
    if (!event_matches(record, &number))
        violation("route %u: record %" PRIu64 " is not what was stored", route, record->sequence);
    oracle_seen(route, record->sequence, number);
}

static void check_letter(uint32_t route, uint64_t sequence) {
    dead_letter letter;
    failure why;
    uint64_t number;
    outcome result = store_dead_get(store, route, sequence, &letter, &why);
    if (result == ST_NOT_FOUND)
        violation("route %u: dead letter %" PRIu64 " is missing", route, sequence);
    if (result != ST_OK) {
        tolerate("dead letter", result, &why);
        return;
    }
    if (!event_matches(&letter.record, &number) || letter.attempts != 3 ||
        number != oracle_place(route, sequence).number)
        violation("route %u: dead letter %" PRIu64 " is not what was buried", route, sequence);
    dead_letter_free(&letter);
}

static void check_places(uint32_t route, uint64_t from, uint64_t last) {
    event_record record;
    failure why;
    store_reader *reader = store_reader_open(store, route, from);
    if (!reader) {
        tolerate("reader", ST_NO_MEMORY, NULL);
        return;
    }
    for (uint64_t i = from; i <= last; i++) {
        outcome result = store_reader_next(reader, &record, &why);
        if (result == ST_OK && record.sequence != i)
            violation("route %u: %" PRIu64 " read where %" PRIu64 " should be", route,
                      record.sequence, i);
        if (result == ST_OK) {
            check_record(route, &record);
        } else {
            tolerate("reading", result, &why);
            break;
        }
    }
    store_reader_close(reader);
}

static void check_ledger(uint32_t route, const route_stats *stats) {
    uint64_t sum = stats->published + stats->pending + stats->dead + stats->purged + stats->lost;
    if (stats->accepted != sum || stats->accepted != stats->last_sequence)
        violation("route %u: the ledger does not add up", route);
    if (stats->dead < oracle_dead(route, false) || stats->dead > oracle_dead(route, true))
        violation("route %u: %" PRIu64 " dead letters, not %" PRIu64 " to %" PRIu64, route,
                  stats->dead, oracle_dead(route, false), oracle_dead(route, true));
}

static void check_route(uint32_t route) {
    route_stats stats;
    route_anchor anchor;
    const known_route *known = oracle_route(route);
    store_stats(store, route, &stats);
    store_anchor(store, route, &anchor);
    check_ledger(route, &stats);
    if (stats.last_sequence < known->last)
        violation("route %u ends at %" PRIu64 ", but %" PRIu64 " was acknowledged or read", route,
                  stats.last_sequence, known->last);
    if ((known->anchored && !anchor.has_published) || anchor.sequence < known->anchor)
        violation("route %u: the anchor is older than what was made durable", route);
    if (anchor.sequence > known->position)
        violation("route %u: the hint %" PRIu64 " is beyond the position %" PRIu64, route,
                  anchor.sequence, known->position);
    if (known->position &&
        store_check_position(store, route, &known->incarnation, known->position) != ST_OK)
        violation("route %u: the position that was published is not known here", route);
    check_places(route, anchor.sequence + 1, stats.last_sequence);
    for (uint64_t i = 1; i <= known->last; i++)
        if (oracle_place(route, i).buried) check_letter(route, i);
    store_set_position(store, route, known->position);
}

/* An event that was acknowledged is known by its id. */
static void check_id(uint64_t number) {
    static event_memory memory;
    append_request event;
    id_entry entry;
    failure why;
    uint64_t sequence = oracle_sequence(number);
    if (!sequence || !event_remembered(number)) return;
    event_fill(&event, &memory, number);
    outcome result = store_lookup(store, event.record.source, event.record.id, &entry, &why);
    if (result == ST_NOT_FOUND)
        violation("the id of event %" PRIx64 ", route %u, %" PRIu64 " is forgotten", number,
                  event.route, sequence);
    if (result != ST_OK) {
        tolerate("id", result, &why);
        return;
    }
    known_place place = oracle_place(event.route, sequence);
    if (entry.route != event.route || entry.sequence != sequence ||
        memcmp(entry.fingerprint, event.fingerprint, sizeof entry.fingerprint) != 0)
        violation("the id of event %" PRIx64 " has another event", number);
    if ((place.buried && !entry.dead) || (entry.dead && !place.bury_tried))
        violation("the id of event %" PRIx64 " is marked wrongly", number);
}

static void check_all(void) {
    begin_stream(0);
    for (uint32_t i = 0; i < EVENT_ROUTES; i++)
        check_route(i);
    uint64_t count = oracle_events();
    uint64_t recent = acks_wanted && count > SAMPLE ? count - SAMPLE : 0;
    for (uint64_t i = recent; i < count; i++)
        check_id(oracle_event(i));
    for (uint64_t i = 0; recent && i < SAMPLE; i++)
        check_id(oracle_event(draw(recent)));
}

/* ---- appending ---------------------------------------------------------------------------------
 */

typedef struct appender {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t waiting; /* under the lock */
    struct append {
        append_request request; /* first: done() casts back */
        struct appender *owner;
        uint64_t number;
        uint64_t known; /* sequence that was known when it was submitted; 0: none */
        bool other_content;
        event_memory memory;
    } list[LIST_MAX];
} appender;

static appender appenders[APPENDERS];

static void check_answer(const struct append *append) {
    const append_request *request = &append->request;
    uint64_t known = append->known;
    if (request->result == ST_ID_CONFLICT) {
        if (!append->other_content) violation("event %" PRIx64 ": a conflict", append->number);
        if (known && request->sequence != known)
            violation("event %" PRIx64 ": the conflict names %" PRIu64 ", not %" PRIu64,
                      append->number, request->sequence, known);
        return;
    }
    if (request->result != ST_OK) {
        tolerate("append", request->result, NULL);
        return;
    }
    if (append->other_content)
        violation("event %" PRIx64 ": other content was accepted", append->number);
    if (known && (!request->duplicate || request->sequence != known))
        violation("event %" PRIx64 " was accepted twice: %" PRIu64 " and %" PRIu64, append->number,
                  known, request->sequence);
    oracle_acked(append->number, request->sequence);
}

static void on_done(append_request *request) {
    struct append *append = (struct append *)(void *)request;
    if (power_log_failed()) violation("an answer after a write or sync of the log had failed");
    check_answer(append);
    appender *self = append->owner;
    (void)pthread_mutex_lock(&self->lock);
    if (--self->waiting == 0) (void)pthread_cond_signal(&self->changed);
    (void)pthread_mutex_unlock(&self->lock);
}

/* A new event, or one that was submitted before: a client that never got its answer, or has lost
 * it, or has used an id twice. */
static void choose(struct append *append) {
    uint64_t count = oracle_events();
    append->number = 0;
    if (count && draw(8) == 0) {
        uint64_t back = draw(4) ? draw(count < 40 ? count : 40) : draw(count);
        append->number = oracle_event(count - 1 - back);
    }
    if (!append->number || !event_remembered(append->number)) {
        append->number = event_mix(seed) / 2 + atomic_fetch_add(&next_event, 1);
    }
    append->known = oracle_sequence(append->number);
    append->other_content = append->known && draw(3) == 0;
    event_fill(&append->request, &append->memory, append->number);
    if (append->other_content) append->request.fingerprint[0] ^= 1;
    append->request.done = on_done;
    oracle_submitted(append->number);
}

static bool submit(appender *self) {
    uint32_t count = 1 + (uint32_t)draw(LIST_MAX);
    for (uint32_t i = 0; i < count; i++) {
        choose(&self->list[i]);
        self->list[i].owner = self;
        if (i) self->list[i - 1].request.next = &self->list[i].request;
    }
    self->waiting = count;
    outcome result = committer_submit(store, &self->list[0].request);
    if (result == ST_OK) return true;
    tolerate("submit", result, NULL);
    return false;
}

static void *append_events(void *arg) {
    appender *self = arg;
    begin_stream(100 + (uint64_t)(self - appenders));
    while (!stopping && submit(self)) {
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += ANSWER_MS / 1000;
        (void)pthread_mutex_lock(&self->lock);
        while (self->waiting)
            if (pthread_cond_timedwait(&self->changed, &self->lock, &until) != 0)
                violation("no answer for %d ms", ANSWER_MS);
        (void)pthread_mutex_unlock(&self->lock);
        if (oracle_acks() >= acks_wanted) stopping = true;
    }
    return NULL;
}

/* ---- publishing --------------------------------------------------------------------------------
 */

static void bury(uint32_t route, uint64_t sequence) {
    failure why;
    bury_reason reason = {.reason = "too large", .error_code = 10, .attempts = 3};
    oracle_bury_tried(route, sequence);
    outcome result = committer_bury(store, route, sequence, &reason, &why);
    if (result == ST_OK)
        oracle_buried(route, sequence);
    else
        tolerate("bury", result, &why);
}

static void set_anchor(uint32_t route, uint64_t sequence) {
    failure why;
    route_anchor anchor;
    store_anchor(store, route, &anchor);
    anchor.has_published = true;
    anchor.positions_partition = 3;
    anchor.sequence = sequence;
    anchor.incarnation = store_incarnation(store);
    outcome result = committer_set_anchor(store, route, &anchor, &why);
    if (result == ST_OK)
        oracle_anchored(route, sequence);
    else
        tolerate("anchor", result, &why);
}

/* Reads up to `count` records as one Kafka transaction; some prove to be bad. Returns the new
 * position, which is durable elsewhere then: nothing up to it may ever be given out again. */
static uint64_t publish(store_reader *reader, uint32_t route, uint64_t position, uint64_t count) {
    event_record record;
    failure why;
    uuid self = store_incarnation(store);
    uint64_t last = position;
    uint64_t bad = draw(6) == 0 ? position + 1 + draw(count) : 0;
    for (; last < position + count; last++) {
        outcome result = store_reader_next(reader, &record, &why);
        if (result == ST_NOT_FOUND) break;
        if (result != ST_OK) {
            tolerate("reading", result, &why);
            break;
        }
        check_record(route, &record);
    }
    if (last == position) return position;
    if (bad && bad <= last) bury(route, bad);
    oracle_published(route, last, &self);
    store_set_position(store, route, last);
    if (draw(3) == 0) committer_advance(store, route, last, &self, (int64_t)last);
    if (draw(12) == 0) set_anchor(route, last);
    return last;
}

static void *publish_route(void *arg) {
    uint32_t route = (uint32_t)(uintptr_t)arg;
    begin_stream(200 + route);
    uint64_t position = oracle_route(route)->position;
    store_reader *reader = store_reader_open(store, route, position + 1);
    if (!reader) {
        tolerate("reader", ST_NO_MEMORY, NULL);
        return NULL;
    }
    if (!oracle_route(route)->anchored) set_anchor(route, position);
    while (!stopping) {
        (void)store_wait(store, route, position, 20);
        uint64_t now = publish(reader, route, position, 1 + draw(30));
        if (now == position) store_reader_seek(reader, now + 1);
        position = now;
    }
    store_reader_close(reader);
    return NULL;
}

/* ---- main ---------------------------------------------------------------------------------------
 */

static void work(void) {
    pthread_t publishers[EVENT_ROUTES];
    for (uintptr_t i = 0; i < EVENT_ROUTES; i++)
        if (pthread_create(&publishers[i], NULL, publish_route, (void *)i) != 0) abort();
    for (int i = 0; i < APPENDERS; i++) {
        appender *self = &appenders[i];
        (void)pthread_mutex_init(&self->lock, NULL);
        (void)pthread_cond_init(&self->changed, NULL);
        if (pthread_create(&self->thread, NULL, append_events, self) != 0) abort();
    }
    for (int i = 0; i < APPENDERS; i++)
        (void)pthread_join(appenders[i].thread, NULL);
    stopping = true;
    for (int i = 0; i < EVENT_ROUTES; i++)
        (void)pthread_join(publishers[i], NULL);
}

int main(int argc, char **argv) {
    if (argc != 6 || !power_cut) {
        (void)fprintf(stderr, "usage, under the power shim: store_worker VOLUME ORACLE SEED ACKS "
                              "TOLERANT\n");
        return 2;
    }
    seed = strtoull(argv[3], NULL, 10);
    acks_wanted = strtoull(argv[4], NULL, 10);
    tolerant = strcmp(argv[5], "1") == 0;
    oracle_open(argv[2]);
    open_store(argv[1]);
    check_all();
    power_mark();
    if (acks_wanted) work();
    store_close(store);
    power_cut(0);
}
