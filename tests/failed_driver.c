/*
 * A store of failed events, for the tests and measurements of `ingestctl failed`.
 *
 *   failed_driver fill DIRECTORY EVENTS BYTES
 *       adds so many, each with so many random bytes in its event. Of event N the id is "id-N";
 * every tenth stopped at delete_user, the others at create_user; every hundredth has the code
 *       "conflict", the others "timeout"; of the others, the odd ones wait. Number 7 is no event.
 *   failed_driver serve DIRECTORY
 *       holds the store and serves its control socket, as a consumer does that has no Kafka: says
 *       "ready", and ends with its stdin.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/consumer/control.h"
#include "ingest/v1/events.pb-c.h"
#include "storage/clock.h"
#include "storage/failed_store.h"

enum { BATCH = 1000 };

static int give_up(const failure *why) {
    (void)fprintf(stderr, "failed_driver: %s\n", why->reason);
    return 1;
}

/* ---- fill ----------------------------------------------------------------------------------- */

typedef struct sample {
    char id[32];
    uint8_t *raw;   /* of `size` bytes */
    uint8_t *event; /* room for it */
    size_t size;
    uint64_t random;
} sample;

static void make_raw(sample *it) {
    for (size_t i = 0; i < it->size; i++) {
        it->random = it->random * 6364136223846793005u + 1442695040888963407u;
        it->raw[i] = (uint8_t)(it->random >> 56);
    }
}

static bytes make_event(sample *it, const char *name) {
    Ingest__V1__Event event = INGEST__V1__EVENT__INIT;
    Ingest__V1__Transaction transaction = INGEST__V1__TRANSACTION__INIT;
    Ingest__V1__Operation operation = INGEST__V1__OPERATION__INIT;
    Ingest__V1__Operation *operations[] = {&operation};
    char operation_name[32];
    (void)snprintf(operation_name, sizeof operation_name, "%s", name);
    make_raw(it);
    operation.name = operation_name;
    operation.payload_case = INGEST__V1__OPERATION__PAYLOAD_RAW;
    operation.raw = (ProtobufCBinaryData){.len = it->size, .data = it->raw};
    transaction.n_operations = 1;
    transaction.operations = operations;
    event.id = it->id;
    event.source = (char[]){"/test"};
    event.key = it->id;
    event.body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    event.transaction = &transaction;
    return bytes_of(it->event, ingest__v1__event__pack(&event, it->event));
}

static failed_record make_record(sample *it, uint64_t number) {
    const char *operation = number % 10 == 0 ? "delete_user" : "create_user";
    const bool conflict = number % 100 == 0;
    const int64_t now_ms = clock_wall_ms();
    (void)snprintf(it->id, sizeof it->id, "id-%llu", (unsigned long long)number);
    failed_record record = {.state = conflict || number % 2 == 0 ? FAILED_GIVEN_UP : FAILED_WAITING,
                            .source = bytes_of_string("/test"),
                            .id = bytes_of_string(it->id),
                            .type = bytes_of_string(operation),
                            .key = bytes_of_string(it->id),
                            .operation = bytes_of_string(operation),
                            .effect = bytes_of_string("user_index"),
                            .effects_done = 2,
                            .effects = 8,
                            .attempts = 3,
                            .code = bytes_of_string(conflict ? "conflict" : "timeout"),
                            .reason = bytes_of_string("the index did not answer within 5 s"),
                            .first_failed_ms = now_ms,
                            .last_failed_ms = now_ms,
                            .next_attempt_ms = now_ms + 3600000,
                            .topic = bytes_of_string("ingest.transactions"),
                            .partition = (int32_t)(number % 32),
                            .offset = (int64_t)number,
                            .event = make_event(it, operation),
                            .opaque = number == 7};
    if (record.opaque) record.event = bytes_of_string("no event");
    return record;
}

static int fill(const char *directory, uint64_t events, size_t size) {
    const failed_limits limits = {.max_events = UINT64_MAX, .max_bytes = UINT64_MAX};
    sample it = {
        .raw = malloc(size + 1), .event = malloc(size + 512), .size = size, .random = events};
    failed_store *store;
    failure why = {0};
    if (!it.raw || !it.event) abort();
    outcome result = failed_store_open(directory, &limits, &store, &why);
    if (result != ST_OK) return give_up(&why);
    for (uint64_t i = 1; result == ST_OK && i <= events; i++) {
        failed_record record = make_record(&it, i);
        result = failed_store_put(store, &record, &why);
        if (result == ST_OK && (i % BATCH == 0 || i == events))
            result = failed_store_write(store, &why);
    }
    failed_store_close(store);
    free(it.raw);
    free(it.event);
    return result == ST_OK ? 0 : give_up(&why);
}

/* ---- serve ---------------------------------------------------------------------------------- */

typedef struct server {
    failed_store *store;
    uint64_t changed;
    failure *why;
} server;

static void stage_retry(void *arg, const failed_record *record) {
    server *it = arg;
    failed_record again = *record;
    again.state = FAILED_WAITING;
    again.attempts = 0;
    again.next_attempt_ms = clock_wall_ms();
    if (failed_store_update(it->store, &again, it->why) == ST_OK) it->changed++;
}

static outcome change(void *arg, control_change what, const uint64_t *numbers, size_t count,
                      uint64_t *done, failure *why) {
    server *it = arg;
    it->changed = 0;
    it->why = why;
    for (size_t i = 0; i < count; i++)
        if (what == CHANGE_DISCARD)
            it->changed += failed_store_remove(it->store, numbers[i], why) == ST_OK;
        else if (failed_store_get(it->store, numbers[i], stage_retry, it, why) == ST_CORRUPT)
            return ST_CORRUPT;
    outcome result = failed_store_write(it->store, why);
    if (result == ST_OK) *done = it->changed;
    return result;
}

static int serve(const char *directory) {
    const failed_limits limits = {.max_events = UINT64_MAX, .max_bytes = UINT64_MAX};
    server it = {0};
    const control_hooks hooks = {.change = change, .arg = &it};
    control *socket;
    char byte;
    failure why = {0};
    if (failed_store_open(directory, &limits, &it.store, &why) != ST_OK) return give_up(&why);
    if (control_start(directory, it.store, &hooks, &socket, &why) != ST_OK) return give_up(&why);
    (void)puts("ready");
    (void)fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    control_stop(socket);
    failed_store_close(it.store);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "fill") == 0)
        return fill(argv[2], strtoull(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
    (void)fprintf(stderr, "usage: failed_driver fill DIRECTORY EVENTS BYTES | serve DIRECTORY\n");
    return 64;
}
