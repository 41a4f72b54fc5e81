/*
 * A binary heap by sequence for each route: the position pops what it has passed. A dead letter is
 * reported before the position passes it, and its waiter may come in between; so the sequences
 * that died above the position are kept (a handful: the publisher buries one at a time).
 */
#include "server/ack_waiters.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct route_waiters {
    uint64_t position;
    ack_waiter **heap; /* owned array of borrowed waiters */
    size_t count, capacity;
    uint64_t *dead; /* owned; sequences above `position` */
    size_t dead_count, dead_capacity;
} route_waiters;

struct ack_waiters {
    event_store *store;
    pthread_mutex_t lock; /* over all below */
    bool stopped;
    route_waiters routes[STORE_ROUTES_MAX];
};

static void *grown(void *array, size_t *capacity, size_t item) {
    *capacity = *capacity ? *capacity * 2 : 64;
    void *larger = realloc(array, *capacity * item);
    if (!larger) {
        (void)fputs("ingestd: out of memory\n", stderr);
        abort();
    }
    return larger;
}

/* ---- the heap; the lock is held -------------------------------------------------- */

static void put(route_waiters *route, size_t index, ack_waiter *waiter) {
    route->heap[index] = waiter;
    waiter->place = index + 1;
}

static void sift_up(route_waiters *route, size_t index, ack_waiter *waiter) {
    while (index > 0) {
        const size_t parent = (index - 1) / 2;
        if (route->heap[parent]->sequence <= waiter->sequence) break;
        put(route, index, route->heap[parent]);
        index = parent;
    }
    put(route, index, waiter);
}

static void sift_down(route_waiters *route, size_t index, ack_waiter *waiter) {
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= route->count) break;
        if (child + 1 < route->count &&
            route->heap[child + 1]->sequence < route->heap[child]->sequence)
            child++;
        if (waiter->sequence <= route->heap[child]->sequence) break;
        put(route, index, route->heap[child]);
        index = child;
    }
    put(route, index, waiter);
}

static ack_waiter *take(route_waiters *route, size_t index) {
    ack_waiter *taken = route->heap[index];
    ack_waiter *last = route->heap[--route->count];
    taken->place = 0;
    if (taken == last) return taken;
    if (index > 0 && last->sequence < route->heap[(index - 1) / 2]->sequence)
        sift_up(route, index, last);
    else
        sift_down(route, index, last);
    return taken;
}

static bool died(const route_waiters *route, uint64_t sequence) {
    for (size_t i = 0; i < route->dead_count; i++)
        if (route->dead[i] == sequence) return true;
    return false;
}

/* ---- interface ------------------------------------------------------------------------- */

ack_waiters *ack_waiters_new(event_store *store) {
    ack_waiters *all = calloc(1, sizeof *all);
    if (!all) return NULL;
    all->store = store;
    pthread_mutex_init(&all->lock, NULL);
    return all;
}

void ack_waiters_free(ack_waiters *all) {
    if (!all) return;
    for (uint32_t i = 0; i < STORE_ROUTES_MAX; i++) {
        free(all->routes[i].heap);
        free(all->routes[i].dead);
    }
    pthread_mutex_destroy(&all->lock);
    free(all);
}

/* The event is at or below the position, or known dead: the store knows which. */
static void answer_settled(ack_waiters *all, ack_waiter *waiter) {
    dead_letter letter;
    const outcome found =
        store_dead_get(all->store, waiter->route, waiter->sequence, &letter, NULL);
    if (found == ST_OK) {
        waiter->done(waiter, ST_DEAD_LETTER, letter.reason);
        dead_letter_free(&letter);
    } else if (waiter->dead) { /* a purge came in between; a replay would have been seen */
        waiter->done(waiter, ST_DEAD_LETTER, "purged");
    } else {
        waiter->done(waiter, ST_OK, NULL);
    }
}

void ack_waiters_add(ack_waiters *all, ack_waiter *waiter) {
    route_waiters *route = &all->routes[waiter->route];
    pthread_mutex_lock(&all->lock);
    /* After a restart the position comes late, and would take a dead letter for published. */
    const bool settled =
        waiter->dead || waiter->sequence <= route->position || died(route, waiter->sequence);
    const bool stopped = all->stopped, cancelled = waiter->cancelled;
    if (!settled && !stopped && !cancelled) {
        if (route->count == route->capacity)
            route->heap = grown(route->heap, &route->capacity, sizeof(ack_waiter *));
        sift_up(route, route->count++, waiter);
    }
    pthread_mutex_unlock(&all->lock);

    if (settled)
        answer_settled(all, waiter);
    else if (stopped || cancelled)
        waiter->done(waiter, cancelled ? ST_TIMEOUT : ST_STOPPING, NULL);
}

void ack_waiters_cancel(ack_waiters *all, ack_waiter *waiter) {
    pthread_mutex_lock(&all->lock);
    const bool waits = waiter->place > 0;
    if (waits) (void)take(&all->routes[waiter->route], waiter->place - 1);
    waiter->cancelled = true;
    pthread_mutex_unlock(&all->lock);
    if (waits) waiter->done(waiter, ST_TIMEOUT, NULL);
}

static void answer_all(ack_waiter *list, outcome result, const char *reason) {
    while (list) {
        ack_waiter *next = list->next; /* done() may free it */
        list->done(list, result, reason);
        list = next;
    }
}

void ack_waiters_position(ack_waiters *all, uint32_t number, uint64_t sequence) {
    route_waiters *route = &all->routes[number];
    ack_waiter *passed = NULL, **end = &passed;
    pthread_mutex_lock(&all->lock);
    if (sequence > route->position) route->position = sequence;
    while (route->count > 0 && route->heap[0]->sequence <= sequence) {
        *end = take(route, 0);
        end = &(*end)->next;
    }
    *end = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < route->dead_count; i++)
        if (route->dead[i] > sequence) route->dead[kept++] = route->dead[i];
    route->dead_count = kept;
    pthread_mutex_unlock(&all->lock);
    answer_all(passed, ST_OK, NULL);
}

void ack_waiters_dead(ack_waiters *all, uint32_t number, uint64_t sequence, const char *reason) {
    route_waiters *route = &all->routes[number];
    ack_waiter *dead = NULL;
    pthread_mutex_lock(&all->lock);
    if (route->dead_count == route->dead_capacity)
        route->dead = grown(route->dead, &route->dead_capacity, sizeof *route->dead);
    route->dead[route->dead_count++] = sequence;
    /* A retried request may wait for the same event, so there can be several. */
    for (size_t i = 0; i < route->count;) {
        if (route->heap[i]->sequence != sequence) {
            i++;
            continue;
        }
        ack_waiter *found = take(route, i);
        found->next = dead;
        dead = found;
        i = 0;
    }
    pthread_mutex_unlock(&all->lock);
    answer_all(dead, ST_DEAD_LETTER, reason);
}

void ack_waiters_stop(ack_waiters *all) {
    ack_waiter *left = NULL;
    pthread_mutex_lock(&all->lock);
    all->stopped = true;
    for (uint32_t i = 0; i < STORE_ROUTES_MAX; i++) {
        route_waiters *route = &all->routes[i];
        while (route->count > 0) {
            ack_waiter *one = take(route, route->count - 1);
            one->next = left;
            left = one;
        }
    }
    pthread_mutex_unlock(&all->lock);
    answer_all(left, ST_STOPPING, NULL);
}
