/*
 * The life of an event, in the driver's thread:
 *
 *   QUEUED -> (BLOCKED) -> RUNNING -> done:  RECORDING -> RUNNING with the next effect ... -> end
 *                                  -> not:   STORING, MOVING, BACKOFF, HELD, FAILING: failures.c
 *
 * Nothing of an event, nor of its key, begins before the effect that was done before is durable:
 * committed, or on the disk when the event came from the store of failed events.
 */
#include <stdlib.h>
#include <xxhash.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

static void count(_Atomic uint64_t *counter) {
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void running_set_state(consumer *it, job *one, job_state state) {
    job_list_remove(&it->lists[one->state], one);
    one->state = state;
    job_list_add(&it->lists[state], one);
}

void running_adopt(consumer *it, job *one) {
    one->state = JOB_NEW;
    job_list_add(&it->lists[JOB_NEW], one);
    it->bytes += one->bytes;
    atomic_fetch_add_explicit(&it->counters.in_flight, 1, memory_order_relaxed);
}

/* ---- beginning ------------------------------------------------------------------------------- */

void running_add(consumer *it, job *one) {
    running_set_state(it, one, JOB_QUEUED);
    if (one->code) {
        failures_failed(it, one);
        return;
    }
    if (keys_push(&it->keys, &one->key, XXH3_64bits(one->key_text, one->key_len)))
        running_start(it, one);
}

void running_start(consumer *it, job *one) {
    const bool ours = !one->partition || !one->partition->ending;
    if (!ours || atomic_load_explicit(&it->stopping, memory_order_relaxed)) {
        running_set_state(it, one, JOB_QUEUED);
        return;
    }
    if (one->partition && !window_begin(&one->partition->window, one->number)) {
        running_set_state(it, one, JOB_BLOCKED);
        return;
    }
    running_set_state(it, one, JOB_RUNNING);
    (void)job_next_effect(one);
    one->next = NULL;
    if (it->start_first)
        it->start_last->next = one;
    else
        it->start_first = one;
    it->start_last = one;
    it->running++;
}

void running_recall(consumer *it) {
    running_flush(it);
    for (job *next, *one = workers_recall(it->workers); one; one = next) {
        next = one->next;
        it->running--;
        running_start(it, one);
    }
}

static void start_blocked(consumer *it) {
    for (size_t left = it->lists[JOB_BLOCKED].count; left > 0; left--)
        running_start(it, job_list_first(&it->lists[JOB_BLOCKED]));
}

static void start_due(consumer *it, int64_t now_ms) {
    const job_list *list = &it->lists[JOB_BACKOFF];
    for (job *next, *one = job_list_first(list); one; one = next) {
        next = job_list_next(list, one);
        if (one->due_ms <= now_ms) running_start(it, one);
    }
}

/* ---- ending ---------------------------------------------------------------------------------- */

static job *part_of(job *one, uint32_t index) { return one->parts ? one->parts[index] : one; }
static uint32_t parts_of(const job *one) { return one->parts ? one->part_count : 1; }

void running_finish(consumer *it, job *one) {
    for (uint32_t i = 0; i < parts_of(one); i++) {
        job *part = part_of(one, i);
        window_at(&part->partition->window, part->number)->owner = NULL;
        window_set(&part->partition->window, part->number, PROGRESS_DONE);
        part->partition->dirty = true;
    }
    one->final = true;
    one->commit = it->commit_number + 1;
    running_set_state(it, one, JOB_RECORDING);
}

static job *job_of(key_place *place) { return (job *)(void *)((char *)place - offsetof(job, key)); }

void running_pass(consumer *it, job *one) {
    key_place *next = keys_remove(&it->keys, &one->key);
    if (next) running_start(it, job_of(next));
}

void running_end(consumer *it, job *one) {
    key_place *next = keys_remove(&it->keys, &one->key);
    job_list_remove(&it->lists[one->state], one);
    for (uint32_t i = 0; i < parts_of(one); i++)
        it->bytes -= part_of(one, i)->bytes;
    atomic_fetch_sub_explicit(&it->counters.in_flight, parts_of(one), memory_order_relaxed);
    retrying_release(it, one);
    job_free(one);
    if (next) running_start(it, job_of(next));
}

static void forget_partitions(job *one) {
    for (uint32_t i = 0; i < parts_of(one); i++) {
        job *part = part_of(one, i);
        window_at(&part->partition->window, part->number)->owner = NULL;
        part->partition = NULL;
    }
}

/* One that a worker has stays at the front of its key until it comes back, so that the same event
 * does not run beside it, should the partition come back sooner. */
void running_drop(consumer *it, job *one) {
    failures_forget(it, one);
    if (!one->final) forget_partitions(one);
    if (one->state == JOB_RUNNING)
        one->orphan = true;
    else
        running_end(it, one);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void take_done(consumer *it, job *one) {
    count(&it->counters.effects_done);
    one->done++;
    one->attempts = 0;
    if (one->done == one->effects) count(&it->counters.events_done);
    if (!one->partition) {
        failures_progress(it, one);
    } else if (one->done == one->effects) {
        running_finish(it, one);
    } else {
        window_set(&one->partition->window, one->number, PROGRESS_PARTLY + one->done);
        one->partition->dirty = true;
        one->commit = it->commit_number + 1;
        running_set_state(it, one, JOB_RECORDING);
    }
}

static void take_verdict(consumer *it, job *one) {
    it->running--;
    if (one->orphan) {
        running_end(it, one);
    } else if (one->verdict == INGEST_DONE) {
        take_done(it, one);
    } else {
        count(&it->counters.effects_failed);
        one->attempts++;
        failures_failed(it, one);
    }
}

void running_recorded(consumer *it) {
    const job_list *list = &it->lists[JOB_RECORDING];
    for (job *one; (one = job_list_first(list)) && one->commit <= it->commit_durable;) {
        if (one->stored) failures_moved(it, one);
        if (one->final)
            running_end(it, one);
        else
            running_start(it, one);
    }
}

void running_turn(consumer *it, int64_t now_ms) {
    for (job *next, *one = workers_done(it->workers); one; one = next) {
        next = one->next;
        take_verdict(it, one);
    }
    running_recorded(it);
    start_blocked(it);
    start_due(it, now_ms);
}

void running_flush(consumer *it) {
    if (!it->start_first) return;
    workers_run(it->workers, it->start_first, it->start_last);
    it->start_first = it->start_last = NULL;
}
