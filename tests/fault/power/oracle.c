/* One mutex; notes of fixed size, appended by one write each. Tables of fixed size, so that a
 * program whose allocations are made to fail does not fail here. */
#include "oracle.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PLACES_MAX = 1 << 17, EVENTS_MAX = 1 << 18 };

typedef enum note_kind {
    NOTE_SUBMITTED = 1,
    NOTE_ACKED,
    NOTE_SEEN,
    NOTE_BURY_TRIED,
    NOTE_BURIED,
    NOTE_PUBLISHED,
    NOTE_ANCHORED,
} note_kind;

typedef struct note {
    uint32_t kind;
    uint32_t route;
    uint64_t sequence;
    uint64_t number;
    uuid incarnation;
} note;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int file = -1;
static bool loading;
static known_place places[EVENT_ROUTES][PLACES_MAX];
static known_route routes[EVENT_ROUTES];
static known_event table[EVENTS_MAX]; /* by hash of the number */
static uint64_t order[EVENTS_MAX];    /* numbers as they came */
static uint64_t event_count;
static uint64_t acks;

void violation(const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    (void)fprintf(stderr, "violation: %s\n", line);
    _exit(1);
}

/* ---- under the lock -------------------------------------------------------------------------- */

static known_event *find_event(uint64_t number) {
    uint64_t at = event_mix(number) % EVENTS_MAX;
    while (table[at].number && table[at].number != number)
        at = (at + 1) % EVENTS_MAX;
    return &table[at];
}

static known_place *find_place(uint32_t route, uint64_t sequence) {
    if (sequence == 0 || sequence >= PLACES_MAX)
        violation("route %u: sequence %" PRIu64 " cannot be", route, sequence);
    if (sequence > routes[route].last) routes[route].last = sequence;
    return &places[route][sequence];
}

static void settle(uint32_t route, uint64_t sequence, uint64_t number) {
    known_place *place = find_place(route, sequence);
    known_event *event = find_event(number);
    if (!event->number || event_route(number) != route)
        violation("route %u, sequence %" PRIu64 ": event %" PRIx64 " was never submitted there",
                  route, sequence, number);
    if (place->number && place->number != number)
        violation("route %u, sequence %" PRIu64 " is event %" PRIx64 ", and was %" PRIx64, route,
                  sequence, number, place->number);
    if (event->sequence && event->sequence != sequence)
        violation("event %" PRIx64 " is at sequence %" PRIu64 " and at %" PRIu64 " of route %u",
                  number, event->sequence, sequence, route);
    place->number = number;
    event->sequence = sequence;
}

static void take_note(const note *it) {
    known_route *route = &routes[it->route];
    switch ((note_kind)it->kind) {
    case NOTE_SUBMITTED:
        if (find_event(it->number)->number) return;
        if (event_count == EVENTS_MAX / 2) violation("too many events for the oracle");
        find_event(it->number)->number = it->number;
        order[event_count++] = it->number;
        return;
    case NOTE_ACKED:
        settle(it->route, it->sequence, it->number);
        places[it->route][it->sequence].acked = true;
        if (!loading) acks++;
        return;
    case NOTE_SEEN:
        settle(it->route, it->sequence, it->number);
        places[it->route][it->sequence].seen = true;
        return;
    case NOTE_BURY_TRIED:
        find_place(it->route, it->sequence)->bury_tried = true;
        return;
    case NOTE_BURIED:
        find_place(it->route, it->sequence)->buried = true;
        return;
    case NOTE_PUBLISHED:
        route->position = it->sequence;
        route->incarnation = it->incarnation;
        return;
    case NOTE_ANCHORED:
        route->anchored = true;
        if (it->sequence > route->anchor) route->anchor = it->sequence;
        return;
    }
    violation("the oracle's file is damaged");
}

static void add_note(const note *it) {
    (void)pthread_mutex_lock(&lock);
    take_note(it);
    bool done = write(file, it, sizeof *it) == sizeof *it;
    (void)pthread_mutex_unlock(&lock);
    if (!done) violation("the oracle's file cannot be written");
}

/* ---- interface ------------------------------------------------------------------------------- */

void oracle_open(const char *path) {
    note it;
    ssize_t got;
    for (int i = 0; i < EVENT_ROUTES; i++)
        routes[i].places = places[i];
    file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) violation("%s: cannot open the oracle", path);
    FILE *notes = fdopen(dup(file), "r");
    if (!notes) violation("%s: cannot read the oracle", path);
    loading = true;
    while ((got = (ssize_t)fread(&it, 1, sizeof it, notes)) == sizeof it)
        take_note(&it);
    loading = false;
    if (got != 0) violation("%s: the oracle's file is damaged", path);
    (void)fclose(notes);
}

const known_route *oracle_route(uint32_t route) { return &routes[route]; }

known_place oracle_place(uint32_t route, uint64_t sequence) {
    (void)pthread_mutex_lock(&lock);
    known_place place = sequence <= routes[route].last ? places[route][sequence] : (known_place){0};
    (void)pthread_mutex_unlock(&lock);
    return place;
}

uint64_t oracle_sequence(uint64_t number) {
    (void)pthread_mutex_lock(&lock);
    uint64_t sequence = find_event(number)->sequence;
    (void)pthread_mutex_unlock(&lock);
    return sequence;
}

uint64_t oracle_event(uint64_t index) {
    (void)pthread_mutex_lock(&lock);
    uint64_t number = index < event_count ? order[index] : 0;
    (void)pthread_mutex_unlock(&lock);
    return number;
}

uint64_t oracle_events(void) {
    (void)pthread_mutex_lock(&lock);
    uint64_t count = event_count;
    (void)pthread_mutex_unlock(&lock);
    return count;
}

uint64_t oracle_dead(uint32_t route, bool tried) {
    uint64_t count = 0;
    for (uint64_t i = 1; i <= routes[route].last; i++)
        count += tried ? places[route][i].bury_tried : places[route][i].buried;
    return count;
}

uint64_t oracle_acks(void) {
    (void)pthread_mutex_lock(&lock);
    uint64_t count = acks;
    (void)pthread_mutex_unlock(&lock);
    return count;
}

void oracle_submitted(uint64_t number) {
    add_note(&(note){.kind = NOTE_SUBMITTED, .number = number});
}

void oracle_acked(uint64_t number, uint64_t sequence) {
    add_note(&(note){
        .kind = NOTE_ACKED, .route = event_route(number), .sequence = sequence, .number = number});
}

void oracle_seen(uint32_t route, uint64_t sequence, uint64_t number) {
    known_place place = oracle_place(route, sequence);
    if (place.seen && place.number == number) return;
    add_note(&(note){.kind = NOTE_SEEN, .route = route, .sequence = sequence, .number = number});
}

void oracle_bury_tried(uint32_t route, uint64_t sequence) {
    add_note(&(note){.kind = NOTE_BURY_TRIED, .route = route, .sequence = sequence});
}

void oracle_buried(uint32_t route, uint64_t sequence) {
    add_note(&(note){.kind = NOTE_BURIED, .route = route, .sequence = sequence});
}

void oracle_published(uint32_t route, uint64_t sequence, const uuid *incarnation) {
    add_note(&(note){
        .kind = NOTE_PUBLISHED, .route = route, .sequence = sequence, .incarnation = *incarnation});
}

void oracle_anchored(uint32_t route, uint64_t sequence) {
    add_note(&(note){.kind = NOTE_ANCHORED, .route = route, .sequence = sequence});
}
