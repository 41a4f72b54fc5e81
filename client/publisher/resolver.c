/*
 * The thread is detached and shares this struct with its owner; who leaves last frees it. News are
 * told with the lock held, so none comes after resolver_stop.
 */
#include "client/publisher/resolver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/clock.h"

enum {
    PERIOD_MS = 30000, /* when nobody asks */
    PAUSE_MS = 1000,   /* between two lookups at least */
};

typedef struct found {
    endpoint *all; /* owned; of one name, as last found */
    size_t count;
} found;

struct resolver {
    target names;
    found *found; /* owned; for each part; the thread's */
    resolver_news news;
    void *of;
    pthread_mutex_t lock; /* over all below */
    pthread_cond_t changed;
    bool asked, stopped, alone; /* alone: the other one of the two has left */
};

static void destroy(resolver *it) {
    for (size_t i = 0; i < it->names.count; i++)
        endpoints_free(it->found[i].all, it->found[i].count);
    free(it->found);
    target_free(&it->names);
    pthread_cond_destroy(&it->changed);
    pthread_mutex_destroy(&it->lock);
    free(it);
}

/* With the lock, which goes. */
static void leave(resolver *it) {
    const bool last = it->alone;
    it->alone = true;
    pthread_mutex_unlock(&it->lock);
    if (last) destroy(it);
}

/* ---- looking up ---------------------------------------------------------------------------- */

/* Of one family: the two addresses of a server with both would be taken for two servers. */
static int choose_family(const struct addrinfo *list) {
    for (const struct addrinfo *each = list; each; each = each->ai_next)
        if (each->ai_family == AF_INET) return AF_INET;
    return AF_INET6;
}

static endpoint make_endpoint(const struct addrinfo *info, const target_part *part) {
    char host[INET6_ADDRSTRLEN] = "", text[INET6_ADDRSTRLEN + 32];
    const bool six = info->ai_family == AF_INET6;
    const void *raw = six ? (const void *)&((struct sockaddr_in6 *)(void *)info->ai_addr)->sin6_addr
                          : (const void *)&((struct sockaddr_in *)(void *)info->ai_addr)->sin_addr;
    (void)inet_ntop(info->ai_family, raw, host, sizeof host);
    (void)snprintf(text, sizeof text, six ? "ipv6:[%s]:%s" : "ipv4:%s:%s", host, part->port);
    const endpoint shown = {.address = text, .authority = part->fixed.authority};
    return endpoint_copy(&shown);
}

/* Where one address is wanted: the one that we had, if it is still there, else the first. */
static void keep_one(found *fresh, const found *old) {
    size_t kept = 0;
    for (size_t i = 0; i < fresh->count; i++)
        if (old->count && strcmp(fresh->all[i].address, old->all[0].address) == 0) kept = i;
    for (size_t i = 0; i < fresh->count; i++)
        if (i != kept) endpoint_free(&fresh->all[i]);
    fresh->all[0] = fresh->all[kept];
    fresh->count = 1;
}

static void store_found(found *into, const struct addrinfo *list, const target_part *part) {
    const int family = choose_family(list);
    size_t room = 0;
    for (const struct addrinfo *each = list; each; each = each->ai_next)
        room++;
    found fresh = {.all = calloc(room, sizeof(endpoint))};
    if (!fresh.all) abort();
    for (const struct addrinfo *each = list; each; each = each->ai_next)
        if (each->ai_family == family) fresh.all[fresh.count++] = make_endpoint(each, part);
    if (!part->every && fresh.count) keep_one(&fresh, into);
    endpoints_free(into->all, into->count);
    *into = fresh;
}

/* A name that cannot be looked up keeps what it had. */
static void look_up(const target_part *part, found *into, char *why, size_t size) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    const int code = getaddrinfo(part->host, part->port, &hints, &list);
    if (code == 0)
        store_found(into, list, part);
    else
        (void)snprintf(why, size, "%s: %s", part->host, gai_strerror(code));
    if (list) freeaddrinfo(list);
}

static endpoint *gather(const resolver *it, size_t *count) {
    size_t room = it->names.count;
    for (size_t i = 0; i < it->names.count; i++)
        room += it->found[i].count;
    endpoint *all = calloc(room, sizeof *all);
    if (!all) abort();
    *count = 0;
    for (size_t i = 0; i < it->names.count; i++) {
        if (!it->names.parts[i].host) all[(*count)++] = endpoint_copy(&it->names.parts[i].fixed);
        for (size_t k = 0; k < it->found[i].count; k++)
            all[(*count)++] = endpoint_copy(&it->found[i].all[k]);
    }
    *count = endpoints_tidy(all, *count);
    return all;
}

/* ---- the thread ---------------------------------------------------------------------------- */

/* With the lock: until the next lookup is due. */
static void wait_for_next(resolver *it) {
    const int64_t start_ms = clock_monotonic_ms();
    for (;;) {
        const int64_t until_ms = start_ms + (it->asked ? PAUSE_MS : PERIOD_MS);
        if (it->stopped || clock_monotonic_ms() >= until_ms) break;
        const struct timespec until = {.tv_sec = until_ms / 1000,
                                       .tv_nsec = until_ms % 1000 * 1000000};
        (void)pthread_cond_clockwait(&it->changed, &it->lock, CLOCK_MONOTONIC, &until);
    }
    it->asked = false;
}

static void *run(void *of) {
    resolver *it = of;
    pthread_mutex_lock(&it->lock);
    while (!it->stopped) {
        pthread_mutex_unlock(&it->lock);
        char why[256] = "";
        size_t count = 0;
        for (size_t i = 0; i < it->names.count; i++)
            if (it->names.parts[i].host)
                look_up(&it->names.parts[i], &it->found[i], why, sizeof why);
        endpoint *all = gather(it, &count);
        pthread_mutex_lock(&it->lock);
        if (!it->stopped && why[0]) it->news(it->of, NULL, 0, why);
        if (!it->stopped && count)
            it->news(it->of, all, count, NULL);
        else
            endpoints_free(all, count);
        wait_for_next(it);
    }
    leave(it);
    return NULL;
}

resolver *resolver_start(target *names, resolver_news news, void *of) {
    resolver *it = calloc(1, sizeof *it);
    if (!it) abort();
    *it = (resolver){.names = *names, .news = news, .of = of, .alone = !names->lookup};
    *names = (target){0};
    it->found = calloc(it->names.count, sizeof *it->found);
    if (!it->found) abort();
    pthread_mutex_init(&it->lock, NULL);
    pthread_cond_init(&it->changed, NULL);
    if (!it->names.lookup) {
        size_t count = 0;
        endpoint *all = gather(it, &count);
        news(of, all, count, NULL);
        return it;
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, it) != 0) abort();
    pthread_detach(thread);
    return it;
}

void resolver_ask(resolver *it) {
    pthread_mutex_lock(&it->lock);
    it->asked = true;
    pthread_cond_signal(&it->changed);
    pthread_mutex_unlock(&it->lock);
}

void resolver_stop(resolver *it) {
    pthread_mutex_lock(&it->lock);
    it->stopped = true;
    pthread_cond_signal(&it->changed);
    leave(it);
}
