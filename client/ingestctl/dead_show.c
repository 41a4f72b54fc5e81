/* ingestctl dead show: one dead letter with its whole event. */
#include "client/ingestctl/connection.h"
#include "client/ingestctl/output.h"
#include "ingest/v1/admin_service.pb-c.h"

typedef Ingest__V1__GetDeadLetterResponse response;

static void print_letter(const response *it) {
    const Ingest__V1__DeadLetter *letter = it->dead_letter;
    print_line("route", "%s", letter->route);
    print_line("sequence", "%llu", (unsigned long long)letter->sequence);
    print_line("source", "%s", letter->source);
    print_line("id", "%s", letter->id);
    print_line("key", "%s", letter->key);
    print_line("type", "%s", letter->type);
    print_line("accepted", "%s", time_text(letter->accepted_at));
    print_line("first", "%s", time_text(letter->first_attempt_at));
    print_line("last", "%s", time_text(letter->last_attempt_at));
    print_line("attempts", "%u", letter->attempts);
    print_line("error", "%d %s", letter->error_code, letter->error);
    print_line("reason", "%s", letter->reason);
    print_line("size", "%s", size_text(letter->size_bytes));
    (void)printf("%-9s ", "event");
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
