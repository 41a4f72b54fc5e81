/* ingestctl dead show: one dead letter with its whole event. */
#include "client/ingestctl/connection.h"
#include "client/ingestctl/output.h"
#include "ingest/v1/admin_service.pb-c.h"

typedef Ingest__V1__GetDeadLetterResponse response;

static void print_letter(const response *it) {
    const Ingest__V1__DeadLetter *letter = it->dead_letter;
    (void)printf("route     %s\nsequence  %llu\n", letter->route,
                 (unsigned long long)letter->sequence);
    (void)printf("source    %s\nid        %s\nkey       %s\ntype      %s\n", letter->source,
                 letter->id, letter->key, letter->type);
    (void)printf("accepted  %s\nfirst     %s\nlast      %s\nattempts  %u\n",
                 time_text(letter->accepted_at), time_text(letter->first_attempt_at),
                 time_text(letter->last_attempt_at), letter->attempts);
    (void)printf("error     %d %s\nreason    %s\nsize      %s\nevent     ", letter->error_code,
                 letter->error, letter->reason, size_text(letter->size_bytes));
    if (it->event) print_message_json(stdout, &it->event->base);
    (void)putchar('\n');
}

static int run(const arguments *given) {
    Ingest__V1__GetDeadLetterRequest request = INGEST__V1__GET_DEAD_LETTER_REQUEST__INIT;
    request.route = given->operands[0];
    if (!parse_number(given->operands[1], &request.sequence))
        return complain(given, EX_USAGE, "\"%s\" is no sequence", given->operands[1]);
    connection *server = connection_open(given);
    if (!server) return EX_USAGE;
    ProtobufCMessage *message;
    const int code = connection_call(server, "/ingest.v1.AdminService/GetDeadLetter", &request.base,
                                     &ingest__v1__get_dead_letter_response__descriptor, &message);
    connection_close(server);
    if (code != EX_OK) return code;
    if (flag(given, "json")) {
        print_message_json(stdout, message);
        (void)putchar('\n');
    } else if (((const response *)message)->dead_letter) {
        print_letter((const response *)message);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return EX_OK;
}

static const command_option OPTIONS[] = {{"json", NULL, "as JSON, for scripts"}, {0}};

const command COMMAND_DEAD_SHOW = {
    .group = "dead",
    .name = "show",
    .operands = "ROUTE SEQUENCE",
    .least = 2,
    .most = 2,
    .summary = "one dead letter, with its event",
    .help = "Shows why and when the event was set aside, and the event as it was accepted.",
    .example = "  ingestctl dead show transactions 4711",
    .options = OPTIONS,
    .online = true,
    .run = run,
};
