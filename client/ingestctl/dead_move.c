/*
 * ingestctl dead replay and dead purge: dead letters are sent once more, or deleted; 1,000 at a
 * call. Both may be repeated after a lost answer: what has left is only reported.
 */
#include <stdlib.h>
#include <string.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/output.h"
#include "ingest/v1/admin_service.pb-c.h"

enum { LETTERS_MAX = 1000 }; /* of a call */

typedef struct totals {
    uint64_t moved, refused, remaining;
} totals;

typedef struct move {
    const arguments *given;
    connection *server;
    bool purge;
    totals sum;
} move;

static void print_refused(const Ingest__V1__DeadLetterResult *one) {
    if (one->outcome_case == INGEST__V1__DEAD_LETTER_RESULT__OUTCOME_ERROR)
        (void)fprintf(stderr, "%llu: %s\n", (unsigned long long)one->sequence, one->error->message);
}

static void take_results(move *it, uint32_t moved, uint32_t refused, uint64_t remaining,
                         Ingest__V1__DeadLetterResult **results, size_t count) {
    it->sum.moved += moved;
    it->sum.refused += refused;
    it->sum.remaining = remaining;
    for (size_t i = 0; i < count; i++)
        print_refused(results[i]);
}

static int replay(move *it, uint64_t *sequences, size_t count) {
    Ingest__V1__ReplayDeadLettersRequest request = INGEST__V1__REPLAY_DEAD_LETTERS_REQUEST__INIT;
    request.route = it->given->operands[0];
    request.sequences = sequences;
    request.n_sequences = count;
    request.all = count == 0;
    ProtobufCMessage *message;
    int code =
        connection_call(it->server, "/ingest.v1.AdminService/ReplayDeadLetters", &request.base,
                        &ingest__v1__replay_dead_letters_response__descriptor, &message);
    if (code != EX_OK) return code;
    const Ingest__V1__ReplayDeadLettersResponse *got = (const void *)message;
    take_results(it, got->replayed, got->refused, got->remaining, got->results, got->n_results);
    protobuf_c_message_free_unpacked(message, NULL);
    return EX_OK;
}

static int purge(move *it, uint64_t *sequences, size_t count) {
    Ingest__V1__PurgeDeadLettersRequest request = INGEST__V1__PURGE_DEAD_LETTERS_REQUEST__INIT;
    request.route = it->given->operands[0];
    request.sequences = sequences;
    request.n_sequences = count;
    request.all = count == 0;
    ProtobufCMessage *message;
    int code =
        connection_call(it->server, "/ingest.v1.AdminService/PurgeDeadLetters", &request.base,
                        &ingest__v1__purge_dead_letters_response__descriptor, &message);
    if (code != EX_OK) return code;
    const Ingest__V1__PurgeDeadLettersResponse *got = (const void *)message;
    take_results(it, got->purged, got->refused, got->remaining, got->results, got->n_results);
    protobuf_c_message_free_unpacked(message, NULL);
    return EX_OK;
}

static int move_part(move *it, uint64_t *sequences, size_t count) {
    return (it->purge ? purge : replay)(it, sequences, count);
}

static int move_named(move *it, uint64_t *sequences, size_t count) {
    int code = EX_OK;
    for (size_t done = 0; code == EX_OK && done < count; done += LETTERS_MAX)
        code = move_part(it, sequences + done,
                         count - done < LETTERS_MAX ? count - done : LETTERS_MAX);
    return code;
}

/* As many as there are at first: some that are replayed may be dead letters again meanwhile, and
 * following those would never end. */
static int move_every(move *it) {
    int code = move_part(it, NULL, 0);
    const uint64_t all = it->sum.moved + it->sum.remaining;
    for (uint64_t before = 0;
         code == EX_OK && it->sum.refused == 0 && it->sum.moved < all && it->sum.moved > before;) {
        before = it->sum.moved;
        code = move_part(it, NULL, 0);
    }
    return code;
}

static void print_totals(const move *it) {
    const totals *sum = &it->sum;
    const unsigned long long moved = sum->moved, refused = sum->refused, left = sum->remaining;
    if (flag(it->given, "json"))
        (void)printf("{\"%s\":%llu,\"refused\":%llu,\"remaining\":%llu}\n",
                     it->purge ? "purged" : "replayed", moved, refused, left);
    else
        (void)printf("%llu %s, %llu refused, %llu remain\n", moved,
                     it->purge ? "purged" : "replayed", refused, left);
}

static int run(const arguments *given, bool purges) {
    const size_t count = (size_t)given->operand_count - 1;
    if (!count == !flag(given, "all"))
        return complain(given, EX_USAGE, "name sequences, or say --all");
    uint64_t *sequences = calloc(count + 1, sizeof *sequences);
    if (!sequences) abort();
    for (size_t i = 0; i < count; i++)
        if (!parse_number(given->operands[i + 1], &sequences[i])) {
            free(sequences);
            return complain(given, EX_USAGE, "\"%s\" is no sequence", given->operands[i + 1]);
        }
    move it = {.given = given, .purge = purges, .server = connection_open(given)};
    int code = !it.server ? EX_USAGE : count ? move_named(&it, sequences, count) : move_every(&it);
    if (code == EX_OK || it.sum.moved > 0) print_totals(&it);
    if (code == EX_OK && it.sum.refused > 0) code = EX_DATAERR;
    connection_close(it.server);
    free(sequences);
    return code;
}

static int run_replay(const arguments *given) { return run(given, false); }
static int run_purge(const arguments *given) { return run(given, true); }

static const command_option OPTIONS[] = {
    {"all", NULL, "all that the route has now"}, {"json", NULL, "the counts as JSON"}, {0}};

const command COMMAND_DEAD_REPLAY = {
    .group = "dead",
    .name = "replay",
    .operands = "ROUTE [SEQUENCE...]",
    .least = 1,
    .most = -1,
    .summary = "send dead letters once more",
    .help =
        "Each leaves the dead letters and joins the end of its route's backlog in one step, as\n"
        "the same event with the same id. What cannot be moved is said on stderr.",
    .example = "  ingestctl dead replay transactions 4711 4712\n"
               "  ingestctl dead replay transactions --all",
    .options = OPTIONS,
    .online = true,
    .run = run_replay,
};

const command COMMAND_DEAD_PURGE = {
    .group = "dead",
    .name = "purge",
    .operands = "ROUTE [SEQUENCE...]",
    .least = 1,
    .most = -1,
    .summary = "delete dead letters for good",
    .help = "Deletes them; their ids stay known as long as those of published events, so that a\n"
            "late retry of the request is not taken for a new event.",
    .example = "  ingestctl dead purge transactions 4711",
    .options = OPTIONS,
    .online = true,
    .run = run_purge,
};
