#include "client/publisher/inbox.h"

#include <stdio.h>
#include <time.h>

#include "storage/clock.h"

void inbox_init(inbox *it, uint32_t window, size_t window_bytes, bell *wakes) {
    *it = (inbox){.window = window, .window_bytes = window_bytes, .bell = wakes};
    pthread_mutex_init(&it->lock, NULL);
    pthread_cond_init(&it->room, NULL);
    pthread_cond_init(&it->quiet, NULL);
    TAILQ_INIT(&it->news.events);
}

void inbox_destroy(inbox *it) {
    if (it->news.endpoints) endpoints_free(it->news.endpoints, it->news.endpoint_count);
    pthread_cond_destroy(&it->room);
    pthread_cond_destroy(&it->quiet);
    pthread_mutex_destroy(&it->lock);
}

/* ---- waiting, waking; all with the lock ------------------------------------------------------ */

/* False when the time is over. */
static bool wait_until(inbox *it, pthread_cond_t *what, int64_t until_ms) {
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    return pthread_cond_clockwait(what, &it->lock, CLOCK_MONOTONIC, &until) == 0;
}

static void wake(inbox *it) {
    if (!it->asleep) return;
    it->asleep = false;
    bell_ring(it->bell);
}

static void leave(inbox *it) {
    if (--it->waiting == 0) pthread_cond_broadcast(&it->quiet);
}

static bool has_room(const inbox *it, size_t size) {
    if (it->in_flight == 0) return true;
    return it->in_flight < it->window && it->in_flight_bytes + size <= it->window_bytes;
}

static ingest_status wait_for_room(inbox *it, size_t size, int64_t until_ms) {
    bool in_time = true;
    it->waiting++;
    while (!it->closing && !has_room(it, size) && in_time)
        in_time = wait_until(it, &it->room, until_ms);
    leave(it);
    if (it->closing) return INGEST_CLOSED;
    return has_room(it, size) ? INGEST_OK : INGEST_WINDOW_FULL;
}

/* ---- callers' threads ------------------------------------------------------------------------ */

ingest_status inbox_put(inbox *it, delivery *event, int64_t until_ms, uint32_t timeout_ms) {
    const size_t size = delivery_size(event);
    pthread_mutex_lock(&it->lock);
    const ingest_status status = wait_for_room(it, size, until_ms);
    if (status == INGEST_OK) {
        event->ticket = ++it->taken;
        if (!event->deadline_ms) event->deadline_ms = clock_monotonic_ms() + timeout_ms;
        it->in_flight++;
        it->in_flight_bytes += size;
        TAILQ_INSERT_TAIL(&it->news.events, event, in_queue);
        wake(it);
    }
    pthread_mutex_unlock(&it->lock);
    return status;
}

bool inbox_flush(inbox *it, int64_t until_ms) {
    bool in_time = true;
    pthread_mutex_lock(&it->lock);
    const uint64_t last = it->taken;
    it->waiting++;
    while (it->settled < last && in_time)
        in_time = wait_until(it, &it->quiet, until_ms);
    const bool all = it->settled >= last;
    leave(it);
    pthread_mutex_unlock(&it->lock);
    return all;
}

void inbox_stats(inbox *it, ingest_publisher_stats *stats) {
    pthread_mutex_lock(&it->lock);
    *stats = (ingest_publisher_stats){
        .published = it->counts.published,
        .failed = it->counts.failed,
        .retried = it->counts.retried,
        .moved = it->counts.moved,
        .in_flight = it->in_flight,
        .replicas = it->counts.replicas,
        .replicas_ready = it->counts.replicas_ready,
    };
    pthread_mutex_unlock(&it->lock);
}

void inbox_close(inbox *it, int64_t until_ms) {
    pthread_mutex_lock(&it->lock);
    it->closing = true;
    pthread_cond_broadcast(&it->room);
    for (bool in_time = true; it->in_flight > 0 && in_time;)
        in_time = wait_until(it, &it->quiet, until_ms);
    it->news.stop = true;
    wake(it);
    pthread_mutex_unlock(&it->lock);
}

void inbox_wait_left(inbox *it) {
    pthread_mutex_lock(&it->lock);
    while (it->waiting > 0)
        pthread_cond_wait(&it->quiet, &it->lock);
    pthread_mutex_unlock(&it->lock);
}

/* ---- the resolver's thread ------------------------------------------------------------------- */

void inbox_put_endpoints(inbox *it, endpoint *all, size_t count) {
    pthread_mutex_lock(&it->lock);
    if (it->news.endpoints) endpoints_free(it->news.endpoints, it->news.endpoint_count);
    it->news.endpoints = all;
    it->news.endpoint_count = count;
    wake(it);
    pthread_mutex_unlock(&it->lock);
}

void inbox_put_trouble(inbox *it, const char *why) {
    pthread_mutex_lock(&it->lock);
    copy_text(it->news.no_address, sizeof it->news.no_address, bytes_of_string(why));
    wake(it);
    pthread_mutex_unlock(&it->lock);
}

/* ---- the publisher's thread ------------------------------------------------------------------ */

void inbox_take(inbox *it, inbox_news *out) {
    pthread_mutex_lock(&it->lock);
    *out = it->news;
    TAILQ_INIT(&out->events);
    TAILQ_CONCAT(&out->events, &it->news.events, in_queue);
    it->news.endpoints = NULL;
    it->news.no_address[0] = '\0';
    pthread_mutex_unlock(&it->lock);
}

void inbox_tell(inbox *it, const inbox_done *done) {
    pthread_mutex_lock(&it->lock);
    it->counts = done->counts;
    it->in_flight -= done->answered;
    it->in_flight_bytes -= done->answered_bytes;
    it->settled = done->settled;
    if (done->answered) {
        pthread_cond_broadcast(&it->room);
        pthread_cond_broadcast(&it->quiet);
    }
    pthread_mutex_unlock(&it->lock);
}

bool inbox_sleep(inbox *it) {
    const inbox_news *news = &it->news;
    pthread_mutex_lock(&it->lock);
    it->asleep =
        TAILQ_EMPTY(&news->events) && !news->endpoints && !news->no_address[0] && !news->stop;
    const bool may = it->asleep;
    pthread_mutex_unlock(&it->lock);
    return may;
}

void inbox_awake(inbox *it) {
    pthread_mutex_lock(&it->lock);
    it->asleep = false;
    pthread_mutex_unlock(&it->lock);
}
