/* The scheduler: timers and processes, whichever is due first; ties in the order of their making.
 */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START_US (1000 * SECOND)
#define WALL_US ((int64_t)1700000000 * SECOND)
#define STACK_SIZE ((size_t)256 * 1024)
#define MEMORY_SIZE ((size_t)64 << 20)
#define TIMERS_MAX 65536
#define STEPS_MAX 3000000 /* in a run; more means that it goes round in circles */

typedef struct timer {
    int64_t at;
    uint64_t serial;
    process *owner;
    void (*what)(void *);
    void *argument;
} timer;

static struct {
    uint64_t random;
    int64_t now;
    int64_t wall;
    bool traced;
    uint64_t serial;
    uint64_t steps;
    timer timers[TIMERS_MAX]; /* a heap */
    size_t timer_count;
    process *processes;
    process *current;
    process *awaited; /* the next thread is its */
    ucontext_t scheduler;
    void *spare_stacks;
    char violation[512];
    char *memory;
    size_t memory_used;
} world;

/* ---- chance, time and memory ----------------------------------------------------------------- */

uint64_t draw(uint64_t bound) { /* splitmix64 */
    uint64_t x = world.random += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x ^ x >> 31) % bound;
}

int64_t between(int64_t low, int64_t high) {
    return low + (int64_t)draw((uint64_t)(high - low) + 1);
}

bool chance(unsigned in_a_thousand) { return draw(1000) < in_a_thousand; }

int64_t world_now(void) { return world.now; }
int64_t world_wall(void) { return world.now + world.wall; }
void world_jump_wall(int64_t by_us) { world.wall += by_us; }

void *world_hold(size_t size) {
    size = (size + 15) & ~(size_t)15;
    if (world.memory_used + size > MEMORY_SIZE) {
        fprintf(stderr, "a run takes more than %zu MiB\n", MEMORY_SIZE >> 20);
        abort();
    }
    void *taken = world.memory + world.memory_used;
    world.memory_used += size;
    return memset(taken, 0, size);
}

const char *world_violation(void) { return world.violation; }

void world_violate(const char *format, ...) {
    if (world.violation[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(world.violation, sizeof world.violation, format, arguments);
    va_end(arguments);
    trace("VIOLATION %s", world.violation);
}

void trace(const char *format, ...) {
    if (!world.traced) return;
    va_list arguments;
    printf("%12.3f ms  %-8s ", (double)(world.now - START_US) / 1000,
           world.current ? world.current->name : "-");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

/* ---- timers ---------------------------------------------------------------------------------- */

static bool sooner(const timer *a, const timer *b) {
    return a->at != b->at ? a->at < b->at : a->serial < b->serial;
}

static void swap_timers(size_t a, size_t b) {
    timer held = world.timers[a];
    world.timers[a] = world.timers[b];
    world.timers[b] = held;
}

static void push_timer(timer it) {
    if (world.timer_count == TIMERS_MAX) abort();
    size_t at = world.timer_count++;
    world.timers[at] = it;
    for (; at > 0 && sooner(&world.timers[at], &world.timers[(at - 1) / 2]); at = (at - 1) / 2)
        swap_timers(at, (at - 1) / 2);
}

static timer pop_timer(void) {
    timer first = world.timers[0];
    world.timers[0] = world.timers[--world.timer_count];
    for (size_t at = 0;;) {
        size_t child = 2 * at + 1;
        if (child >= world.timer_count) break;
        if (child + 1 < world.timer_count && sooner(&world.timers[child + 1], &world.timers[child]))
            child++;
        if (!sooner(&world.timers[child], &world.timers[at])) break;
        swap_timers(at, child);
        at = child;
    }
    return first;
}

void later(int64_t delay_us, process *owner, void (*what)(void *), void *argument) {
    push_timer((timer){world.now + delay_us, world.serial++, owner, what, argument});
}

static void run_timer(void) {
    timer due = pop_timer();
    if (due.owner && due.owner->killed) return;
    if (due.owner && due.owner->paused_until > due.at) {
        due.at = due.owner->paused_until;
        push_timer(due); /* keeps its serial, and so its place */
        return;
    }
    due.what(due.argument);
}

/* ---- processes --------------------------------------------------------------------------------
 */

process *process_new(const char *name) {
    process *it = world_hold(sizeof *it);
    snprintf(it->name, sizeof it->name, "%s", name);
    it->next = world.processes;
    world.processes = it;
    world.awaited = it;
    return it;
}

process *process_current(void) { return world.current; }

static void *take_stack(void) {
    void *stack = world.spare_stacks;
    if (!stack) return malloc(STACK_SIZE);
    world.spare_stacks = *(void **)stack;
    return stack;
}

static void leave_stack(void *stack) {
    *(void **)stack = world.spare_stacks;
    world.spare_stacks = stack;
}

static void run_body(void) {
    process *it = world.current;
    it->body(it->argument);
    it->finished = true;
    swapcontext(&it->context, &world.scheduler);
}

process *world_adopt(void *(*body)(void *), void *argument) {
    process *it = world.awaited;
    world.awaited = NULL;
    it->body = body;
    it->argument = argument;
    it->stack = take_stack();
    it->started = true;
    it->wake_at = world.now;
    getcontext(&it->context);
    it->context.uc_stack.ss_sp = it->stack;
    it->context.uc_stack.ss_size = STACK_SIZE;
    it->context.uc_link = NULL;
    makecontext(&it->context, run_body, 0);
    return it;
}

static void resume(process *it) {
    it->wake_at = NEVER;
    world.current = it;
    swapcontext(&world.scheduler, &it->context);
    world.current = NULL;
    if (!it->finished) return;
    leave_stack(it->stack);
    it->stack = NULL;
}

void process_wait_until(int64_t until) {
    process *it = world.current;
    if (it->killed) return;
    it->wake_at = until > world.now ? until : world.now;
    swapcontext(&it->context, &world.scheduler);
}

void process_wake(process *it) {
    if (it->wake_at > world.now) it->wake_at = world.now;
}

void process_pause(process *it, int64_t duration_us) {
    trace("%s is paused for %lld ms", it->name, (long long)(duration_us / MS));
    if (it->paused_until < world.now + duration_us) it->paused_until = world.now + duration_us;
}

void process_kill(process *it) {
    trace("%s is killed", it->name);
    it->killed = true;
    it->paused_until = 0;
    it->wake_at = world.now;
}

/* ---- the turn ---------------------------------------------------------------------------------
 */

static int64_t due_at(const process *it) {
    if (!it->started || it->finished) return NEVER;
    return it->wake_at > it->paused_until ? it->wake_at : it->paused_until;
}

static process *next_process(void) {
    process *next = NULL;
    for (process *each = world.processes; each; each = each->next)
        if (due_at(each) != NEVER && (!next || due_at(each) < due_at(next))) next = each;
    return next;
}

/* False when nothing is due up to then. */
static bool run_next(int64_t until) {
    process *next = next_process();
    int64_t at = next ? due_at(next) : NEVER;
    bool is_timer = world.timer_count > 0 && world.timers[0].at <= at;
    if (is_timer) at = world.timers[0].at;
    if (at > until || at == NEVER) return false;
    if (++world.steps > STEPS_MAX) {
        world_violate("goes round in circles");
        return false;
    }
    if (at > world.now) world.now = at;
    if (is_timer)
        run_timer();
    else
        resume(next);
    return true;
}

void world_run_until(int64_t until) {
    while (!world.violation[0] && run_next(until)) {
    }
    if (until > world.now) world.now = until;
}

void world_join(process *it, int64_t until) {
    while (!it->finished) {
        if (it->killed)
            resume(it); /* no time passes for it any more */
        else if (!run_next(until))
            break;
    }
    if (it->finished) {
        process **link = &world.processes;
        while (*link && *link != it)
            link = &(*link)->next;
        if (*link) *link = it->next;
    } else if (until > world.now) {
        world.now = until;
    }
}

void world_begin(uint64_t seed, bool traced) {
    world.random = seed;
    world.traced = traced;
    world.now = START_US;
    world.wall = WALL_US;
    world.serial = world.steps = 0;
    world.timer_count = 0;
    world.processes = world.current = world.awaited = NULL;
    world.violation[0] = '\0';
    world.memory_used = 0;
    if (!world.memory) world.memory = malloc(MEMORY_SIZE);
}
