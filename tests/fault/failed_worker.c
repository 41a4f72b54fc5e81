/*
 * A consumer's store of failed events that loses its power: puts, updates and removes in batches,
 * and keeps a journal of them, outside of the volume. Runs under the power shim (power/shim.c).
 *
 *   failed_worker VOLUME JOURNAL SEED BATCHES TOLERANT
 *
 * Opens the store in VOLUME and holds it against the journal: all batches that were written, whole,
 * and of the last one, whose end nobody was told, all or nothing. Then works until the power is
 * cut, or for BATCHES, closes, and cuts the power itself. TOLERANT is 1 when calls are made to
 * fail.
 *
 * Exit status: as store_worker's.
 */
#include "power/events.h"
#include "power/power.h"

#include "storage/failed_store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATUS_STOPPED = 74, STATUS_REFUSED = 75, IDS = 300, CHANGES_MAX = 12, EVENT_MAX = 60000 };

typedef enum note_kind { NOTE_PUT = 1, NOTE_UPDATE, NOTE_REMOVE, NOTE_WRITTEN } note_kind;

typedef struct note {
    uint32_t kind;
    uint32_t id;
    uint64_t number;
    uint64_t version; /* the event follows from it, */
    uint64_t attempt; /*   and the figures from this */
} note;

typedef struct known {
    uint64_t number; /* 0: not there */
    uint64_t version, attempt;
} known;

static known before[IDS]; /* after the last batch that is known to be written */
static known after[IDS];  /* and with the one behind it */
static int journal;
static failed_store *store;
static uint64_t seed;
static bool tolerant;

static PRINTF_LIKE(1, 2) _Noreturn void violation(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)fprintf(stderr, "violation: ");
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    _exit(1);
}

static uint64_t draw(uint64_t below) {
    seed += 0x9e3779b97f4a7c15u;
    return event_mix(seed) % below;
}

/* An error of the store's: the end without faults, to be lived with otherwise. */
static _Noreturn void stop(int status, outcome result, const failure *why) {
    if (!tolerant || result == ST_CORRUPT) violation("%s: %s", outcome_name(result), why->reason);
    (void)printf("%s\n", why->reason);
    (void)fflush(stdout);
    power_cut(status);
}

/* ---- the journal ---------------------------------------------------------------------------- */

static void apply(const note *it) {
    if (it->kind == NOTE_WRITTEN)
        memcpy(before, after, sizeof before);
    else if (it->kind == NOTE_REMOVE)
        after[it->id] = (known){0};
    else
        after[it->id] =
            (known){.number = it->number, .version = it->version, .attempt = it->attempt};
}

static void journal_add(const note *notes, size_t count) {
    const size_t size = count * sizeof *notes;
    if (write(journal, notes, size) != (ssize_t)size) violation("journal: %s", strerror(errno));
    for (size_t i = 0; i < count; i++)
        apply(&notes[i]);
}

static void journal_open(const char *path) {
    note it;
    journal = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) violation("journal: %s", strerror(errno));
    while (read(journal, &it, sizeof it) == sizeof it)
        apply(&it);
}

/* What the store has is what the journal has from now on: the doubt is settled. */
static void journal_settle(bool written) {
    if (written) {
        journal_add(&(note){.kind = NOTE_WRITTEN}, 1);
        return;
    }
    for (uint32_t i = 0; i < IDS; i++) { /* undoes it */
        note it = {.kind = before[i].number ? NOTE_PUT : NOTE_REMOVE,
                   .id = i,
                   .number = before[i].number,
                   .version = before[i].version,
                   .attempt = before[i].attempt};
        if (memcmp(&before[i], &after[i], sizeof before[i]) != 0) journal_add(&it, 1);
    }
    journal_add(&(note){.kind = NOTE_WRITTEN}, 1);
}

/* ---- records -------------------------------------------------------------------------------- */

static bytes event_of(uint64_t version) {
    static uint8_t event[EVENT_MAX];
    const size_t size = event_mix(version) % (version % 8 ? 600 : EVENT_MAX);
    for (size_t i = 0; i < size; i++)
        event[i] = (uint8_t)(version + i * 131 + (i >> 8));
    return bytes_of(event, size);
}

static failed_record record_of(char id[16], uint32_t number, uint64_t version, uint64_t attempt) {
    (void)snprintf(id, 16, "%" PRIu32, number);
    return (failed_record){.state = attempt % 3 ? FAILED_WAITING : FAILED_GIVEN_UP,
                           .source = bytes_of_string("/power"),
                           .id = bytes_of_string(id),
                           .code = bytes_of_string(attempt % 2 ? "odd" : "a longer code"),
                           .attempts = (uint32_t)attempt,
                           .next_attempt_ms = (int64_t)(event_mix(attempt) % 100000),
                           .event = event_of(version)};
}

typedef struct comparison {
    const known *with;
    uint64_t count, waiting;
    int64_t first_due_ms;
    bool alike;
} comparison;

static bool compare_one(void *arg, const failed_record *found) {
    comparison *it = arg;
    char text[16];
    char id[16] = "";
    if (found->id.len < sizeof text) memcpy(id, found->id.data, found->id.len);
    const uint64_t which = strtoull(id, NULL, 10);
    if (which >= IDS) violation("record %" PRIu64 " has an unknown id", found->number);
    const known *is = &it->with[which];
    const failed_record wanted = record_of(text, (uint32_t)which, is->version, is->attempt);
    it->count++;
    it->waiting += found->state == FAILED_WAITING;
    if (found->state == FAILED_WAITING &&
        (it->waiting == 1 || found->next_attempt_ms < it->first_due_ms))
        it->first_due_ms = found->next_attempt_ms;
    it->alike = it->alike && is->number == found->number && wanted.state == found->state &&
                wanted.attempts == found->attempts && bytes_equal(wanted.code, found->code) &&
                wanted.next_attempt_ms == found->next_attempt_ms &&
                bytes_equal(wanted.event, found->event);
    return true;
}

static bool is_like(const known with[IDS]) {
    comparison it = {.with = with, .alike = true};
    uint64_t wanted = 0;
    uint64_t number;
    int64_t due_ms;
    failed_figures figures;
    failure why = {0};
    for (int i = 0; i < IDS; i++)
        wanted += with[i].number > 0;
    outcome result = failed_store_each(store, 0, true, compare_one, &it, &why);
    if (result == ST_OK) result = failed_store_next(store, &number, &due_ms, &why);
    if (result != ST_OK) stop(STATUS_REFUSED, result, &why);
    failed_store_figures(store, &figures);
    if (figures.events != it.count || figures.waiting != it.waiting)
        violation("figures: %" PRIu64 " events, %" PRIu64 " wait; counted %" PRIu64 ", %" PRIu64,
                  figures.events, figures.waiting, it.count, it.waiting);
    if ((number > 0) != (it.waiting > 0) || (number && due_ms != it.first_due_ms))
        violation("due first: %" PRIu64 " at %lld, not at %lld", number, (long long)due_ms,
                  (long long)it.first_due_ms);
    return it.alike && it.count == wanted;
}

/* ---- work ----------------------------------------------------------------------------------- */

static void open_store(const char *volume) {
    static char directory[4096];
    const failed_limits limits = {.max_events = UINT64_MAX, .max_bytes = UINT64_MAX};
    failure why = {0};
    (void)snprintf(directory, sizeof directory, "%s/store", volume);
    outcome result = failed_store_open(directory, &limits, &store, &why);
    if (result != ST_OK) stop(STATUS_REFUSED, result, &why);
    const bool old = is_like(before);
    if (!old && !is_like(after))
        violation("the store is neither as before the last batch nor as after it");
    journal_settle(!old);
}

static outcome change(uint32_t id, note *made, failure *why) {
    char text[16];
    const known *now = &after[id];
    *made = (note){.id = id, .number = now->number, .attempt = draw(1 << 20)};
    if (now->number && draw(3) == 0) {
        made->kind = NOTE_REMOVE;
        return failed_store_remove(store, now->number, why);
    }
    const bool update = now->number && draw(2) == 0;
    made->kind = update ? NOTE_UPDATE : NOTE_PUT;
    made->version = update ? now->version : draw(1 << 20);
    failed_record record = record_of(text, id, made->version, made->attempt);
    record.number = now->number;
    if (update) return failed_store_update(store, &record, why);
    outcome result = failed_store_put(store, &record, why);
    made->number = record.number;
    return result;
}

static void work(uint64_t batches) {
    note notes[CHANGES_MAX];
    failure why = {0};
    for (; batches > 0; batches--) {
        const uint64_t count = 1 + draw(CHANGES_MAX);
        for (uint64_t i = 0; i < count; i++) {
            outcome result = change((uint32_t)draw(IDS), &notes[i], &why);
            if (result != ST_OK) stop(STATUS_STOPPED, result, &why);
            journal_add(&notes[i], 1);
        }
        outcome result = failed_store_write(store, &why);
        if (result != ST_OK) stop(STATUS_STOPPED, result, &why);
        if (power_log_failed()) violation("a write is told as done after the log had failed");
        journal_add(&(note){.kind = NOTE_WRITTEN}, 1);
    }
}

int main(int argc, char **argv) {
    if (argc != 6 || !power_cut) {
        (void)fprintf(stderr, "usage, under the power shim: failed_worker VOLUME JOURNAL SEED "
                              "BATCHES TOLERANT\n");
        return 2;
    }
    seed = strtoull(argv[3], NULL, 10);
    tolerant = strcmp(argv[5], "1") == 0;
    journal_open(argv[2]);
    open_store(argv[1]);
    power_mark();
    work(strtoull(argv[4], NULL, 10));
    failed_store_close(store);
    power_cut(0);
}
