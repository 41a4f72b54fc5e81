/*
 * ListDeadLetters and GetDeadLetter read, a bounded number and size at a call. ReplayDeadLetters
 * and PurgeDeadLetters hand a list to the committer and answer when all of it is synced; each
 * leaves one line in the log.
 */
#include "server/dead_letter_service.h"

#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>

#include "ingest/v1/admin_service.pb-c.h"
#include "server/log.h"
#include "server/proto_time.h"
#include "server/status_details.h"

enum {
    PAGE_DEFAULT = 100,
    LETTERS_MAX = 1000,        /* of a page, of a replay, of a purge */
    READ_BYTES_MAX = 8 << 20,  /* of letters, by one call */
    AUDIT_SEQUENCES_MAX = 1900 /* characters */
};

/* Checks and decodes a request; NULL after having refused the call. */
static void *decode(rpc_call *call, const ProtobufCMessageDescriptor *type, bytes message) {
    failure why;
    if (codec_check(type, message, INGEST_CODEC_LIMITS, &why) == ST_OK)
        return codec_unpack(type, message, &rpc_arena(call)->allocator);
    rpc_fail_with(call, &why, 0);
    return NULL;
}

/* Any route that the store knows, also one that is not configured any more. */
static outcome find_route(const ingestd *server, const char *name, uint32_t *route, failure *why) {
    if (!name[0]) return fail(why, ST_INVALID, "route", "is required");
    const uint32_t count = store_route_count(server->store);
    for (*route = 0; *route < count; (*route)++)
        if (strcmp(store_route_name(server->store, *route), name) == 0) return ST_OK;
    return fail(why, ST_NOT_FOUND, "route", "this store has no route \"%.100s\"", name);
}

static char *text_of(arena *memory, bytes from) {
    char *text = arena_alloc(memory, from.len + 1);
    if (from.len) memcpy(text, from.data, from.len);
    text[from.len] = '\0';
    return text;
}

/* The letter as a message; all of it from `memory`. */
static Ingest__V1__DeadLetter *picture_of(const char *route, const dead_letter *letter,
                                          arena *memory) {
    Ingest__V1__DeadLetter *out = arena_alloc(memory, sizeof *out);
    Google__Protobuf__Timestamp *times = arena_alloc(memory, 3 * sizeof *times);
    proto_timestamp(&times[0], letter->record.accepted_ms);
    proto_timestamp(&times[1], letter->first_attempt_ms);
    proto_timestamp(&times[2], letter->last_attempt_ms);
    ingest__v1__dead_letter__init(out);
    out->route = (char *)(uintptr_t)route;
    out->sequence = letter->record.sequence;
    out->id = text_of(memory, letter->record.id);
    out->source = text_of(memory, letter->record.source);
    out->key = text_of(memory, letter->record.key);
    out->type = text_of(memory, letter->record.type);
    out->accepted_at = &times[0];
    out->first_attempt_at = &times[1];
    out->last_attempt_at = &times[2];
    out->attempts = letter->attempts;
    out->reason = text_of(memory, bytes_of_string(letter->reason));
    out->error_code = letter->error_code;
    if (letter->error_code)
        out->error = (char *)(uintptr_t)rd_kafka_err2name((rd_kafka_resp_err_t)letter->error_code);
    out->size_bytes = letter->size;
    return out;
}

/* ---- ListDeadLetters --------------------------------------------------------------------- */

typedef struct letter_page {
    arena *memory;
    const char *route; /* of the letters that are visited now */
    size_t most;
    uint64_t read_bytes;
    Ingest__V1__ListDeadLettersResponse response;
} letter_page;

static bool put_on_page(void *arg, const dead_letter *letter) {
    letter_page *page = arg;
    Ingest__V1__ListDeadLettersResponse *response = &page->response;
    if (response->n_dead_letters == page->most || page->read_bytes >= READ_BYTES_MAX) {
        const size_t size = strlen(page->route) + 24;
        response->next_page_token = arena_alloc(page->memory, size);
        (void)snprintf(response->next_page_token, size, "%s:%" PRIu64, page->route,
                       letter->record.sequence);
        return false;
    }
    response->dead_letters[response->n_dead_letters++] =
        picture_of(page->route, letter, page->memory);
    page->read_bytes += letter->size;
    return true;
}

/* "ROUTE:SEQUENCE", what comes next. */
static outcome parse_token(const ingestd *server, const char *token, uint32_t *route,
                           uint64_t *sequence, failure *why) {
    const char *colon = strrchr(token, ':');
    char name[256], *end = NULL;
    if (colon && colon[1] >= '0' && colon[1] <= '9') *sequence = strtoull(colon + 1, &end, 10);
    const size_t len = colon ? (size_t)(colon - token) : sizeof name;
    if (end && !*end && len < sizeof name) {
        memcpy(name, token, len);
        name[len] = '\0';
        if (find_route(server, name, route, why) == ST_OK) return ST_OK;
    }
    return fail(why, ST_INVALID, "page_token",
                "is none that ListDeadLetters gave out; leave it empty for the first page");
}

/* Where the page starts, and behind which route it ends. */
static outcome page_bounds(const ingestd *server, const Ingest__V1__ListDeadLettersRequest *request,
                           uint32_t *route, uint64_t *from, uint32_t *behind, failure *why) {
    uint32_t only = 0;
    *route = 0;
    *from = 0;
    *behind = store_route_count(server->store);
    if (request->route[0]) {
        const outcome result = find_route(server, request->route, &only, why);
        if (result != ST_OK) return result;
        *route = only;
        *behind = only + 1;
    }
    if (!request->page_token[0]) return ST_OK;
    const outcome result = parse_token(server, request->page_token, route, from, why);
    if (result != ST_OK) return result;
    if (request->route[0] && *route != only)
        return fail(why, ST_INVALID, "page_token", "belongs to another route than \"%.100s\"",
                    request->route);
    return ST_OK;
}

static void list_dead_letters(rpc_call *call, bytes message) {
    const ingestd *server = rpc_service(call);
    const Ingest__V1__ListDeadLettersRequest *request =
        decode(call, &ingest__v1__list_dead_letters_request__descriptor, message);
    if (!request) return;
    failure why;
    uint32_t route, behind;
    uint64_t from;
    outcome result = page_bounds(server, request, &route, &from, &behind, &why);
    letter_page page = {.memory = rpc_arena(call),
                        .most = request->page_size ? request->page_size : PAGE_DEFAULT,
                        .response = INGEST__V1__LIST_DEAD_LETTERS_RESPONSE__INIT};
    if (page.most > LETTERS_MAX) page.most = LETTERS_MAX;
    page.response.dead_letters = rpc_alloc(call, page.most * sizeof(Ingest__V1__DeadLetter *));
    for (; result == ST_OK && route < behind && !page.response.next_page_token[0]; route++) {
        page.route = store_route_name(server->store, route);
        result = store_dead_scan(server->store, route, from, put_on_page, &page, &why);
        from = 0;
    }
    if (result == ST_OK)
        rpc_reply(call, &page.response.base);
    else
        rpc_fail_with(call, &why, 0);
}

/* ---- GetDeadLetter ----------------------------------------------------------------------- */

static void get_dead_letter(rpc_call *call, bytes message) {
    const ingestd *server = rpc_service(call);
    const Ingest__V1__GetDeadLetterRequest *request =
        decode(call, &ingest__v1__get_dead_letter_request__descriptor, message);
    if (!request) return;
    failure why;
    uint32_t route;
    dead_letter letter;
    outcome result = find_route(server, request->route, &route, &why);
    if (result == ST_OK)
        result = store_dead_get(server->store, route, request->sequence, &letter, &why);
    if (result != ST_OK) {
        rpc_fail_with(call, &why, 0);
        return;
    }
    Ingest__V1__GetDeadLetterResponse response = INGEST__V1__GET_DEAD_LETTER_RESPONSE__INIT;
    response.dead_letter =
        picture_of(store_route_name(server->store, route), &letter, rpc_arena(call));
    response.event = codec_unpack(&ingest__v1__event__descriptor, letter.record.event,
                                  &rpc_arena(call)->allocator);
    rpc_reply(call, &response.base);
    dead_letter_free(&letter);
}

/* ---- ReplayDeadLetters and PurgeDeadLetters ------------------------------------------------ */

typedef struct move_call move_call;

typedef struct move_item {
    letter_request request; /* first: done() casts back */
    move_call *owner;
} move_item;

struct move_call {
    rpc_call *call;
    letter_move move;
    uint32_t route;
    bool all;
    size_t count;
    move_item *items;
    _Atomic size_t open; /* items that the committer has */
};

/* "3-7,9": those that were moved, as far as they fit. */
static void write_sequences(const move_call *it, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < it->count;) {
        const letter_request *first = &it->items[i].request;
        if (first->result != ST_OK) {
            i++;
            continue;
        }
        uint64_t last = first->sequence;
        while (++i < it->count && it->items[i].request.result == ST_OK &&
               it->items[i].request.sequence == last + 1)
            last++;
        char run[48];
        const char *comma = used ? "," : "";
        if (last == first->sequence)
            (void)snprintf(run, sizeof run, "%s%" PRIu64, comma, last);
        else
            (void)snprintf(run, sizeof run, "%s%" PRIu64 "-%" PRIu64, comma, first->sequence, last);
        if (used + strlen(run) + sizeof ",..." > size) {
            memcpy(out + used, ",...", sizeof ",...");
            return;
        }
        memcpy(out + used, run, strlen(run) + 1);
        used += strlen(run);
    }
}

static void explain(const move_call *it, size_t index, const route_stats *stats, failure *why) {
    const letter_request *request = &it->items[index].request;
    char field[32] = "";
    if (!it->all) (void)snprintf(field, sizeof field, "sequences[%zu]", index);
    switch (request->result) {
    case ST_NOT_FOUND:
        (void)fail(why, request->result, field,
                   "there is no dead letter %" PRIu64 " on this route, or no more",
                   request->sequence);
        return;
    case ST_PRECONDITION:
        (void)fail(why, request->result, field,
                   "the route has not passed %" PRIu64 " yet (its position is %" PRIu64
                   "); try again when it has",
                   request->sequence, stats->position);
        return;
    default:
        (void)fail(why, request->result, "", "%s; dead letter %" PRIu64 " stays where it is",
                   outcome_text(request->result), request->sequence);
    }
}

static Ingest__V1__DeadLetterResult **results_of(const move_call *it, const route_stats *stats) {
    arena *memory = rpc_arena(it->call);
    Ingest__V1__DeadLetterResult *all = arena_alloc(memory, it->count * sizeof *all);
    Ingest__V1__DeadLetterResult **list = arena_alloc(memory, it->count * sizeof(*list));
    for (size_t i = 0; i < it->count; i++) {
        const letter_request *request = &it->items[i].request;
        failure why;
        list[i] = &all[i];
        ingest__v1__dead_letter_result__init(&all[i]);
        all[i].sequence = request->sequence;
        if (request->result != ST_OK) {
            explain(it, i, stats, &why);
            all[i].outcome_case = INGEST__V1__DEAD_LETTER_RESULT__OUTCOME_ERROR;
            all[i].error =
                status_details_make(&why, ingest_retry_ms(request->result), &memory->allocator);
        } else if (it->move == LETTER_REPLAY) {
            all[i].outcome_case = INGEST__V1__DEAD_LETTER_RESULT__OUTCOME_NEW_SEQUENCE;
            all[i].new_sequence = request->new_sequence;
        }
    }
    return list;
}

static void reply_moved(const move_call *it) {
    const ingestd *server = rpc_service(it->call);
    uint32_t moved = 0;
    for (size_t i = 0; i < it->count; i++)
        moved += it->items[i].request.result == ST_OK;
    const uint32_t refused = (uint32_t)it->count - moved;
    route_stats stats;
    store_stats(server->store, it->route, &stats);
    char sequences[AUDIT_SEQUENCES_MAX];
    write_sequences(it, sequences, sizeof sequences);
    log_line(LOG_INFO, it->move == LETTER_REPLAY ? "dead letters replayed" : "dead letters purged",
             "route=%s count=%u refused=%u remaining=%" PRIu64 " sequences=%s",
             store_route_name(server->store, it->route), moved, refused, stats.dead, sequences);
    if (it->move == LETTER_REPLAY) {
        Ingest__V1__ReplayDeadLettersResponse response =
            INGEST__V1__REPLAY_DEAD_LETTERS_RESPONSE__INIT;
        response.replayed = moved;
        response.refused = refused;
        response.remaining = stats.dead;
        response.n_results = it->count;
        response.results = results_of(it, &stats);
        rpc_reply(it->call, &response.base);
    } else {
        Ingest__V1__PurgeDeadLettersResponse response =
            INGEST__V1__PURGE_DEAD_LETTERS_RESPONSE__INIT;
        response.purged = moved;
        response.refused = refused;
        response.remaining = stats.dead;
        response.n_results = it->count;
        response.results = results_of(it, &stats);
        rpc_reply(it->call, &response.base);
    }
}

static void moved(letter_request *request) {
    move_call *it = ((move_item *)(void *)request)->owner;
    if (atomic_fetch_sub(&it->open, 1) == 1) reply_moved(it);
}

/* What a request asks for; the two methods have the same fields. */
typedef struct move_order {
    const char *route;
    const uint64_t *sequences;
    size_t count;
    bool all;
} move_order;

typedef struct sequence_list {
    uint64_t *sequences;
    size_t count;
    uint64_t read_bytes;
} sequence_list;

static bool collect(void *arg, const dead_letter *letter) {
    sequence_list *list = arg;
    list->sequences[list->count++] = letter->record.sequence;
    list->read_bytes += letter->size;
    return list->count < LETTERS_MAX && list->read_bytes < READ_BYTES_MAX;
}

static outcome check_order(const move_order *order, failure *why) {
    if (order->all && order->count)
        return fail(why, ST_INVALID, "all", "excludes sequences; give one of them");
    if (!order->all && !order->count)
        return fail(why, ST_INVALID, "sequences", "is empty; name the letters, or set all");
    if (order->count > LETTERS_MAX)
        return fail(why, ST_TOO_LARGE, "sequences", "has %zu, a call moves at most %d",
                    order->count, LETTERS_MAX);
    return ST_OK;
}

static bool is_configured(const ingestd *server, uint32_t route) {
    for (size_t i = 0; i < server->config.route_count; i++)
        if (server->store_routes[i] == route) return true;
    return false;
}

static outcome resolve(const ingestd *server, move_order *order, letter_move move, arena *memory,
                       uint32_t *route, failure *why) {
    outcome result = find_route(server, order->route, route, why);
    if (result == ST_OK) result = check_order(order, why);
    if (result != ST_OK) return result;
    if (move == LETTER_REPLAY && !is_configured(server, *route))
        return fail(why, ST_PRECONDITION, "route",
                    "\"%.100s\" is not configured any more: nothing would publish them",
                    order->route);
    if (!order->all) return ST_OK;
    sequence_list list = {.sequences = arena_alloc(memory, LETTERS_MAX * sizeof(uint64_t))};
    result = store_dead_scan(server->store, *route, 0, collect, &list, why);
    order->sequences = list.sequences;
    order->count = list.count;
    return result;
}

static void move_letters(rpc_call *call, move_order *order, letter_move move) {
    const ingestd *server = rpc_service(call);
    failure why;
    move_call *it = rpc_alloc(call, sizeof *it);
    *it = (move_call){.call = call, .move = move, .all = order->all};
    outcome result = resolve(server, order, move, rpc_arena(call), &it->route, &why);
    if (result != ST_OK) {
        rpc_fail_with(call, &why, 0);
        return;
    }
    it->count = order->count;
    if (it->count == 0) {
        reply_moved(it);
        return;
    }
    it->items = rpc_alloc(call, it->count * sizeof *it->items);
    atomic_init(&it->open, it->count);
    for (size_t i = 0; i < it->count; i++) {
        it->items[i] = (move_item){.request = {.move = move,
                                               .route = it->route,
                                               .sequence = order->sequences[i],
                                               .done = moved},
                                   .owner = it};
        if (i) it->items[i - 1].request.next = &it->items[i].request;
    }
    result = committer_move_letters(server->store, &it->items[0].request);
    if (result == ST_OK) return;
    (void)fail(&why, result, "", "%s; nothing was moved, try again later", outcome_text(result));
    rpc_fail_with(call, &why, ingest_retry_ms(result));
}

static void replay_dead_letters(rpc_call *call, bytes message) {
    const Ingest__V1__ReplayDeadLettersRequest *request =
        decode(call, &ingest__v1__replay_dead_letters_request__descriptor, message);
    if (!request) return;
    move_order order = {request->route, request->sequences, request->n_sequences, request->all};
    move_letters(call, &order, LETTER_REPLAY);
}

static void purge_dead_letters(rpc_call *call, bytes message) {
    const Ingest__V1__PurgeDeadLettersRequest *request =
        decode(call, &ingest__v1__purge_dead_letters_request__descriptor, message);
    if (!request) return;
    move_order order = {request->route, request->sequences, request->n_sequences, request->all};
    move_letters(call, &order, LETTER_PURGE);
}

/* ---- the table ----------------------------------------------------------------------------- */

void dead_letter_methods(ingestd *server, rpc_method out[DEAD_LETTER_METHOD_COUNT]) {
    static const struct {
        const char *path;
        void (*handler)(rpc_call *call, bytes message);
    } METHODS[DEAD_LETTER_METHOD_COUNT] = {
        {"/ingest.v1.AdminService/ListDeadLetters", list_dead_letters},
        {"/ingest.v1.AdminService/GetDeadLetter", get_dead_letter},
        {"/ingest.v1.AdminService/ReplayDeadLetters", replay_dead_letters},
        {"/ingest.v1.AdminService/PurgeDeadLetters", purge_dead_letters},
    };
    for (size_t i = 0; i < DEAD_LETTER_METHOD_COUNT; i++)
        out[i] = (rpc_method){.path = METHODS[i].path,
                              .kind = RPC_UNARY,
                              .on_message = METHODS[i].handler,
                              .service = server};
}
