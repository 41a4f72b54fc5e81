/*
 * C11's threads, mutexes and conditions by way of pthreads. Linked into the programs of the TSan
 * build only: librdkafka 2.0.2 uses the C11 functions, which TSan (gcc 12, clang 14) does not
 * intercept, so that its threads would be unknown to TSan and crash in it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

typedef struct start {
    thrd_start_t run;
    void *arg;
} start;

static void *run_started(void *memory) {
    const start it = *(start *)memory;
    free(memory);
    return (void *)(intptr_t)it.run(it.arg);
}

int thrd_create(thrd_t *thread, thrd_start_t run, void *arg) {
    start *it = malloc(sizeof *it);
    if (!it) return thrd_nomem;
    *it = (start){.run = run, .arg = arg};
    if (pthread_create(thread, NULL, run_started, it) == 0) return thrd_success;
    free(it);
    return thrd_error;
}

int thrd_join(thrd_t thread, int *result) {
    void *value;
    if (pthread_join(thread, &value) != 0) return thrd_error;
    if (result) *result = (int)(intptr_t)value;
    return thrd_success;
}

/* glibc's mtx_t and cnd_t are its pthread types in another skin. */
static pthread_mutex_t *mutex(mtx_t *it) { return (pthread_mutex_t *)it; }
static pthread_cond_t *condition(cnd_t *it) { return (pthread_cond_t *)it; }
static int outcome_of(int error) { return error == 0 ? thrd_success : thrd_error; }

int mtx_init(mtx_t *it, int type) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (type & mtx_recursive) pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    const int error = pthread_mutex_init(mutex(it), &attributes);
    pthread_mutexattr_destroy(&attributes);
    return outcome_of(error);
}
int mtx_lock(mtx_t *it) { return outcome_of(pthread_mutex_lock(mutex(it))); }
int mtx_unlock(mtx_t *it) { return outcome_of(pthread_mutex_unlock(mutex(it))); }
void mtx_destroy(mtx_t *it) { pthread_mutex_destroy(mutex(it)); }

int cnd_init(cnd_t *it) { return outcome_of(pthread_cond_init(condition(it), NULL)); }
int cnd_signal(cnd_t *it) { return outcome_of(pthread_cond_signal(condition(it))); }
int cnd_broadcast(cnd_t *it) { return outcome_of(pthread_cond_broadcast(condition(it))); }
int cnd_wait(cnd_t *it, mtx_t *lock) {
    return outcome_of(pthread_cond_wait(condition(it), mutex(lock)));
}
int cnd_timedwait(cnd_t *it, mtx_t *lock, const struct timespec *until) {
    const int error = pthread_cond_timedwait(condition(it), mutex(lock), until);
    return error == ETIMEDOUT ? thrd_timedout : outcome_of(error);
}
void cnd_destroy(cnd_t *it) { pthread_cond_destroy(condition(it)); }
