/*
 * What the real code asks of the C library, answered by the world. These come before libc's at link
 * time. Anything else of pthreads works as it is: there is one real thread, and no lock is held
 * over a wait.
 */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int64_t us = clock == CLOCK_REALTIME ? world_wall() : world_now();
    now->tv_sec = us / SECOND;
    now->tv_nsec = us % SECOND * 1000;
    return 0;
}

ssize_t getrandom(void *out, size_t size, unsigned flags) {
    (void)flags;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)draw(256);
    return (ssize_t)size;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                   void *argument) {
    (void)attributes;
    process *it = world_adopt(body, argument);
    memcpy(thread, &it, sizeof it);
    return 0;
}

static process *process_of(pthread_t thread) {
    process *it;
    memcpy(&it, &thread, sizeof it);
    return it;
}

int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *until) {
    process *it = process_of(thread);
    (void)result;
    world_join(it, world_now() + (until->tv_sec * SECOND + until->tv_nsec / 1000 - world_wall()));
    return it->finished ? 0 : ETIMEDOUT;
}

int pthread_join(pthread_t thread, void **result) {
    (void)result;
    world_join(process_of(thread), NEVER);
    return 0;
}

int pthread_setname_np(pthread_t thread, const char *name) {
    (void)thread, (void)name;
    return 0;
}
