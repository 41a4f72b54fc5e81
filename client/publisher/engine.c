/*
 * An event's way: admit -> its lane -> route -> a replica's queue -> sent -> answered, or paused
 * and routed again. Each step below changes one event's state; finish() is the only way out.
 */
#include "client/publisher/engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/publisher/lanes.h"
#include "client/publisher/route.h"
#include "storage/clock.h"
#include "storage/status.h"

typedef struct member {
    replica *replica;
    bool listed; /* among the addresses of the target */
} member;

struct engine {
    engine_options options;
    replica_settings *settings;
    lanes lanes;
    delivery_queue taken;     /* all, in the order taken */
    delivery_queue deadlines; /* all, the earliest first */
    delivery_queue paused;    /* D_PAUSED, the earliest first */
    delivery_queue homeless;  /* D_HOMELESS */
    member *members;          /* owned; stable but for removal of those that left */
    size_t member_count;
    char no_address[256]; /* why the target has none; "": no trouble */
    bool closing;         /* nothing is sent any more */
    bool reroute;         /* a replica came or went: what is queued may belong elsewhere */
    engine_counts counts;
};

static void log_line(engine *it, const char *format, ...) PRINTF_LIKE(2, 3);
static void log_line(engine *it, const char *format, ...) {
    char line[768];
    va_list args;
    if (!it->options.log) return;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    it->options.log(it->options.of, line);
}

/* ---- routing ------------------------------------------------------------------------------- */

static replica *choose(engine *it, const delivery *event) {
    enum { FEW = 16 };
    route_facts few[FEW], *facts = few;
    const int64_t now_ms = clock_monotonic_ms();
    int bound = ROUTE_NOWHERE;
    if (it->member_count > FEW && !(facts = calloc(it->member_count, sizeof *facts))) abort();
    for (size_t i = 0; i < it->member_count; i++) {
        const replica *one = it->members[i].replica;
        facts[i] = (route_facts){.hash = replica_hash(one),
                                 .up = replica_up(one),
                                 .listed = it->members[i].listed,
                                 .gone = replica_gone(one, now_ms)};
        if (one == event->bound) bound = (int)i;
    }
    const int best = route_choose(facts, it->member_count, event->key_hash, bound);
    if (facts != few) free(facts);
    return best == ROUTE_NOWHERE ? NULL : it->members[best].replica;
}

static void dispatch(engine *it, delivery *event) {
    replica *to = choose(it, event);
    if (!to) {
        event->state = D_HOMELESS;
        TAILQ_INSERT_TAIL(&it->homeless, event, in_queue);
        return;
    }
    if (event->doubt && to != event->bound && !event->moved) {
        event->moved = true;
        it->counts.moved++;
    }
    replica_queue(to, event);
}

/* Out of whatever queue it stands in. */
static void withdraw(engine *it, delivery *event) {
    switch (event->state) {
    case D_HOMELESS:
        TAILQ_REMOVE(&it->homeless, event, in_queue);
        break;
    case D_PAUSED:
        TAILQ_REMOVE(&it->paused, event, in_queue);
        break;
    case D_QUEUED:
    case D_SENT:
        replica_take(event->at, event);
        break;
    case D_LINED_UP:
        break;
    }
}

/* Events at a replica that is no longer their own, and those that had none. */
static void route_again(engine *it) {
    delivery_queue all;
    it->reroute = false;
    TAILQ_INIT(&all);
    TAILQ_CONCAT(&all, &it->homeless, in_queue);
    for (size_t i = 0; i < it->member_count; i++) {
        replica *at = it->members[i].replica;
        for (delivery *event; !replica_up(at) && (event = replica_queued(at));) {
            replica_take(at, event);
            TAILQ_INSERT_TAIL(&all, event, in_queue);
        }
    }
    for (delivery *event; (event = TAILQ_FIRST(&all));) {
        TAILQ_REMOVE(&all, event, in_queue);
        dispatch(it, event);
    }
}

/* ---- the end of an event ------------------------------------------------------------------- */

/* `event` has left its replica. Fills what all results have, answers, and lets the next of its key
 * go. */
static void finish(engine *it, delivery *event, ingest_result *result) {
    result->attempts = event->attempts;
    result->moved = event->moved;
    if (result->status == INGEST_OK)
        it->counts.published++;
    else
        it->counts.failed++;
    copy_text(result->id, sizeof result->id, bytes_of_string(event->id));
    TAILQ_REMOVE(&it->taken, event, in_taken);
    TAILQ_REMOVE(&it->deadlines, event, in_deadline);
    delivery *next = lanes_remove(&it->lanes, event);
    it->options.on_result(it->options.of, result, event->callback, event->arg,
                          delivery_size(event));
    delivery_free(event);
    if (next && !it->closing) dispatch(it, next);
}

static void fail_event(engine *it, delivery *event, ingest_status status, bool maybe_stored,
                       bool retry, const char *reason) {
    ingest_result result = {.status = status, .maybe_stored = maybe_stored, .retry = retry};
    copy_text(result.reason, sizeof result.reason, bytes_of_string(reason));
    finish(it, event, &result);
}

static void time_out(engine *it, delivery *event, const char *what) {
    static const char *const WHERE[] = {
        [D_LINED_UP] = "an earlier event of its key was not answered",
        [D_HOMELESS] = "no server was found",
        [D_QUEUED] = "it waits for its server",
        [D_SENT] = "it was sent and the server did not answer",
        [D_PAUSED] = "it was to be sent again",
    };
    char reason[1024]; /* more than a result holds: it is cut there */
    const char *trouble = event->last_trouble ? event->last_trouble : "";
    if (event->state == D_HOMELESS) trouble = it->no_address;
    if (event->state == D_QUEUED) trouble = replica_trouble(event->at);
    (void)snprintf(reason, sizeof reason, "%s (timeout_ms %u): %s%s%s", what,
                   it->options.timeout_ms, WHERE[event->state], *trouble ? "; " : "", trouble);
    const bool maybe = event->doubt || event->state == D_SENT;
    fail_event(it, event, INGEST_TIMEOUT, maybe, true, reason);
}

/* Sends it again after a while, or ends it when its time does not reach. */
static void pause_event(engine *it, delivery *event, uint32_t told_ms) {
    const int64_t now_ms = clock_monotonic_ms();
    event->state = D_PAUSED;
    event->resume_ms = now_ms + backoff_pause_ms(&it->settings->backoff, event->attempts, told_ms);
    if (event->resume_ms >= event->deadline_ms) {
        time_out(it, event, "no time left for another attempt");
        return;
    }
    it->counts.retried++;
    paused_insert(&it->paused, event);
}

static void refused(engine *it, delivery *event, const refusal *why, const verdict *final) {
    const bool maybe = event->doubt || final->stored != STORED_NO;
    fail_event(it, event, final->status, maybe, false, why->message);
}

/* ---- from the replicas --------------------------------------------------------------------- */

static void in_doubt(delivery *event, replica *at) {
    event->doubt = true;
    event->bound = at;
}

static void on_refusal(engine *it, replica *at, delivery *event, const refusal *why) {
    const verdict final = retry_judge(why);
    if (!final.again) {
        refused(it, event, why, &final);
        return;
    }
    if (final.stored != STORED_NO) in_doubt(event, at);
    delivery_trouble(event, why->message);
    pause_event(it, event, why->retry_ms);
}

static void on_answer(void *of, replica *at, delivery *event,
                      const Ingest__V1__PublishResult *answer) {
    engine *it = of;
    refusal why;
    if (answer->outcome_case == INGEST__V1__PUBLISH_RESULT__OUTCOME_RESPONSE) {
        const Ingest__V1__PublishResponse *response = answer->response;
        ingest_result result = {
            .status = INGEST_OK, .duplicate = response->duplicate, .sequence = response->sequence};
        copy_text(result.route, sizeof result.route, bytes_of_string(response->route));
        copy_text(result.store, sizeof result.store, bytes_of_string(response->store));
        finish(it, event, &result);
        return;
    }
    if (answer->outcome_case == INGEST__V1__PUBLISH_RESULT__OUTCOME_ERROR)
        refusal_from_status(answer->error, &why);
    else
        refusal_of(REFUSAL_INTERNAL, "the server's answer is empty", &why);
    on_refusal(it, at, event, &why);
}

static void on_unanswered(void *of, replica *at, delivery *event, const refusal *why) {
    engine *it = of;
    in_doubt(event, at);
    delivery_trouble(event, why->message);
    it->counts.retried++;
    dispatch(it, event);
}

static void on_refused(void *of, replica *at, delivery *event, const refusal *why, bool sent) {
    verdict final = retry_judge(why);
    (void)at;
    if (final.again) final = (verdict){.status = INGEST_INVALID}; /* too large for the server */
    if (sent) final.stored = STORED_MAYBE;
    refused(of, event, why, &final);
}

static void on_change(void *of, replica *at, bool news) {
    engine *it = of;
    it->reroute = true;
    if (news)
        log_line(it, "%s: %s", replica_address(at),
                 replica_up(at) ? "takes events" : replica_trouble(at));
    if (!replica_up(at)) it->options.on_lost(it->options.of);
}

/* ---- the target's addresses ---------------------------------------------------------------- */

static member *find_member(engine *it, const char *address) {
    for (size_t i = 0; i < it->member_count; i++)
        if (strcmp(replica_address(it->members[i].replica), address) == 0) return &it->members[i];
    return NULL;
}

void engine_no_addresses(engine *it, const char *why) {
    if (strcmp(it->no_address, why) == 0) return;
    copy_text(it->no_address, sizeof it->no_address, bytes_of_string(why));
    log_line(it, "%s", it->no_address);
}

void engine_set_endpoints(engine *it, const endpoint *all, size_t count) {
    for (size_t i = 0; i < it->member_count; i++)
        it->members[i].listed = false;
    for (size_t i = 0; i < count; i++) {
        member *found = find_member(it, all[i].address);
        if (!found) {
            it->members = realloc(it->members, (it->member_count + 1) * sizeof *it->members);
            if (!it->members) abort();
            found = &it->members[it->member_count++];
            found->replica = replica_new(&all[i], it->settings, clock_monotonic_ms());
            log_line(it, "%s is a replica", all[i].address);
        }
        found->listed = true;
    }
    it->reroute = true;
}

/* Whether an event's only hope to be not stored twice is this one. */
static bool awaited(const engine *it, const replica *one) {
    const delivery *event;
    TAILQ_FOREACH(event, &it->taken, in_taken)
    if (event->bound == one || event->at == one) return true;
    return false;
}

/* One that left the target's addresses and is down is forgotten, once no event waits for it. */
static void forget_members(engine *it) {
    const int64_t now_ms = clock_monotonic_ms();
    for (size_t i = 0; i < it->member_count;) {
        replica *one = it->members[i].replica;
        const bool left = !it->members[i].listed && !replica_up(one);
        if (!left || !replica_idle(one) || (!replica_gone(one, now_ms) && awaited(it, one))) {
            i++;
            continue;
        }
        log_line(it, "%s is no replica any more", replica_address(one));
        delivery *event;
        TAILQ_FOREACH(event, &it->taken, in_taken) {
            if (event->bound == one) event->bound = NULL;
            if (event->at == one) event->at = NULL;
        }
        replica_free(one);
        it->members[i] = it->members[--it->member_count];
    }
}

/* ---- running ------------------------------------------------------------------------------- */

void engine_admit(engine *it, delivery *event) {
    event->key_hash = route_hash(bytes_of_string(event->key));
    event->state = D_LINED_UP;
    TAILQ_INSERT_TAIL(&it->taken, event, in_taken);
    deadlines_insert(&it->deadlines, event);
    if (lanes_add(&it->lanes, event)) dispatch(it, event);
}

static void run_deadlines(engine *it, int64_t now_ms) {
    for (delivery *event; (event = TAILQ_FIRST(&it->deadlines)) && event->deadline_ms <= now_ms;) {
        if (event->state == D_SENT) replica_overdue(event->at, event, now_ms);
        withdraw(it, event);
        time_out(it, event, "not answered in time");
    }
}

static void run_paused(engine *it, int64_t now_ms) {
    for (delivery *event; (event = TAILQ_FIRST(&it->paused)) && event->resume_ms <= now_ms;) {
        TAILQ_REMOVE(&it->paused, event, in_queue);
        dispatch(it, event);
    }
}

void engine_run(engine *it) {
    const int64_t now_ms = clock_monotonic_ms();
    run_deadlines(it, now_ms);
    run_paused(it, now_ms);
    for (size_t i = 0; i < it->member_count; i++)
        replica_run(it->members[i].replica, now_ms);
    if (!it->reroute) return;
    route_again(it);
    forget_members(it);
}

int64_t engine_due_ms(const engine *it) {
    const delivery *first = TAILQ_FIRST(&it->deadlines), *paused = TAILQ_FIRST(&it->paused);
    int64_t due_ms = it->reroute ? 0 : INT64_MAX;
    if (first && first->deadline_ms < due_ms) due_ms = first->deadline_ms;
    if (paused && paused->resume_ms < due_ms) due_ms = paused->resume_ms;
    for (size_t i = 0; i < it->member_count; i++) {
        const int64_t replica_ms = replica_due_ms(it->members[i].replica);
        if (replica_ms < due_ms) due_ms = replica_ms;
    }
    return due_ms;
}

uint64_t engine_oldest(const engine *it) {
    const delivery *first = TAILQ_FIRST(&it->taken);
    return first ? first->ticket : UINT64_MAX;
}

engine_counts engine_count(const engine *it) {
    engine_counts counts = it->counts;
    counts.replicas = (uint32_t)it->member_count;
    for (size_t i = 0; i < it->member_count; i++)
        counts.replicas_ready += replica_up(it->members[i].replica);
    return counts;
}

engine *engine_new(const engine_options *options, replica_settings *settings) {
    engine *it = calloc(1, sizeof *it);
    if (!it) abort();
    it->options = *options;
    it->settings = settings;
    settings->owner = (replica_owner){it, on_answer, on_unanswered, on_refused, on_change};
    lanes_init(&it->lanes, options->window);
    TAILQ_INIT(&it->taken);
    TAILQ_INIT(&it->deadlines);
    TAILQ_INIT(&it->paused);
    TAILQ_INIT(&it->homeless);
    return it;
}

void engine_close(engine *it) {
    it->closing = true;
    for (delivery *event; (event = TAILQ_FIRST(&it->taken));) {
        const bool maybe = event->doubt || event->state == D_SENT;
        withdraw(it, event);
        fail_event(it, event, INGEST_CLOSED, maybe, true,
                   "the publisher was closed before the event was answered");
    }
    for (size_t i = 0; i < it->member_count; i++)
        replica_free(it->members[i].replica);
    it->member_count = 0;
}

void engine_free(engine *it) {
    lanes_free(&it->lanes);
    free(it->members);
    free(it);
}
