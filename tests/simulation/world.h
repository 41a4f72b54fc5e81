/*
 * world: one simulated run: its random numbers, its clock, what happens when, and the processes in
 * it. Everything runs on one real thread, so a seed gives the same run again.
 *
 * A process is one publisher thread of the real code, run as a coroutine: pthread_create and its
 * kin, clock_gettime and getrandom are replaced here at link time (world_libc.c). Whatever blocks
 * in the simulated librdkafka and store ends in process_wait_until, which gives the turn away.
 *
 * A process that has been killed runs on to its end, so that its memory is freed; but nothing that
 * it does has any effect, and no wait takes time.
 */
#ifndef INGEST_SIMULATION_WORLD_H
#define INGEST_SIMULATION_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "storage/status.h"

#define MS ((int64_t)1000) /* the world counts microseconds */
#define SECOND (1000 * MS)
#define NEVER INT64_MAX

typedef struct process {
    char name[32];
    bool killed;
    int64_t paused_until; /* as by SIGSTOP: neither its thread nor librdkafka's run */
    /* the world's */
    ucontext_t context;
    void *stack;
    void *(*body)(void *);
    void *argument;
    bool started;
    bool finished;
    int64_t wake_at;
    struct process *next;
} process;

/* Begins a new run; what the last one held is free again. */
void world_begin(uint64_t seed, bool traced);
int64_t world_now(void);
/* Lets time pass, and everything happen that falls into it. Not to be called by a process. */
void world_run_until(int64_t until);
/* The first promise that was broken, "" while there is none. */
const char *world_violation(void);
void world_violate(const char *format, ...) PRINTF_LIKE(1, 2);

/* Zeroed memory, until the next run. */
void *world_hold(size_t size);

uint64_t draw(uint64_t bound);              /* 0 .. bound - 1 */
int64_t between(int64_t low, int64_t high); /* both included */
bool chance(unsigned in_a_thousand);

/* A line of the trace; costs nothing when the run is not traced. */
void trace(const char *format, ...) PRINTF_LIKE(1, 2);

/* Calls `what` later. With an owner: not when it has been killed, and not while it is paused. */
void later(int64_t delay_us, process *owner, void (*what)(void *), void *argument);

/* The next thread that the real code creates becomes this process. */
process *process_new(const char *name);
void process_kill(process *it);
void process_pause(process *it, int64_t duration_us);
/* The process whose turn it is; NULL outside. */
process *process_current(void);
/* Returns at `until`, or earlier after process_wake. At once when killed. */
void process_wait_until(int64_t until);
void process_wake(process *it);

/* Of the wall clock, from now on, for all. */
void world_jump_wall(int64_t by_us);

/* ---- for world_libc.c ---------------------------------------------------------------------- */

int64_t world_wall(void);
process *world_adopt(void *(*body)(void *), void *argument);
/* Lets time pass until the process has ended or `until`. */
void world_join(process *it, int64_t until);

#endif
