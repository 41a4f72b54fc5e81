/*
 * Events that could not be finished. With INGEST_KEY_PASSES such an event goes to the store,
 * synced, and its record counts as done; it is tried again from there. With INGEST_KEY_WAITS it
 * keeps its place, and the store shows a copy of it once it is given up.
 *
 * Between the store's sync and the commit an event is in both. Whoever finds it in Kafka runs it;
 * so what the store had before this process began is tried again only if Kafka has its record as
 * done, and removed if not.
 */
#include <stdlib.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

enum { ASK_MS = 2000, TURN_MOST = 32, IDLE_MS = 1000 };

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

/* Waits until there is room again. */
static void wait_for_room(consumer *it, job *one, const failure *why) {
    running_set_state(it, one, JOB_FAILING);
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
    } else if (result == ST_BACKLOG_FULL || result == ST_DISK_FULL || result == ST_DEAD_FULL) {
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

void failures_failed(consumer *it, job *one) {
    int64_t after_ms = 0;
    const char *operation =
        one->code ? "" : job_operation_at(one, one->operation_at)->effects->operation;
    const bool again = !one->code && retries_again(&it->retries, operation, one->attempts,
                                                   one->verdict, code_of(one), chance(), &after_ms);
    const bool waits = it->settings.options.order == INGEST_KEY_WAITS && !one->code;
    if (again && waits && one->partition) {
        clear_trouble(one);
        one->due_ms = clock_monotonic_ms() + after_ms;
        running_set_state(it, one, JOB_BACKOFF);
        return;
    }
    failed_record record = make_record(it, one,
                                       again                     ? FAILED_WAITING
                                       : waits && one->partition ? FAILED_HELD
                                                                 : FAILED_GIVEN_UP,
                                       again ? clock_wall_ms() + after_ms : 0);
    if (!one->partition) {
        one->final = true;
        update(it, one, &record);
    } else if (put(it, one, &record)) {
        running_set_state(it, one, JOB_STORING);
    } else {
        return;
    }
    if (!again) tell_given_up(it, one, &record);
    if (again && record.next_attempt_ms < it->retry_wall_ms)
        it->retry_wall_ms = record.next_attempt_ms;
    clear_trouble(one);
}

void failures_progress(consumer *it, job *one) {
    if (one->done == one->effects) {
        one->final = true;
        update(it, one, NULL);
        return;
    }
    failed_record record = make_record(it, one, FAILED_WAITING, clock_wall_ms() + LEASE_MS);
    update(it, one, &record);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* It is on the disk. */
static void go_on(consumer *it, job *one) {
    const bool held = it->settings.options.order == INGEST_KEY_WAITS && !one->code;
    if (!one->partition && one->final)
        running_end(it, one);
    else if (!one->partition)
        running_start(it, one);
    else if (held)
        running_set_state(it, one, JOB_HELD);
    else
        running_finish(it, one);
}

static void write_staged(consumer *it) {
    failure why;
    if (!it->store_changed) return;
    it->store_changed = false;
    const outcome result = failed_store_write(it->store, &why);
    if (result != ST_OK) {
        driver_end(it, result, "failed events", "%s", why.reason);
        return;
    }
    for (size_t left = it->lists[JOB_STORING].count; left > 0; left--)
        go_on(it, job_list_first(&it->lists[JOB_STORING]));
}

/* ---- trying again ---------------------------------------------------------------------------- */

static uint64_t *slot_of(consumer *it, uint64_t number) {
    for (size_t i = 0; i < STORE_JOBS_MOST; i++)
        if (it->store_numbers[i] == number) return &it->store_numbers[i];
    return NULL;
}

void failures_release(consumer *it, const job *one) {
    uint64_t *slot = one->stored ? slot_of(it, one->stored) : NULL;
    if (slot) *slot = 0;
    atomic_fetch_sub_explicit(&it->counters.in_flight, 1, memory_order_relaxed);
}

/* Where the group was with this partition after our start; NULL: Kafka does not say. */
static const rd_kafka_topic_partition_t *committed_place(consumer *it, const char *topic,
                                                         int32_t number) {
    if (!it->after_start) it->after_start = rd_kafka_topic_partition_list_new(8);
    const rd_kafka_topic_partition_t *known =
        rd_kafka_topic_partition_list_find(it->after_start, topic, number);
    if (known) return known;
    rd_kafka_topic_partition_list_t *asked = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(asked, topic, number);
    const rd_kafka_resp_err_t code = rd_kafka_committed(it->rk, asked, ASK_MS);
    if (!code && !asked->elems[0].err) {
        rd_kafka_topic_partition_t *to =
            rd_kafka_topic_partition_list_add(it->after_start, topic, number);
        to->offset = asked->elems[0].offset;
        to->metadata = asked->elems[0].metadata;
        to->metadata_size = asked->elems[0].metadata_size;
        asked->elems[0].metadata = NULL;
        known = to;
    }
    rd_kafka_topic_partition_list_destroy(asked);
    return known;
}

typedef enum kafka_says { KAFKA_DONE, KAFKA_RUNS_IT, KAFKA_SILENT } kafka_says;

static kafka_says ask_kafka(consumer *it, const char *topic, const failed_record *record) {
    progress found;
    failure why;
    if (record->last_failed_ms >= it->started_wall_ms) return KAFKA_DONE;
    const rd_kafka_topic_partition_t *at = committed_place(it, topic, record->partition);
    if (!at) return KAFKA_SILENT;
    if (at->offset < 0 || record->offset < at->offset) return KAFKA_DONE; /* or it knows nothing */
    if (progress_parse(bytes_of(at->metadata, at->metadata_size), &found, &why) != ST_OK)
        return KAFKA_DONE;
    return progress_state(&found, (uint64_t)(record->offset - at->offset)) == PROGRESS_DONE
               ? KAFKA_DONE
               : KAFKA_RUNS_IT;
}

static job *job_from(consumer *it, const char *topic, const failed_record *record) {
    const job_record given = {.value = record->event,
                              .key = record->key,
                              .json = record->opaque && record->event.len &&
                                      record->event.data[0] == '{',
                              .time_ms = record->first_failed_ms,
                              .topic = topic,
                              .partition = record->partition,
                              .offset = record->offset};
    job *made = job_new(it->effects, &given);
    if (!made) return NULL;
    made->stored = record->number;
    made->first_failed_ms = record->first_failed_ms;
    made->attempts = record->attempts;
    if (record->catalogue_crc == effects_crc(it->effects) && record->effects_done < made->effects)
        made->done = record->effects_done;
    it->bytes += made->bytes;
    return made;
}

typedef struct taking {
    consumer *it;
    uint64_t *slot; /* free */
} taking;

static void postpone(consumer *it, const failed_record *record, int64_t ms) {
    failure why;
    failed_record later = *record;
    later.next_attempt_ms = clock_wall_ms() + ms;
    const outcome result = failed_store_update(it->store, &later, &why);
    if (result != ST_OK && result != ST_NOT_FOUND)
        driver_end(it, result, "failed events", "%s", why.reason);
    it->store_changed = true;
}

static bool is_on_its_way(const consumer *it, uint64_t number) {
    const job_list *list = &it->lists[JOB_RECORDING];
    for (const job *one = job_list_first(list); one; one = job_list_next(list, one))
        if (one->stored == number) return true;
    return false;
}

static void take_record(void *arg, const failed_record *record) {
    const taking *with = arg;
    consumer *it = with->it;
    char name[256];
    failure why;
    (void)snprintf(name, sizeof name, "%.*s", (int)record->topic.len,
                   (const char *)record->topic.data);
    const char *topic = kafka_topic_name(it, name);
    const kafka_says says = topic ? ask_kafka(it, topic, record) : KAFKA_SILENT;
    if (says == KAFKA_SILENT || slot_of(it, record->number) || is_on_its_way(it, record->number)) {
        postpone(it, record, IDLE_MS);
        return;
    }
    if (says == KAFKA_RUNS_IT) {
        it->store_changed = true;
        if (failed_store_remove(it->store, record->number, &why) != ST_OK)
            driver_end(it, ST_IO, "failed events", "%s", why.reason);
        return;
    }
    job *made = job_from(it, topic, record);
    if (!made) {
        postpone(it, record, IDLE_MS);
        return;
    }
    postpone(it, record, LEASE_MS); /* so that it is not due while it is under way */
    *with->slot = record->number;
    running_add(it, made);
}

/* The next that is due; false: none is, or there is no room. */
static bool take_next(consumer *it) {
    uint64_t number;
    int64_t at_ms;
    failure why;
    taking with = {it, slot_of(it, 0)};
    if (!with.slot || it->bytes >= it->settings.options.buffer_bytes) return false;
    outcome result = failed_store_next(it->store, &number, &at_ms, &why);
    const int64_t now_ms = clock_wall_ms();
    it->retry_wall_ms = number && at_ms < now_ms + IDLE_MS ? at_ms : now_ms + IDLE_MS;
    if (result == ST_OK && number && at_ms <= now_ms)
        result = failed_store_get(it->store, number, take_record, &with, &why);
    else
        number = 0;
    if (result != ST_OK) driver_end(it, result, "failed events", "%s", why.reason);
    return number != 0;
}

void failures_turn(consumer *it) {
    write_staged(it);
    for (size_t left = it->lists[JOB_FAILING].count; left > 0; left--)
        failures_failed(it, job_list_first(&it->lists[JOB_FAILING]));
    if (atomic_load(&it->stopping)) return;
    for (int i = 0; i < TURN_MOST && clock_wall_ms() >= it->retry_wall_ms; i++) {
        if (driver_ended(it) || !take_next(it)) break;
        write_staged(it);
    }
}

/* ---- from outside ---------------------------------------------------------------------------- */

void failures_forget(consumer *it, const job *one) {
    failure why;
    const outcome result = failed_store_remove(it->store, one->stored, &why);
    if (result != ST_OK && result != ST_NOT_FOUND)
        driver_end(it, result, "failed events", "%s", why.reason);
    it->store_changed = true;
}

static job *held_by(consumer *it, uint64_t number) {
    const job_list *list = &it->lists[JOB_HELD];
    for (job *one = job_list_first(list); one; one = job_list_next(list, one))
        if (one->stored == number) return one;
    return NULL;
}

static void let_go(consumer *it, job *one, control_change change) {
    failures_forget(it, one);
    one->stored = 0;
    one->attempts = 0;
    if (change == CHANGE_RETRY)
        running_start(it, one);
    else
        running_finish(it, one);
}

static void set_due(void *arg, const failed_record *record) {
    consumer *it = arg;
    failure why;
    failed_record due = *record;
    if (slot_of(it, record->number)) return; /* it is being tried */
    due.state = FAILED_WAITING;
    due.attempts = 0;
    due.next_attempt_ms = clock_wall_ms();
    if (failed_store_update(it->store, &due, &why) != ST_OK)
        driver_end(it, ST_IO, "failed events", "%s", why.reason);
}

static outcome change_one(consumer *it, control_change change, uint64_t number, failure *why) {
    job *held = held_by(it, number);
    it->store_changed = true;
    if (held) {
        let_go(it, held, change);
        return ST_OK;
    }
    if (change == CHANGE_DISCARD) return failed_store_remove(it->store, number, why);
    it->retry_wall_ms = 0;
    return failed_store_get(it->store, number, set_due, it, why);
}

void failures_change(consumer *it, inbox_request *request) {
    for (size_t i = 0; i < request->count && !driver_ended(it); i++) {
        const outcome result = change_one(it, request->change, request->numbers[i], &request->why);
        if (result == ST_OK) request->done++;
        if (result != ST_OK && result != ST_NOT_FOUND) {
            request->result = result;
            break;
        }
    }
    write_staged(it);
    if (request->result == ST_OK && driver_ended(it))
        request->result = fail(&request->why, it->end.code, "", "%s", it->end.reason);
}

/* ---- opening --------------------------------------------------------------------------------- */

typedef struct leftovers {
    uint64_t *numbers; /* owned */
    size_t count, capacity;
    bool no_memory;
} leftovers;

/* Copies of events that were held: the events are in Kafka, and will be held again there. */
static bool note_held(void *arg, const failed_record *record) {
    leftovers *to = arg;
    if (record->state != FAILED_HELD) return true;
    if (to->count == to->capacity) {
        const size_t larger = to->capacity ? to->capacity * 2 : 64;
        uint64_t *moved = realloc(to->numbers, larger * sizeof *moved);
        to->no_memory = !moved;
        if (!moved) return false;
        to->numbers = moved;
        to->capacity = larger;
    }
    to->numbers[to->count++] = record->number;
    return true;
}

outcome failures_open(consumer *it, failure *why) {
    const failed_limits limits = {.max_events = it->settings.options.failed_max_events,
                                  .max_bytes = it->settings.options.failed_max_bytes,
                                  .reserve_free_bytes = FAILED_RESERVE_FREE};
    leftovers held = {0};
    outcome result = failed_store_open(it->settings.options.data_dir, &limits, &it->store, why);
    if (result == ST_OK) result = failed_store_each(it->store, 0, false, note_held, &held, why);
    if (result == ST_OK && held.no_memory) result = fail(why, ST_NO_MEMORY, "", "no memory");
    for (size_t i = 0; i < held.count && result == ST_OK; i++)
        result = failed_store_remove(it->store, held.numbers[i], why);
    if (result == ST_OK) result = failed_store_write(it->store, why);
    free(held.numbers);
    return result;
}
