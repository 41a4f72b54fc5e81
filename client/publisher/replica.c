/*
 * Each attempt to connect is a channel of its own, so that its pauses are ours alone and what is
 * sent again goes over another connection. The health watch comes first: its first answer says that
 * there is a server, and only then the stream of events is opened.
 *
 * What is on the stream stands in a ring of slots, since answers come in the order sent. A slot
 * whose event was taken back stays empty until its answer comes.
 */
#include "client/publisher/replica.h"

#include <grpc/grpc_security.h>
#include <stdlib.h>

#include "client/publisher/route.h"
#include "client/publisher/stream.h"
#include "grpc/health/v1/health.pb-c.h"
#include "server/arena.h"
#include "storage/clock.h"

#define SERVICE "ingest.v1.IngestService"
#define UNWELL "the server says that it takes no events"
#define WATCH_PATH "/grpc.health.v1.Health/Watch"
#define PUBLISH_PATH "/" SERVICE "/PublishStream"

enum {
    CONNECT_MS = 5000,
    STEADY_MS = 10000,           /* a connection that lasted so long was a good one */
    OVERDUE_MS = 10000,          /* a stream that leaves an event so long beyond its time is dead */
    KEEPALIVE_TIME_MS = 12000,   /* servers take a ping every 10 s */
    KEEPALIVE_TIMEOUT_MS = 5000, /* no answer to one: the connection is lost */
};

struct replica {
    replica_settings *settings;
    endpoint at; /* owned */
    uint64_t hash;
    replica_state state;
    int64_t due_ms;    /* RS_PAUSED, RS_CONNECTING: until when */
    int64_t up_ms;     /* RS_SERVING since */
    int64_t owes_ms;   /* answers are due and none came since; 0: none is due */
    int64_t down_ms;   /* of no use since; not in RS_SERVING */
    bool told_gone;    /* the owner knows that it is gone */
    uint32_t failures; /* in a row */
    char trouble[256]; /* why it is not RS_SERVING; "": it is, or was not tried yet */
    grpc_channel *channel;
    stream *watch;
    bool asked; /* the watch's one request is out */
    stream *events;
    bool ready; /* the stream can take a message */
    delivery_queue queue;
    delivery **slots;     /* ring of settings->window */
    uint64_t first, next; /* of the unanswered */
    bool has_prepared;    /* the next message has its slot already, */
    grpc_slice prepared;  /*   as the one before it was announced to be followed */
};

static void step(replica *it, replica_event event, const refusal *why);

/* ---- sending ------------------------------------------------------------------------------- */

static bool may_send(const replica *it) {
    return it->state == RS_SERVING && it->ready && it->next - it->first < it->settings->window;
}

/* Gives the first of the queue its slot; from here on it counts as sent. */
static bool prepare(replica *it, grpc_slice *message) {
    delivery *event = TAILQ_FIRST(&it->queue);
    if (!event || it->next - it->first >= it->settings->window) return false;
    TAILQ_REMOVE(&it->queue, event, in_queue);
    event->state = D_SENT;
    event->slot = it->next++;
    event->sent_ms = clock_monotonic_ms();
    if (!it->owes_ms) it->owes_ms = event->sent_ms;
    event->attempts++;
    it->slots[event->slot % it->settings->window] = event;
    *message = grpc_slice_ref(event->request);
    return true;
}

/* The core may hold back a message that is announced to be followed, so the follower is fixed. */
static void send_next(replica *it) {
    grpc_slice message = it->prepared;
    if (!it->has_prepared && (!may_send(it) || !prepare(it, &message))) return;
    it->has_prepared = prepare(it, &it->prepared);
    it->ready = false;
    stream_send(it->events, message, it->has_prepared, false);
    grpc_slice_unref(message);
}

void replica_queue(replica *it, delivery *event) {
    event->state = D_QUEUED;
    event->at = it;
    TAILQ_INSERT_TAIL(&it->queue, event, in_queue);
    if (may_send(it)) send_next(it);
}

void replica_take(replica *it, delivery *event) {
    if (event->state == D_QUEUED) TAILQ_REMOVE(&it->queue, event, in_queue);
    if (event->state == D_SENT) it->slots[event->slot % it->settings->window] = NULL;
}

delivery *replica_queued(const replica *it) { return TAILQ_FIRST(&it->queue); }

bool replica_idle(const replica *it) {
    for (uint64_t i = it->first; i < it->next; i++)
        if (it->slots[i % it->settings->window]) return false;
    return TAILQ_EMPTY(&it->queue);
}

/* ---- the stream of events ------------------------------------------------------------------ */

static void break_off(replica *it, const char *what) {
    refusal why;
    refusal_of(REFUSAL_INTERNAL, what, &why);
    step(it, RE_LOST, &why);
}

static void on_stream_ready(void *of) {
    replica *it = of;
    it->ready = true;
    if (it->has_prepared || may_send(it)) send_next(it);
}

/* Takes the results off the slots. False: there are more than events. */
static bool take_results(replica *it, const Ingest__V1__PublishStreamResponse *message) {
    const replica_owner *owner = &it->settings->owner;
    for (size_t i = 0; i < message->n_results; i++) {
        if (it->first == it->next) return false;
        delivery **slot = &it->slots[it->first++ % it->settings->window];
        delivery *event = *slot;
        *slot = NULL;
        if (event) owner->on_answer(owner->of, it, event, message->results[i]);
    }
    if (it->first == it->next) it->owes_ms = 0;
    return true;
}

static void on_stream_message(void *of, bytes wire) {
    replica *it = of;
    char block[4096];
    arena memory;
    arena_init(&memory, block, sizeof block);
    const Ingest__V1__PublishStreamResponse *message =
        ingest__v1__publish_stream_response__unpack(&memory.allocator, wire.len, wire.data);
    if (message && message->n_results) {
        it->owes_ms = clock_monotonic_ms();
        it->failures = 0;
    }
    if (!message)
        break_off(it, "the server's answer cannot be read");
    else if (!take_results(it, message))
        break_off(it, "the server answered more events than it was sent");
    else if (may_send(it))
        send_next(it);
    arena_free(&memory);
}

static void on_stream_end(void *of, const refusal *why) {
    replica *it = of;
    it->events = NULL;
    step(it, RE_LOST, why);
}

static const stream_events PUBLISH_EVENTS = {on_stream_ready, on_stream_message, on_stream_end};

static void open_events(replica *it) {
    it->ready = false;
    it->events = stream_open(it->channel, it->settings->queue, PUBLISH_PATH,
                             it->settings->authorization, &PUBLISH_EVENTS, it, &it->settings->live);
}

/* ---- the health watch ---------------------------------------------------------------------- */

static void on_watch_ready(void *of) {
    replica *it = of;
    if (it->asked) return;
    it->asked = true;
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = SERVICE;
    grpc_slice message =
        grpc_slice_malloc(grpc__health__v1__health_check_request__get_packed_size(&request));
    (void)grpc__health__v1__health_check_request__pack(&request, GRPC_SLICE_START_PTR(message));
    stream_send(it->watch, message, false, true);
    grpc_slice_unref(message);
}

static void on_watch_message(void *of, bytes wire) {
    Grpc__Health__V1__HealthCheckResponse *answer =
        grpc__health__v1__health_check_response__unpack(NULL, wire.len, wire.data);
    const bool unwell =
        answer &&
        answer->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    if (answer) grpc__health__v1__health_check_response__free_unpacked(answer, NULL);
    step(of, unwell ? RE_UNWELL : RE_WELL, NULL);
}

/* A server that lets nobody watch is taken to be well: the stream of events will tell. */
static void on_watch_end(void *of, const refusal *why) {
    replica *it = of;
    it->watch = NULL;
    const bool lost = why->code == REFUSAL_UNAVAILABLE || why->code == REFUSAL_CANCELLED;
    step(it, lost ? RE_LOST : RE_WELL, why);
}

static const stream_events WATCH_EVENTS = {on_watch_ready, on_watch_message, on_watch_end};

/* ---- the connection ------------------------------------------------------------------------ */

static grpc_arg int_arg(const char *key, int value) {
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static void connect_to(replica *it) {
    const replica_settings *settings = it->settings;
    grpc_arg args[] = {
        int_arg(GRPC_ARG_ENABLE_RETRIES, 0),
        int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_TIME_MS),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        {.type = GRPC_ARG_STRING,
         .key = (char *)GRPC_ARG_DEFAULT_AUTHORITY,
         .value.string = it->at.authority},
    };
    const size_t count = sizeof args / sizeof *args - (it->at.authority ? 0 : 1);
    const grpc_channel_args all = {.num_args = count, .args = args};
    it->channel = grpc_channel_create(it->at.address, settings->credentials, &all);
    it->asked = false;
    it->watch = stream_open(it->channel, settings->queue, WATCH_PATH, settings->authorization,
                            &WATCH_EVENTS, it, &it->settings->live);
}

static void disconnect(replica *it) {
    if (it->watch) stream_drop(it->watch);
    if (it->events) stream_drop(it->events);
    if (it->channel) grpc_channel_destroy(it->channel);
    if (it->has_prepared) grpc_slice_unref(it->prepared);
    it->watch = it->events = NULL;
    it->channel = NULL;
    it->ready = it->has_prepared = false;
}

/* What the C core says of a message that the server's limits.max_message_bytes does not let in: the
 * largest size it takes, or SIZE_MAX. Such an event would break every stream that it is sent over.
 */
static size_t largest_taken(const refusal *why) {
    static const char BEFORE[] = " larger than max (", BETWEEN[] = " vs. "; /* "(5000 vs. 4096)" */
    const char *found = strstr(why->message, BEFORE);
    const char *text = found ? strstr(found, BETWEEN) : NULL;
    const size_t limit = text ? strtoul(text + sizeof BETWEEN - 1, NULL, 10) : 0;
    return limit ? limit : SIZE_MAX;
}

/* Hands all that was sent back to the owner, in order. */
static void give_back(replica *it, const refusal *why, bool refused) {
    const replica_owner *owner = &it->settings->owner;
    const size_t largest = largest_taken(why);
    while (it->first < it->next) {
        delivery **slot = &it->slots[it->first++ % it->settings->window];
        delivery *event = *slot;
        *slot = NULL;
        if (!event) continue;
        if (refused || delivery_size(event) > largest)
            owner->on_refused(owner->of, it, event, why, delivery_size(event) <= largest);
        else
            owner->on_unanswered(owner->of, it, event, why);
    }
    for (delivery *event; refused && (event = TAILQ_FIRST(&it->queue));) {
        TAILQ_REMOVE(&it->queue, event, in_queue);
        owner->on_refused(owner->of, it, event, why, false);
    }
}

/* ---- states -------------------------------------------------------------------------------- */

/* Of no use since it owes an answer. It still owes that when the same events go out again: a server
 * that goes down at each of them is down all the time. */
static void note_down(replica *it) {
    const int64_t now_ms = clock_monotonic_ms();
    if (it->state != RS_SERVING) return;
    it->down_ms = it->owes_ms && !it->settings->until_published ? it->owes_ms : now_ms;
    if (now_ms - it->up_ms >= STEADY_MS) it->failures = 0;
}

static void pause_after(replica *it, const refusal *why) {
    const verdict final = retry_judge(why);
    const bool refused = final.status == INGEST_DENIED || final.status == INGEST_UNSUPPORTED;
    it->failures++;
    it->due_ms = clock_monotonic_ms() +
                 backoff_pause_ms(&it->settings->backoff, it->failures, why->retry_ms);
    disconnect(it);
    give_back(it, why, refused);
}

static void tell(replica *it, const char *trouble) {
    char before[sizeof it->trouble];
    memcpy(before, it->trouble, sizeof before);
    copy_text(it->trouble, sizeof it->trouble, bytes_of_string(trouble));
    const bool news = replica_up(it) || strcmp(before, it->trouble) != 0;
    it->settings->owner.on_change(it->settings->owner.of, it, news);
}

/* The one place where the state changes. */
static void step(replica *it, replica_event event, const refusal *why) {
    const replica_state before = it->state, after = replica_state_next(before, event);
    if (after == before) return;
    note_down(it);
    it->state = after;
    switch (after) {
    case RS_PAUSED:
        pause_after(it, why);
        break;
    case RS_CONNECTING:
        it->due_ms = clock_monotonic_ms() + CONNECT_MS;
        connect_to(it);
        return;
    case RS_SERVING:
        it->due_ms = INT64_MAX;
        it->up_ms = clock_monotonic_ms();
        it->told_gone = false;
        if (replica_idle(it)) it->owes_ms = 0;
        if (!it->events) open_events(it);
        break;
    default:
        it->due_ms = INT64_MAX;
        break;
    }
    tell(it, after == RS_PAUSED ? why->message : after == RS_SERVING ? "" : UNWELL);
    if (may_send(it)) send_next(it);
}

static int64_t gone_from_ms(const replica *it) {
    if (it->state == RS_SERVING || it->settings->failover_ms == 0) return INT64_MAX;
    return it->down_ms + it->settings->failover_ms;
}

bool replica_gone(const replica *it, int64_t now_ms) { return now_ms >= gone_from_ms(it); }

void replica_run(replica *it, int64_t now_ms) {
    refusal why;
    if (now_ms >= it->due_ms) {
        refusal_of(REFUSAL_UNAVAILABLE, "no answer to the health watch in time", &why);
        step(it, RE_TIME, &why);
    }
    if (replica_gone(it, now_ms) && !it->told_gone) {
        it->told_gone = true;
        it->settings->owner.on_change(it->settings->owner.of, it, false);
    }
}

int64_t replica_due_ms(const replica *it) {
    const int64_t gone_ms = it->told_gone ? INT64_MAX : gone_from_ms(it);
    return gone_ms < it->due_ms ? gone_ms : it->due_ms;
}

void replica_overdue(replica *it, const delivery *event, int64_t now_ms) {
    if (!it->settings->until_published && now_ms - event->sent_ms >= OVERDUE_MS)
        break_off(it, "the server left an event without an answer");
}

/* ---- what the owner asks ------------------------------------------------------------------- */

replica *replica_new(const endpoint *at, replica_settings *settings, int64_t now_ms) {
    replica *it = calloc(1, sizeof *it);
    if (!it || !(it->slots = calloc(settings->window, sizeof(delivery *)))) abort();
    it->at = endpoint_copy(at);
    it->settings = settings;
    it->hash = route_hash(bytes_of_string(at->address));
    it->state = RS_PAUSED;
    it->due_ms = it->down_ms = now_ms;
    TAILQ_INIT(&it->queue);
    return it;
}

void replica_free(replica *it) {
    disconnect(it);
    free(it->slots);
    endpoint_free(&it->at);
    free(it);
}

const char *replica_address(const replica *it) { return it->at.address; }
uint64_t replica_hash(const replica *it) { return it->hash; }
const char *replica_trouble(const replica *it) {
    return it->trouble[0] || replica_up(it) ? it->trouble : replica_state_text(it->state);
}
bool replica_up(const replica *it) { return it->state == RS_SERVING; }
