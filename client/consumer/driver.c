/*
 * The loop of a consumer, on the thread that is in ingest_consumer_run. It sleeps on one eventfd,
 * which librdkafka, the workers, the control thread and ingest_consumer_stop write to.
 *
 * A stop: what no worker has begun is taken back; handlers that run get the grace; what they did is
 * committed; then the group is left, which hands all partitions over (partitions.c). What ends the
 * consumer by itself (driver_end) skips the waiting: what was not committed is run again.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

enum { LOG_LINES_A_SECOND = 10, SECOND_MS = 1000, REBALANCE_MS = 10000, LEAVE_MS = 20000 };

/* ---- what it tells --------------------------------------------------------------------------- */

static bool may_log(consumer *it) {
    const int64_t now_ms = clock_monotonic_ms();
    pthread_mutex_lock(&it->log_lock);
    if (now_ms - it->log_second_ms >= SECOND_MS) {
        it->log_second_ms = now_ms;
        it->log_lines = 0;
    }
    const bool may = it->log_lines++ < LOG_LINES_A_SECOND;
    pthread_mutex_unlock(&it->log_lock);
    return may;
}

void driver_log(consumer *it, const char *format, ...) {
    char line[1024];
    va_list args;
    if (!it->settings.options.log || !may_log(it)) return;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    it->settings.options.log(it->settings.options.arg, line);
}

void driver_alarm(consumer *it, ingest_alarm what, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    atomic_fetch_add_explicit(&it->counters.alarms[what], 1, memory_order_relaxed);
    if (it->settings.options.alarm)
        it->settings.options.alarm(it->settings.options.arg, what, text);
    else
        driver_log(it, "alarm: %s", text);
}

void driver_end(consumer *it, outcome code, const char *field, const char *format, ...) {
    char reason[sizeof it->end.reason];
    va_list args;
    if (it->end.code != ST_OK) return;
    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    (void)fail(&it->end, code, field, "%s", reason);
}

bool driver_ended(const consumer *it) { return it->end.code != ST_OK; }

/* ---- beginning and end ----------------------------------------------------------------------- */

static outcome subscribe(consumer *it, failure *why) {
    const char *const *topics = it->settings.options.topics;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(4);
    for (size_t i = 0; topics[i]; i++)
        rd_kafka_topic_partition_list_add(list, topics[i], RD_KAFKA_PARTITION_UA);
    const rd_kafka_resp_err_t code = rd_kafka_subscribe(it->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return code ? fail(why, ST_INVALID, "topics", "%s", rd_kafka_err2str(code)) : ST_OK;
}

static void wake_by(const consumer *it, rd_kafka_queue_t *queue) {
    const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue, it->wake, &one, sizeof one);
}

static outcome begin(consumer *it, failure *why) {
    const ingest_consumer_options *options = &it->settings.options;
    for (size_t i = 0; i < JOB_STATES; i++)
        job_list_init(&it->lists[i]);
    it->identities =
        identities_new(options->identity_window_events, (int64_t)options->identity_window_ms);
    it->groups = groups_new();
    if (!it->identities || !it->groups || !keys_init(&it->keys))
        return fail(why, ST_NO_MEMORY, "", "no memory");
    it->workers = workers_start(options->workers, it->wake);
    if (!it->workers) return fail(why, ST_NO_MEMORY, "workers", "cannot start so many threads");
    rd_kafka_poll_set_consumer(it->rk);
    it->events = rd_kafka_queue_get_consumer(it->rk);
    it->commits = rd_kafka_queue_new(it->rk);
    wake_by(it, it->events);
    wake_by(it, it->commits);
    return subscribe(it, why);
}

void driver_sleep(consumer *it, int64_t ms) {
    uint64_t count;
    struct pollfd wake = {.fd = it->wake, .events = POLLIN};
    if (poll(&wake, 1, (int)ms) > 0 && read(it->wake, &count, sizeof count) < 0) return;
}

/* Rebalances and errors; records never come this way, as each partition has its own queue. */
static void poll_kafka(consumer *it) {
    for (rd_kafka_message_t *message; (message = rd_kafka_consumer_poll(it->rk, 0));) {
        if (message->err) kafka_error(it, message->err, rd_kafka_message_errstr(message));
        rd_kafka_message_destroy(message);
    }
}

/* Nobody asks for anything any more. */
static void free_jobs(consumer *it) {
    for (size_t i = 0; i < JOB_STATES; i++)
        for (job *one; (one = job_list_first(&it->lists[i]));) {
            job_list_remove(&it->lists[i], one);
            job_free(one);
        }
}

/* Hands all partitions over, and tells the group. Not in the middle of a rebalance: joining.h. */
static void leave_group(consumer *it) {
    int64_t until_ms = clock_monotonic_ms() + REBALANCE_MS;
    while (!joining_at_rest(&it->joining) && clock_monotonic_ms() < until_ms) {
        poll_kafka(it);
        driver_sleep(it, TURN_MS);
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_new(it->rk);
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(it->rk, queue);
    if (error) {
        driver_log(it, "leaving the group: %s", rd_kafka_error_string(error));
        rd_kafka_error_destroy(error);
    }
    until_ms = clock_monotonic_ms() + LEAVE_MS;
    while (!rd_kafka_consumer_closed(it->rk) && clock_monotonic_ms() < until_ms)
        rd_kafka_queue_poll_callback(queue, TURN_MS);
    rd_kafka_queue_destroy(queue);
    it->stuck = !rd_kafka_consumer_closed(it->rk);
    if (!it->stuck) return;
    driver_log(it, "librdkafka does not leave the group: it is left behind, with its memory");
    it->settings.options.log = NULL;
}

static void leave(consumer *it) {
    if (it->events) leave_group(it);
    mailbox_open(&it->mailbox, false);
    workers_stop(it->workers);
    partitions_free(it);
    free_jobs(it);
    if (it->events) {
        rd_kafka_queue_io_event_enable(it->events, -1, NULL, 0);
        rd_kafka_queue_io_event_enable(it->commits, -1, NULL, 0);
        rd_kafka_queue_destroy(it->events);
        rd_kafka_queue_destroy(it->commits);
    }
    keys_free(&it->keys);
    groups_free(it->groups);
    identities_free(it->identities);
}

/* ---- the loop -------------------------------------------------------------------------------- */

void driver_work(consumer *it) {
    const int64_t now_ms = clock_monotonic_ms();
    for (mailbox_request *request; (request = mailbox_take(&it->mailbox));) {
        retrying_change(it, request);
        mailbox_answer(&it->mailbox);
    }
    committing_serve(it);
    running_turn(it, now_ms);
    failures_turn(it);
    running_flush(it);
    if (!driver_ended(it)) committing_turn(it, now_ms);
}

/* With INGEST_KEY_WAITS a partition may have no room but for what waits for somebody. */
static void look_for_stalls(consumer *it) {
    const bool held = it->lists[JOB_HELD].count > 0;
    for (partition *one = it->partitions; one; one = one->next) {
        const bool stalled = held && one->more && it->running == 0 && !one->dirty;
        if (stalled && !one->stalled)
            driver_alarm(it, INGEST_ALARM_STALLED,
                         "%s/%d: no room behind failed events that hold their keys: retry or "
                         "discard them; the first record that waits is at %lld",
                         one->topic, one->number, (long long)window_offset(&one->window));
        one->stalled = stalled;
    }
}

static void count_lag(consumer *it) {
    uint64_t lag = 0;
    for (const partition *one = it->partitions; one; one = one->next) {
        int64_t low, high;
        if (rd_kafka_get_watermark_offsets(it->rk, one->topic, one->number, &low, &high)) continue;
        if (high > window_offset(&one->window))
            lag += (uint64_t)(high - window_offset(&one->window));
    }
    atomic_store_explicit(&it->counters.lag, lag, memory_order_relaxed);
    atomic_store_explicit(&it->counters.bytes, it->bytes, memory_order_relaxed);
    atomic_store_explicit(&it->counters.identities, identities_count(it->identities),
                          memory_order_relaxed);
    atomic_store_explicit(&it->counters.identity_oldest_ms, identities_oldest_ms(it->identities),
                          memory_order_relaxed);
}

static void each_second(consumer *it) {
    const int64_t now_ms = clock_monotonic_ms();
    if (now_ms - it->second_ms < SECOND_MS) return;
    it->second_ms = now_ms;
    reading_give_up_groups(it, now_ms);
    look_for_stalls(it);
    count_lag(it);
}

static bool at_rest(const consumer *it) {
    if (it->committing || it->running > 0 || it->lists[JOB_STORING].count > 0 ||
        it->lists[JOB_MOVING].count > 0)
        return false;
    for (const partition *one = it->partitions; one; one = one->next)
        if (one->dirty) return false;
    return true;
}

static void wind_down(consumer *it) {
    const int64_t until_ms = clock_monotonic_ms() + atomic_load(&it->grace_ms);
    running_recall(it);
    while (!driver_ended(it) && !at_rest(it) && clock_monotonic_ms() < until_ms) {
        poll_kafka(it);
        driver_work(it);
        if (!at_rest(it)) driver_sleep(it, TURN_MS);
    }
}

outcome driver_run(consumer *it, failure *why) {
    outcome result = begin(it, &it->end);
    if (result == ST_OK) mailbox_open(&it->mailbox, true);
    while (!driver_ended(it) && !atomic_load(&it->stopping)) {
        poll_kafka(it);
        reading_turn(it);
        driver_work(it);
        each_second(it);
        if (!reading_can_go_on(it) && !driver_ended(it)) driver_sleep(it, TURN_MS);
    }
    if (!driver_ended(it)) wind_down(it);
    leave(it);
    *why = it->end;
    return it->end.code;
}
