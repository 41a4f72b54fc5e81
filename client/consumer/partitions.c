/*
 * Partitions come and go. Within a rebalance librdkafka waits for us, and we wait for what must be
 * settled first: the progress of what comes is read, that of what goes is committed, and no commit
 * is on its way when we let go (else it could be sent in the name of a later generation).
 * While Kafka does not answer, nothing else can go on either.
 */
#include <stdlib.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

enum { ASK_MS = 5000, PAUSE_MS = 200 };

typedef rd_kafka_topic_partition_list_t partition_list;
typedef rd_kafka_topic_partition_t partition_item;

partition *partitions_find(const consumer *it, const char *topic, int32_t number) {
    for (partition *one = it->partitions; one; one = one->next)
        if (one->number == number && strcmp(one->topic, topic) == 0) return one;
    return NULL;
}

static bool cooperative(const consumer *it) {
    const char *protocol = rd_kafka_rebalance_protocol(it->rk);
    return protocol && strcmp(protocol, "COOPERATIVE") == 0;
}

/* ---- asking Kafka ---------------------------------------------------------------------------- */

static bool items_are_sound(const partition_list *list) {
    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].err) return false;
    return true;
}

static bool ask_committed(consumer *it, partition_list *list) {
    rd_kafka_resp_err_t code = rd_kafka_committed(it->rk, list, ASK_MS);
    if (!code && items_are_sound(list)) return true;
    driver_log(it, "asking for committed offsets: %s", rd_kafka_err2str(code));
    return false;
}

/* Offsets by time; -2 stands for the beginning, -1 for the end. NULL: no answer. */
static partition_list *ask_offsets(consumer *it, const partition_list *of, int64_t time) {
    partition_list *list = rd_kafka_topic_partition_list_copy(of);
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = time;
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(it->rk, list, ASK_MS);
    if (!code && items_are_sound(list)) return list;
    driver_log(it, "asking for the offsets of partitions: %s", rd_kafka_err2str(code));
    rd_kafka_topic_partition_list_destroy(list);
    return NULL;
}

typedef struct answers {
    partition_list *committed, *low, *high, *since;
} answers;

static void free_answers(answers *it) {
    partition_list *all[] = {it->committed, it->low, it->high, it->since};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]) rd_kafka_topic_partition_list_destroy(all[i]);
    *it = (answers){0};
}

static bool ask(consumer *it, const partition_list *list, answers *out) {
    const int64_t window_ms = (int64_t)it->settings.options.identity_window_ms;
    *out = (answers){.committed = rd_kafka_topic_partition_list_copy(list)};
    if (failures_settle(it) && ask_committed(it, out->committed) &&
        (out->low = ask_offsets(it, list, -2)) && (out->high = ask_offsets(it, list, -1)) &&
        (out->since = ask_offsets(it, list, clock_wall_ms() - window_ms)))
        return true;
    free_answers(out);
    return false;
}

/* Until Kafka answers; false: there is no point any more. */
static bool ask_on(consumer *it, const partition_list *list, answers *out) {
    while (!ask(it, list, out)) {
        if (atomic_load(&it->stopping) || driver_ended(it) || rd_kafka_assignment_lost(it->rk))
            return false;
        driver_sleep(it, PAUSE_MS);
    }
    return true;
}

/* ---- they come ------------------------------------------------------------------------------- */

/* Where to go on: the committed offset, if Kafka still has that. */
static int64_t choose_offset(consumer *it, const partition_item *committed, int64_t low,
                             int64_t high) {
    const long long at = committed->offset;
    if (at < 0) return it->settings.options.from_latest ? high : low;
    if (at >= low && at <= high) return at;
    driver_alarm(it, INGEST_ALARM_OFFSETS,
                 at < low ? "%s/%d: records %lld to %lld are gone, and were never consumed: the "
                            "topic keeps them too short a time"
                          : "%s/%d: offset %lld is committed, but the topic ends at %lld: it was "
                            "made anew, or Kafka lost records; consuming from its beginning",
                 committed->topic, committed->partition, at,
                 (long long)(at < low ? low - 1 : high));
    return low;
}

/* What was committed with the offset. Where we do not begin with that, or others committed it,
 * nobody can tell what moved before. */
static bool take_progress(consumer *it, partition *to, const partition_item *committed) {
    failure why;
    progress *found = &to->found;
    const bool same = to->committed == committed->offset;
    const bytes text = bytes_of(committed->metadata, committed->metadata_size);
    const outcome result = progress_parse(text, found, &why);
    to->moves = found->moves;
    moves_drop_store(&to->moves, failed_store_id(it->store)); /* failures_settle has seen them */
    if (!same || !found->ours) moves_unsure(&to->moves, to->committed);
    if (!same) found->len = 0;
    if (result == ST_UNIMPLEMENTED) {
        driver_end(it, result, "group", "%s/%d: %s", to->topic, to->number, why.reason);
        return false;
    }
    if (result != ST_OK)
        driver_alarm(it, INGEST_ALARM_OFFSETS, "%s/%d: what is committed with the offset %s",
                     to->topic, to->number, why.reason);
    if (found->len && found->crc != effects_crc(it->effects))
        driver_log(it,
                   "%s/%d: the catalogue is another one than before: events that were partly done "
                   "begin anew, with the same idempotency keys",
                   to->topic, to->number);
    return true;
}

static rd_kafka_queue_t *own_queue(const consumer *it, const char *topic, int32_t number) {
    const uint64_t one = 1;
    rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(it->rk, topic, number);
    if (!queue) return NULL;
    rd_kafka_queue_forward(queue, NULL); /* so that we need not read it when there is no room */
    rd_kafka_queue_io_event_enable(queue, it->wake, &one, sizeof one);
    return queue;
}

/* Makes the partition, and sets in `item` where it is read from. */
static bool take_one(consumer *it, partition_item *item, const answers *given, int index) {
    const int64_t low = given->low->elems[index].offset, high = given->high->elems[index].offset;
    const int64_t since = given->since->elems[index].offset; /* negative: none is so young */
    partition *made = calloc(1, sizeof *made);
    if (made) made->topic = kafka_topic_name(it, item->topic);
    if (made && made->topic) made->queue = own_queue(it, item->topic, item->partition);
    if (!made || !made->queue) {
        free(made);
        driver_end(it, ST_NO_MEMORY, "", "no memory for a partition");
        return false;
    }
    made->number = item->partition;
    made->id = it->partition_ids++;
    made->committed = choose_offset(it, &given->committed->elems[index], low, high);
    window_init(&made->window, made->committed);
    made->next = it->partitions;
    it->partitions = made;
    atomic_fetch_add(&it->counters.partitions, 1);
    item->offset = made->committed;
    const bool remember = it->settings.options.identity_window_ms > 0 &&
                          it->settings.options.identity_window_events > 0;
    if (remember && since >= low && since < made->committed) item->offset = since;
    return take_progress(it, made, &given->committed->elems[index]);
}

static void take_over(consumer *it, partition_list *list) {
    answers given;
    if (list->cnt > 0 && ask_on(it, list, &given)) {
        for (int i = 0; i < list->cnt && take_one(it, &list->elems[i], &given, i); i++)
            driver_log(it, "%s/%d is ours, from offset %lld", list->elems[i].topic,
                       list->elems[i].partition, (long long)it->partitions->committed);
        free_answers(&given);
    }
    rd_kafka_error_t *error = NULL;
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (cooperative(it))
        error = rd_kafka_incremental_assign(it->rk, list);
    else
        code = rd_kafka_assign(it->rk, list);
    if (error || code)
        driver_log(it, "assigning: %s",
                   error ? rd_kafka_error_string(error) : rd_kafka_err2str(code));
    if (error) rd_kafka_error_destroy(error);
}

/* ---- they go --------------------------------------------------------------------------------- */

static bool is_ending(void *arg, const void *part) {
    (void)arg;
    return ((const job *)part)->partition->ending;
}

/* Of a group that was not whole. */
static void drop_group(void *arg, const group_view *group) {
    consumer *it = arg;
    for (uint32_t i = 0; i < group->size; i++)
        if (group->parts[i]) running_drop(it, group->parts[i]);
}

static void free_partition(consumer *it, partition *one) {
    rd_kafka_queue_io_event_enable(one->queue, -1, NULL, 0);
    rd_kafka_queue_destroy(one->queue);
    identities_forget(it->identities, one->id);
    window_free(&one->window);
    free(one);
    atomic_fetch_sub(&it->counters.partitions, 1);
}

/* What waits only for its last commit is in no window any more. */
static void drop_finished(consumer *it) {
    const job_list *list = &it->lists[JOB_RECORDING];
    for (job *next, *one = job_list_first(list); one; one = next) {
        next = job_list_next(list, one);
        if (one->final && one->partition->ending) running_drop(it, one);
    }
}

static void drop_jobs(consumer *it, partition *of) {
    for (uint64_t number = of->window.first; number < of->window.end; number++) {
        job *owner = window_at(&of->window, number)->owner;
        if (owner) running_drop(it, owner);
    }
}

static void drop_ending(consumer *it) {
    groups_drop(it->groups, is_ending, drop_group, it);
    drop_finished(it);
    for (partition *one = it->partitions; one; one = one->next)
        if (one->ending) drop_jobs(it, one);
    for (partition **at = &it->partitions; *at;) {
        partition *one = *at;
        if (!one->ending) {
            at = &one->next;
            continue;
        }
        *at = one->next;
        free_partition(it, one);
    }
}

static bool busy(const consumer *it) {
    if (it->committing) return true;
    for (const partition *one = it->partitions; one; one = one->next) {
        if (!one->ending) continue;
        if (one->dirty) return true;
        for (uint64_t number = one->window.first; number < one->window.end; number++) {
            const job *owner = window_at(&one->window, number)->owner;
            if (owner && owner->state == JOB_RUNNING && !atomic_load(&it->stopping)) return true;
        }
    }
    return false;
}

/* Effects that run come to their end and are committed, if there is time. */
static void settle_ending(consumer *it) {
    const int64_t until_ms = clock_monotonic_ms() + HANDOVER_MS;
    while (busy(it) && clock_monotonic_ms() < until_ms && !rd_kafka_assignment_lost(it->rk) &&
           !driver_ended(it)) {
        driver_work(it);
        if (busy(it)) driver_sleep(it, TURN_MS);
    }
}

/* No commit is on its way any more. */
static void settle_commit(consumer *it) {
    while (it->committing && !driver_ended(it)) {
        driver_sleep(it, TURN_MS);
        committing_serve(it);
    }
}

static void hand_over(consumer *it, partition_list *list) {
    const bool lost = rd_kafka_assignment_lost(it->rk);
    for (int i = 0; i < list->cnt; i++) {
        partition *one = partitions_find(it, list->elems[i].topic, list->elems[i].partition);
        if (one) one->ending = true;
        driver_log(it, "%s/%d is %s", list->elems[i].topic, list->elems[i].partition,
                   lost ? "lost: others have it" : "handed over");
    }
    running_recall(it);
    if (!lost) settle_ending(it);
    settle_commit(it);
    drop_ending(it);
    (void)failures_settle(it); /* while nobody else has them, if we are in time */
    if (cooperative(it)) {
        rd_kafka_error_t *error = rd_kafka_incremental_unassign(it->rk, list);
        if (error) rd_kafka_error_destroy(error); /* lost: it is unassigned already */
    } else {
        (void)rd_kafka_assign(it->rk, NULL);
    }
}

void partitions_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code, partition_list *list,
                          void *arg) {
    consumer *it = arg;
    (void)rk;
    atomic_fetch_add(&it->counters.rebalances, 1);
    if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        take_over(it, list);
    else
        hand_over(it, list);
}

void partitions_free(consumer *it) {
    while (it->partitions) {
        partition *one = it->partitions;
        it->partitions = one->next;
        free_partition(it, one);
    }
}

/* ---- they lost records ----------------------------------------------------------------------- */

void partitions_rewind(consumer *it, partition *of) {
    partition_list *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, of->topic, of->number);
    partition_list *low = ask_offsets(it, list, -2);
    if (low) {
        const int64_t from = low->elems[0].offset;
        driver_alarm(it, INGEST_ALARM_OFFSETS,
                     "%s/%d: records %lld to %lld were deleted before they were consumed",
                     of->topic, of->number, (long long)of->window.next, (long long)from - 1);
        list->elems[0].offset = from;
        moves_unsure(&of->moves, from);
        rd_kafka_error_t *error = rd_kafka_seek_partitions(it->rk, list, ASK_MS);
        if (error) {
            driver_end(it, ST_UNAVAILABLE, "kafka",
                       "%s/%d: cannot go on behind deleted records: %s", of->topic, of->number,
                       rd_kafka_error_string(error));
            rd_kafka_error_destroy(error);
        }
        rd_kafka_topic_partition_list_destroy(low);
    } else {
        driver_end(it, ST_UNAVAILABLE, "kafka",
                   "%s/%d: the next records were deleted, and Kafka does not say up to which",
                   of->topic, of->number);
    }
    rd_kafka_topic_partition_list_destroy(list);
}
