/*
 * What the store of failed events has is tried again: by itself when it is due, or because somebody
 * asks. A job from the store has no partition; its progress is synced in the store. While it is
 * under way its record is due at a later time (the lease), so that a crash only delays it.
 */
#include <stdio.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

enum { TURN_MOST = 32, IDLE_MS = 1000 };

static uint64_t *slot_of(consumer *it, uint64_t number) {
    for (size_t i = 0; i < STORE_JOBS_MOST; i++)
        if (it->store_numbers[i] == number) return &it->store_numbers[i];
    return NULL;
}

void retrying_release(consumer *it, const job *one) {
    uint64_t *slot = one->stored ? slot_of(it, one->stored) : NULL;
    if (slot) *slot = 0;
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
    running_adopt(it, made);
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

static void take_record(void *arg, const failed_record *record) {
    const taking *with = arg;
    consumer *it = with->it;
    char name[256];
    (void)snprintf(name, sizeof name, "%.*s", (int)record->topic.len,
                   (const char *)record->topic.data);
    const char *topic = kafka_topic_name(it, name);
    job *made = topic && !slot_of(it, record->number) ? job_from(it, topic, record) : NULL;
    postpone(it, record, made ? RETRY_LEASE_MS : IDLE_MS);
    if (!made) return;
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

void retrying_turn(consumer *it) {
    for (int i = 0; i < TURN_MOST && clock_wall_ms() >= it->retry_wall_ms; i++) {
        if (driver_ended(it) || !take_next(it)) break;
        failures_write(it);
    }
}

/* ---- from outside ---------------------------------------------------------------------------- */

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

typedef struct changing {
    consumer *it;
    control_change change;
    outcome result;
    failure *why;
} changing;

static void change_stored(void *arg, const failed_record *record) {
    changing *with = arg;
    consumer *it = with->it;
    failed_record due = *record;
    if (record->state == FAILED_HELD) {
        with->result =
            fail(with->why, ST_UNAVAILABLE, "",
                 "failed event %llu is on its way between Kafka and the store: try again",
                 (unsigned long long)record->number);
    } else if (with->change == CHANGE_DISCARD) {
        with->result = failed_store_remove(it->store, record->number, with->why);
    } else if (!slot_of(it, record->number)) { /* else it is being tried */
        due.state = FAILED_WAITING;
        due.attempts = 0;
        due.next_attempt_ms = clock_wall_ms();
        with->result = failed_store_update(it->store, &due, with->why);
        it->retry_wall_ms = 0;
    }
}

static outcome change_one(consumer *it, control_change change, uint64_t number, failure *why) {
    changing with = {it, change, ST_OK, why};
    job *held = held_by(it, number);
    it->store_changed = true;
    if (held) {
        let_go(it, held, change);
        return ST_OK;
    }
    const outcome result = failed_store_get(it->store, number, change_stored, &with, why);
    return result == ST_OK ? with.result : result;
}

void retrying_change(consumer *it, mailbox_request *request) {
    for (size_t i = 0; i < request->count && !driver_ended(it); i++) {
        const outcome result = change_one(it, request->change, request->numbers[i], &request->why);
        if (result == ST_OK) request->done++;
        if (result != ST_OK && result != ST_NOT_FOUND) {
            request->result = result;
            break;
        }
    }
    failures_write(it);
    if (request->result == ST_OK && driver_ended(it))
        request->result = fail(&request->why, it->end.code, "", "%s", it->end.reason);
}
