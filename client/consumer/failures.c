/*
 * Events that could not be finished. With INGEST_KEY_PASSES such an event moves to the store: it is
 * put there as FAILED_HELD, synced, then its record is committed as done and as moved (moves.h),
 * and only then it is FAILED_WAITING or FAILED_GIVEN_UP there. So wherever it ends in between,
 * Kafka tells who has the event: see failures_settle. With INGEST_KEY_WAITS it keeps its place, and
 * the store shows a copy of it (FAILED_HELD, too) once it is given up. What the store has is tried
 * again by retrying.c.
 */
#include <stdlib.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

enum { ASK_MS = 2000, LOCK_MS = 500 };

/* next_attempt_ms of a FAILED_HELD: a copy, or what it will be when its record is done. */
enum { A_COPY = 0, MOVES_GIVEN_UP = -1 };

static uint32_t chance(void) {
    static _Thread_local uint32_t state = 2463534242U;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* ---- the record ------------------------------------------------------------------------------ */

static const char *code_of(const job *one) {
    return one->code ? one->code : one->trouble ? one->trouble->code : "";
}

static const char *reason_of(const job *one) {
    return one->code ? one->reason : one->trouble ? one->trouble->reason : "";
}

/* Of an event that stopped where it is now; borrows from it. */
static failed_record make_record(const consumer *it, job *one, failed_state state,
                                 int64_t next_attempt_ms) {
    const int64_t now_ms = clock_wall_ms();
    const effect *next = one->operation_count && one->operations[0].effects && !one->code
                             ? job_next_effect(one)
                             : NULL;
    if (!one->first_failed_ms) one->first_failed_ms = now_ms;
    return (failed_record){
        .number = one->stored,
        .state = state,
        .source = bytes_of_string(one->source),
        .id = bytes_of_string(one->id),
        .type = bytes_of_string(one->type),
        .key = bytes_of(one->key_text, one->key_len),
        .operation = bytes_of_string(
            next ? job_operation_at(one, one->operation_at)->effects->operation : ""),
        .effect = bytes_of_string(next ? next->name : ""),
        .effects_done = one->done,
        .effects = one->effects,
        .catalogue_crc = effects_crc(it->effects),
        .attempts = one->attempts,
        .code = bytes_of_string(code_of(one)),
        .reason = bytes_of_string(reason_of(one)),
        .first_failed_ms = one->first_failed_ms,
        .last_failed_ms = now_ms,
        .next_attempt_ms = next_attempt_ms,
        .topic = bytes_of_string(one->topic),
        .partition = one->partition_number,
        .offset = one->offset,
        .opaque = one->code && strcmp(one->code, "malformed") == 0 && !one->parts,
    };
}

static void clear_trouble(job *one) {
    free(one->trouble);
    one->trouble = NULL;
}

/* ---- failing --------------------------------------------------------------------------------- */

static bool keeps_its_place(const consumer *it, const job *one) {
    return it->settings.options.order == INGEST_KEY_WAITS && !one->code;
}

static void note_due(consumer *it, int64_t wall_ms) {
    if (wall_ms < it->retry_wall_ms) it->retry_wall_ms = wall_ms;
}

/* Waits until there is room again. */
static void wait_for_room(consumer *it, job *one, const failure *why) {
    running_set_state(it, one, JOB_FAILING);
    if (!keeps_its_place(it, one)) running_pass(it, one);
    if (!it->store_full)
        driver_alarm(it, INGEST_ALARM_STORE,
                     "%s: failed events keep their places, and partitions wait for them; retry or "
                     "discard some, or raise the bounds",
                     why->reason);
    it->store_full = true;
}

/* False: it stays for the time being, or the consumer ends. */
static bool put(consumer *it, job *one, failed_record *record) {
    failure why = {0};
    size_t len = 0;
    uint8_t *event = job_event(one, &len);
    record->event = bytes_of(event, len);
    const outcome result = event ? failed_store_put(it->store, record, &why)
                                 : fail(&why, ST_NO_MEMORY, "", "no memory for a failed event");
    free(event);
    if (result == ST_OK) {
        one->stored = record->number;
        it->store_changed = true;
        it->store_full = false;
    } else if (result == ST_FULL || result == ST_DISK_FULL) {
        wait_for_room(it, one, &why);
    } else {
        driver_end(it, result, "failed events", "%s", why.reason);
    }
    return result == ST_OK;
}

/* Somebody may have discarded it meanwhile: then there is nothing left to do with it. */
static void update(consumer *it, job *one, const failed_record *record) {
    failure why;
    const outcome result = record ? failed_store_update(it->store, record, &why)
                                  : failed_store_remove(it->store, one->stored, &why);
    if (result == ST_NOT_FOUND) one->final = true;
    if (result != ST_OK && result != ST_NOT_FOUND)
        driver_end(it, result, "failed events", "%s", why.reason);
    it->store_changed = true;
    running_set_state(it, one, JOB_STORING);
}

static void tell_given_up(consumer *it, const job *one, const failed_record *record) {
    driver_alarm(it, INGEST_ALARM_FAILED,
                 "event %s of %s (%s/%d at %lld) is given up at %.*s %.*s: %s: %s; see the failed "
                 "events in %s",
                 one->id, one->source, one->topic, one->partition_number, (long long)one->offset,
                 (int)record->operation.len, (const char *)record->operation.data,
                 (int)record->effect.len, (const char *)record->effect.data, code_of(one),
                 reason_of(one), it->settings.options.data_dir);
}

/* Out of attempts, or waiting for the next one; synced, then it goes on. */
static void keep(consumer *it, job *one, failed_record *record, bool again) {
    if (!one->partition) {
        one->final = true;
        update(it, one, record);
    } else if (put(it, one, record)) {
        running_set_state(it, one, JOB_STORING);
    } else {
        return;
    }
    if (!again) tell_given_up(it, one, record);
    if (again) note_due(it, record->next_attempt_ms);
    clear_trouble(one);
}

void failures_failed(consumer *it, job *one) {
    int64_t after_ms = 0;
    const char *operation =
        one->code ? "" : job_operation_at(one, one->operation_at)->effects->operation;
    const bool again = !one->code && retries_again(&it->retries, operation, one->attempts,
                                                   one->verdict, code_of(one), chance(), &after_ms);
    const bool waits = one->partition && keeps_its_place(it, one);
    if (again && waits) {
        clear_trouble(one);
        one->due_ms = clock_monotonic_ms() + after_ms;
        running_set_state(it, one, JOB_BACKOFF);
        return;
    }
    const int64_t next_ms = again ? clock_wall_ms() + after_ms : 0;
    failed_record record = make_record(it, one, again ? FAILED_WAITING : FAILED_GIVEN_UP, next_ms);
    if (one->partition) {
        record.state = FAILED_HELD;
        record.next_attempt_ms = waits ? A_COPY : again ? next_ms : MOVES_GIVEN_UP;
    }
    keep(it, one, &record, again);
}

void failures_progress(consumer *it, job *one) {
    if (one->done == one->effects) {
        one->final = true;
        update(it, one, NULL);
        return;
    }
    failed_record record = make_record(it, one, FAILED_WAITING, clock_wall_ms() + RETRY_LEASE_MS);
    update(it, one, &record);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Its record is committed as done, and as moved. */
static void move(consumer *it, job *one) {
    if (moves_add(&one->partition->moves, one->offset, failed_store_id(it->store)))
        running_finish(it, one);
    else
        running_set_state(it, one, JOB_MOVING);
}

/* The store knows what has moved: Kafka may forget it, and others may move. */
static void go_on_moving(consumer *it) {
    bool dropped = false;
    for (partition *one = it->partitions; one; one = one->next) {
        if (!moves_drop_known(&one->moves)) continue;
        one->dirty = dropped = true;
    }
    for (size_t left = dropped ? it->lists[JOB_MOVING].count : 0; left > 0; left--)
        move(it, job_list_first(&it->lists[JOB_MOVING]));
}

/* It is on the disk. */
static void go_on(consumer *it, job *one) {
    if (!one->partition && one->final)
        running_end(it, one);
    else if (!one->partition)
        running_start(it, one);
    else if (keeps_its_place(it, one))
        running_set_state(it, one, JOB_HELD);
    else
        move(it, one);
}

void failures_write(consumer *it) {
    failure why;
    if (!it->store_changed) return;
    it->store_changed = false;
    const outcome result = failed_store_write(it->store, &why);
    if (result != ST_OK) {
        driver_end(it, result, "failed events", "%s", why.reason);
        return;
    }
    go_on_moving(it);
    for (size_t left = it->lists[JOB_STORING].count; left > 0; left--)
        go_on(it, job_list_first(&it->lists[JOB_STORING]));
}

/* ---- whose it is -----------------------------------------------------------------------------
 */

/* It has moved: its record is committed as done. */
static void promote(void *arg, const failed_record *record) {
    consumer *it = arg;
    failure why;
    failed_record moved = *record;
    if (record->state != FAILED_HELD) return;
    moved.state = record->next_attempt_ms > 0 ? FAILED_WAITING : FAILED_GIVEN_UP;
    if (moved.state == FAILED_GIVEN_UP) moved.next_attempt_ms = 0;
    if (failed_store_update(it->store, &moved, &why) != ST_OK)
        driver_end(it, ST_IO, "failed events", "%s", why.reason);
    if (moved.state == FAILED_WAITING) note_due(it, moved.next_attempt_ms);
    it->store_changed = true;
}

void failures_moved(consumer *it, const job *one) {
    failure why;
    const outcome result = failed_store_get(it->store, one->stored, promote, it, &why);
    if (result != ST_OK && result != ST_NOT_FOUND) /* discarded meanwhile */
        driver_end(it, result, "failed events", "%s", why.reason);
    moves_known(&one->partition->moves, one->offset, failed_store_id(it->store));
}

typedef struct settling {
    consumer *it;
    rd_kafka_topic_partition_list_t *places; /* what the group has committed */
    bool silent;
} settling;

static const rd_kafka_topic_partition_t *ask_place(settling *of, const char *topic,
                                                   int32_t number) {
    const rd_kafka_topic_partition_t *known =
        rd_kafka_topic_partition_list_find(of->places, topic, number);
    if (known) return known;
    rd_kafka_topic_partition_list_t *asked = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(asked, topic, number);
    const rd_kafka_resp_err_t code = rd_kafka_committed(of->it->rk, asked, ASK_MS);
    if (!code && !asked->elems[0].err) {
        rd_kafka_topic_partition_t *to =
            rd_kafka_topic_partition_list_add(of->places, topic, number);
        to->offset = asked->elems[0].offset;
        to->metadata = asked->elems[0].metadata;
        to->metadata_size = asked->elems[0].metadata_size;
        asked->elems[0].metadata = NULL;
        known = to;
    }
    rd_kafka_topic_partition_list_destroy(asked);
    return known;
}

/* Whether the record's event is the store's, by what the group has committed: it moved, or it is
 * done and nobody can tell how. Else it was run by others, or will be. What the group knows nothing
 * of, nobody will run. */
static bool has_moved(const rd_kafka_topic_partition_t *at, int64_t offset, uint64_t store) {
    progress found;
    failure why;
    if (at->offset < 0) return true;
    const bytes text = bytes_of(at->metadata, at->metadata_size);
    if (progress_parse(text, &found, &why) != ST_OK || !found.ours) return offset < at->offset;
    if (moves_has(&found.moves, offset, store)) return true;
    const bool done = offset < at->offset ||
                      progress_state(&found, (uint64_t)(offset - at->offset)) == PROGRESS_DONE;
    return done && offset < found.moves.unsure_below;
}

static bool is_under_way(const consumer *it, uint64_t number) {
    const job_state states[] = {JOB_STORING, JOB_MOVING, JOB_RECORDING, JOB_HELD};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        const job_list *list = &it->lists[states[i]];
        for (const job *one = job_list_first(list); one; one = job_list_next(list, one))
            if (one->stored == number) return true;
    }
    return false;
}

static void remove_stored(consumer *it, uint64_t number) {
    failure why;
    const outcome result = failed_store_remove(it->store, number, &why);
    if (result != ST_OK && result != ST_NOT_FOUND)
        driver_end(it, result, "failed events", "%s", why.reason);
    it->store_changed = true;
}

static bool settle_one(void *arg, const failed_record *record) {
    settling *of = arg;
    char topic[256];
    if (record->state != FAILED_HELD || is_under_way(of->it, record->number)) return true;
    if (record->next_attempt_ms == A_COPY) {
        remove_stored(of->it, record->number);
        return true;
    }
    (void)snprintf(topic, sizeof topic, "%.*s", (int)record->topic.len,
                   (const char *)record->topic.data);
    const rd_kafka_topic_partition_t *at = ask_place(of, topic, record->partition);
    of->silent = !at;
    if (!at) return false;
    if (has_moved(at, record->offset, failed_store_id(of->it->store)))
        promote(of->it, record);
    else
        remove_stored(of->it, record->number);
    return true;
}

bool failures_settle(consumer *it) {
    failure why;
    failed_figures figures;
    settling of = {.it = it};
    if (!it->doubtful) return true;
    failures_write(it);
    failed_store_figures(it->store, &figures);
    if (figures.held == 0) {
        it->doubtful = false;
        return true;
    }
    of.places = rd_kafka_topic_partition_list_new(8);
    const outcome result = failed_store_each(it->store, 0, false, settle_one, &of, &why);
    rd_kafka_topic_partition_list_destroy(of.places);
    if (result != ST_OK) driver_end(it, result, "failed events", "%s", why.reason);
    failures_write(it);
    it->doubtful = of.silent;
    return !of.silent;
}

void failures_forget(consumer *it, const job *one) {
    if (one->state == JOB_HELD)
        remove_stored(it, one->stored);
    else if (one->stored && one->partition)
        it->doubtful = true;
}

/* ---- the turn -------------------------------------------------------------------------------- */

void failures_turn(consumer *it) {
    failures_write(it);
    for (size_t left = it->lists[JOB_FAILING].count; left > 0; left--) {
        failures_failed(it, job_list_first(&it->lists[JOB_FAILING]));
        if (it->store_full) break;
    }
    if (!atomic_load(&it->stopping)) retrying_turn(it);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* A consumer that was killed may have left a child that has not come to its exec, and until then
 * has all that was open: the lock is waited for. */
static outcome open_store(consumer *it, const failed_limits *limits, failure *why) {
    const char *folder = it->settings.options.data_dir;
    const struct timespec pause = {.tv_nsec = 10 * 1000000};
    const int64_t until_ms = clock_monotonic_ms() + LOCK_MS;
    outcome result;
    while ((result = failed_store_open(folder, limits, &it->store, why)) == ST_UNAVAILABLE &&
           clock_monotonic_ms() < until_ms)
        (void)nanosleep(&pause, NULL);
    return result;
}

outcome failures_open(consumer *it, failure *why) {
    const failed_limits limits = {.max_events = it->settings.options.failed_max_events,
                                  .max_bytes = it->settings.options.failed_max_bytes,
                                  .reserve_free_bytes = FAILED_RESERVE_FREE};
    it->doubtful = true; /* until failures_settle has asked Kafka */
    return open_store(it, &limits, why);
}
