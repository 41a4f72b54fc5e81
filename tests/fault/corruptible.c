/*
 * A store that will be damaged, and a judge of what came of it.
 *
 *   corruptible make DIRECTORY LEDGER SEED EVENTS   appends, buries, settles, opens again, and ends
 *                                                   without closing, as a killed server does; at
 *                                                   half the way prints "half" and waits for a
 * line; up to SMALL events: only then it does more than append corruptible check DIRECTORY LEDGER
 * opens and reads all of it; prints JSON corruptible append DIRECTORY LEDGER             the same,
 * and appends one event to each route
 *
 * The ledger is the oracle. A line: A route sequence checksum (acknowledged), D route sequence
 * (buried), P route sequence (settled up to here). It is written after the store has answered.
 */
#include "storage/clock.h"
#include "storage/committer.h"
#include "storage/crc32c.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROUTES = 2, LIST_MAX = 40, BODY_MAX = 1500, EVENTS_MAX = 1 << 20, SMALL = 200 };
static const char *const NAMES[ROUTES] = {"transactions", "informative"};

static event_store *store;
static uint32_t numbers[ROUTES];
static FILE *ledger;
static uint64_t state; /* of the random numbers */

static uint32_t random_below(uint32_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % bound;
}

static outcome open_store(const char *directory, failure *why) {
    store_options options;
    store_options_init(&options);
    options.directory = directory;
    options.reserve_free_bytes = 0;
    options.memtable_bytes = 128 << 10;
    outcome result = store_open(&options, &store, why);
    for (int i = 0; result == ST_OK && i < ROUTES; i++)
        result = store_route(store, NAMES[i], &numbers[i], why);
    return result;
}

static uint32_t checksum(const event_record *record) {
    uint32_t crc = crc32c_extend(0, record->id.data, record->id.len);
    return crc32c_extend(crc, record->event.data, record->event.len);
}

/* ---- make ------------------------------------------------------------------------------------ */

typedef struct sent {
    append_request request; /* first: done() casts back */
    _Atomic bool finished;
    char id[24];
    char body[BODY_MAX];
} sent;

static uint64_t last[ROUTES], settled[ROUTES];

static void on_done(append_request *request) { ((sent *)(void *)request)->finished = true; }

static void fill(sent *one, int route, uint32_t number) {
    uint32_t size = 20 + random_below(BODY_MAX - 20);
    (void)snprintf(one->id, sizeof one->id, "e-%u", number);
    for (uint32_t i = 0; i < size; i++)
        one->body[i] = (char)('a' + random_below(26));
    one->finished = false;
    one->request =
        (append_request){.route = numbers[route], .remember = random_below(4) > 0, .done = on_done};
    event_record *record = &one->request.record;
    record->source = bytes_of_string("/fault");
    record->id = record->key = bytes_of_string(one->id);
    record->type = bytes_of_string("create_user");
    record->event = bytes_of(one->body, size);
    record->transaction = true;
    record->operations = 1;
}

static uint32_t append_some(int route, uint32_t number) {
    static sent list[LIST_MAX];
    uint32_t count = 1 + random_below(LIST_MAX);
    for (uint32_t i = 0; i < count; i++) {
        fill(&list[i], route, number + i);
        if (i) list[i - 1].request.next = &list[i].request;
    }
    if (committer_submit(store, &list[0].request) != ST_OK) abort();
    for (uint32_t i = 0; i < count; i++) {
        while (!list[i].finished)
            usleep(50);
        const append_request *request = &list[i].request;
        if (request->result != ST_OK) abort();
        last[route] = request->sequence;
        (void)fprintf(ledger, "A %d %llu %08x\n", route, (unsigned long long)request->sequence,
                      checksum(&request->record));
    }
    return count;
}

static void bury_one(int route) {
    failure why;
    bury_reason reason = {.reason = "too large", .error_code = 10, .attempts = 1};
    if (last[route] == settled[route]) return;
    uint64_t sequence = settled[route] + 1 + random_below((uint32_t)(last[route] - settled[route]));
    if (committer_bury(store, numbers[route], sequence, &reason, &why) != ST_OK) abort();
    (void)fprintf(ledger, "D %d %llu\n", route, (unsigned long long)sequence);
}

static void settle_some(int route) {
    uuid me = store_incarnation(store);
    if (last[route] == settled[route]) return;
    settled[route] += 1 + random_below((uint32_t)(last[route] - settled[route]) / 2);
    (void)fprintf(ledger, "P %d %llu\n", route, (unsigned long long)settled[route]);
    (void)fflush(ledger);
    committer_advance(store, numbers[route], settled[route], &me, 7);
}

static void pause_at_half(void) {
    char line[16];
    (void)fflush(ledger);
    (void)printf("half\n");
    (void)fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(1);
}

static int make(const char *directory, uint32_t events) {
    failure why;
    bool half = false;
    if (open_store(directory, &why) != ST_OK) return 1;
    for (uint32_t number = 0; number < events;) {
        int route = (int)random_below(ROUTES);
        number += append_some(route, number);
        if (events > SMALL && random_below(12) == 0) bury_one(route);
        if (events > SMALL && random_below(15) == 0) settle_some(route);
        if (events > SMALL && !half && random_below(events / 60 + 2) == 0) {
            store_close(store);
            if (open_store(directory, &why) != ST_OK) return 1;
        }
        if (!half && number > events / 2) {
            half = true;
            /* The last write of a close is then one to meta, and the next opening's MANIFEST has
             * that table before the outbox's: cut between them it looks whole. */
            bury_one(0), bury_one(1);
            settle_some(0), settle_some(1);
            store_close(store); /* and a copy is one of files at rest */
            pause_at_half();
            if (open_store(directory, &why) != ST_OK) return 1;
        }
    }
    (void)fflush(ledger);
    sleep(3); /* what the MANIFEST got last is noted in the evidence by now */
    _exit(0);
}

/* ---- check ----------------------------------------------------------------------------------- */

typedef struct expected {
    bool acknowledged, dead;
    uint32_t checksum;
} expected;

static expected *wanted[ROUTES];

static void read_ledger(void) {
    char kind;
    int route;
    unsigned long long sequence;
    for (int i = 0; i < ROUTES; i++)
        wanted[i] = calloc(EVENTS_MAX, sizeof **wanted);
    while (fscanf(ledger, " %c %d %llu", &kind, &route, &sequence) == 3) {
        assert(route >= 0 && route < ROUTES && sequence < EVENTS_MAX);
        expected *one = &wanted[route][sequence];
        if (kind == 'A') {
            if (fscanf(ledger, "%x", &one->checksum) != 1) abort();
            one->acknowledged = true;
            if (sequence > last[route]) last[route] = sequence;
        } else if (kind == 'D') {
            one->dead = true;
        } else if (sequence > settled[route]) {
            settled[route] = sequence;
        }
    }
}

/* What one sequence turned out to be. */
typedef enum finding { SOUND, LOST, UNREADABLE, SILENT, FINDINGS } finding;

static finding judge_dead(uint32_t route, uint64_t sequence, const expected *one) {
    dead_letter letter;
    failure why;
    outcome result = store_dead_get(store, route, sequence, &letter, &why);
    if (result == ST_OK) {
        bool same = checksum(&letter.record) == one->checksum;
        dead_letter_free(&letter);
        return same ? SOUND : SILENT;
    }
    return result == ST_NOT_FOUND ? SILENT : UNREADABLE;
}

static finding judge(const event_record *record, uint32_t route, const expected *one) {
    if (record->kind == RECORD_LOST) return LOST;
    if (record->kind == RECORD_MOVED) return judge_dead(route, record->sequence, one);
    return checksum(record) == one->checksum ? SOUND : SILENT;
}

static void print_finding(const char *name, finding what, const finding *found, uint64_t from,
                          uint64_t upto) {
    const char *comma = "";
    (void)printf(",\"%s\":[", name);
    for (uint64_t i = from; i <= upto; i++) {
        if (found[i] != what) continue;
        uint64_t first = i;
        while (i < upto && found[i + 1] == what)
            i++;
        (void)printf("%s[%llu,%llu]", comma, (unsigned long long)first, (unsigned long long)i);
        comma = ",";
    }
    (void)printf("]");
}

static void check_route(int index) {
    uint32_t route = numbers[index];
    route_stats stats;
    finding *found = calloc(EVENTS_MAX, sizeof *found);
    failure why = {0};
    store_stats(store, route, &stats);
    store_reader *reader = store_reader_open(store, route, stats.position + 1);
    uint64_t read = 0;
    for (uint64_t i = stats.position + 1; i <= last[index]; i++) {
        const expected *one = &wanted[index][i];
        event_record record;
        outcome result = store_reader_next(reader, &record, &why);
        if (result == ST_OK && record.kind == RECORD_EVENT) read++;
        found[i] = result == ST_OK          ? judge(&record, route, one)
                   : result == ST_NOT_FOUND ? SILENT
                                            : UNREADABLE;
        if (result != ST_OK) store_reader_seek(reader, i + 1);
    }
    store_reader_close(reader);
    for (uint64_t i = 1; i <= stats.position; i++) /* dead letters stay when they are passed */
        if (wanted[index][i].dead) found[i] = judge_dead(route, i, &wanted[index][i]);
    (void)printf(
        "%s{\"route\":\"%s\",\"position\":%llu,\"settled\":%llu,\"last\":%llu,"
        "\"acknowledged\":%llu,\"pending\":%llu,\"read\":%llu,\"dead\":%llu,\"lost_count\""
        ":%llu,\"identity\":%s",
        index ? "," : "", NAMES[index], (unsigned long long)stats.position,
        (unsigned long long)settled[index], (unsigned long long)stats.last_sequence,
        (unsigned long long)last[index], (unsigned long long)stats.pending,
        (unsigned long long)read, (unsigned long long)stats.dead, (unsigned long long)stats.lost,
        stats.accepted == stats.published + stats.pending + stats.dead + stats.purged + stats.lost
            ? "true"
            : "false");
    print_finding("lost", LOST, found, 1, last[index]);
    print_finding("unreadable", UNREADABLE, found, 1, last[index]);
    print_finding("silent", SILENT, found, 1, last[index]);
    (void)printf(",\"why\":\"%s\"}", why.code ? outcome_name(why.code) : "");
    free(found);
}

static void append_one(int route) {
    static sent one;
    fill(&one, route, 1u << 30);
    (void)snprintf(one.id, sizeof one.id, "after-%d", route);
    one.request.record.id = bytes_of_string(one.id);
    if (committer_submit(store, &one.request) != ST_OK) abort();
    while (!one.finished)
        usleep(50);
    (void)printf("%s%llu", route ? "," : "", (unsigned long long)one.request.sequence);
}

static int check(const char *directory, bool append) {
    failure why = {0};
    read_ledger();
    outcome result = open_store(directory, &why);
    (void)printf("{\"open\":\"%s\",\"field\":\"%s\",\"reason\":\"", outcome_name(result),
                 why.field);
    for (const char *at = why.reason; *at; at++)
        if (*at != '"' && *at != '\\' && *at >= ' ') (void)putchar(*at);
    (void)printf("\",\"routes\":[");
    for (int i = 0; result == ST_OK && i < ROUTES; i++)
        check_route(i);
    (void)printf("],\"appended\":[");
    for (int i = 0; result == ST_OK && append && i < ROUTES; i++)
        append_one(i);
    (void)printf("]}\n");
    if (result == ST_OK) store_close(store);
    return 0;
}

int main(int argc, char **argv) {
    bool makes = argc == 6 && strcmp(argv[1], "make") == 0;
    bool checks = argc == 4 && (strcmp(argv[1], "check") == 0 || strcmp(argv[1], "append") == 0);
    if (!makes && !checks) return 64;
    ledger = fopen(argv[3], makes ? "w" : "r");
    if (!ledger) return 1;
    (void)setvbuf(ledger, NULL, _IOLBF, 0); /* a killed maker has told all that it knew */
    if (checks) return check(argv[2], strcmp(argv[1], "append") == 0);
    state = strtoull(argv[4], NULL, 10) + 1;
    return make(argv[2], (uint32_t)strtoul(argv[5], NULL, 10));
}
