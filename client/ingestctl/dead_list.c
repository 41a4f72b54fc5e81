/* ingestctl dead list: dead letters, page by page, without their events. */
#include <stdlib.h>
#include <string.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/output.h"
#include "ingest/v1/admin_service.pb-c.h"

typedef Ingest__V1__ListDeadLettersResponse response;

enum { PAGE = 500 };

static void add_row(table *all, const Ingest__V1__DeadLetter *it) {
    table_add(all, "%s", it->route);
    table_add(all, "%llu", (unsigned long long)it->sequence);
    table_add(all, "%s", it->source);
    table_add(all, "%s", it->id);
    table_add(all, "%s", it->type);
    table_add(all, "%s", time_text(it->last_attempt_at));
    table_add(all, "%s", it->error[0] ? it->error : "-");
    table_add(all, "%s", it->reason);
}

/* As one row, or as one line of JSON. */
static void show(const arguments *given, table *all, const Ingest__V1__DeadLetter *it) {
    if (!flag(given, "json")) {
        add_row(all, it);
        return;
    }
    print_message_json(stdout, &it->base);
    (void)putchar('\n');
}

static int list(const arguments *given, connection *server, uint64_t limit, table *all) {
    Ingest__V1__ListDeadLettersRequest request = INGEST__V1__LIST_DEAD_LETTERS_REQUEST__INIT;
    const char *route = argument(given, "route");
    if (route) request.route = (char *)(uintptr_t)route;
    char *token = strdup("");
    int code = EX_OK;
    do {
        ProtobufCMessage *message;
        request.page_size = limit < PAGE ? (uint32_t)limit : PAGE;
        request.page_token = token;
        code = connection_call(server, "/ingest.v1.AdminService/ListDeadLetters", &request.base,
                               &ingest__v1__list_dead_letters_response__descriptor, &message);
        if (code != EX_OK) break;
        const response *page = (const response *)message;
        for (size_t i = 0; i < page->n_dead_letters && limit > 0; i++, limit--)
            show(given, all, page->dead_letters[i]);
        free(token);
        token = strdup(page->next_page_token);
        protobuf_c_message_free_unpacked(message, NULL);
    } while (token && *token && limit > 0);
    free(token);
    return code;
}

static int run(const arguments *given) {
    static const char *const HEADINGS[] = {"ROUTE", ">SEQUENCE", "SOURCE", "ID",
                                           "TYPE",  "SET ASIDE", "ERROR",  "REASON"};
    uint64_t limit;
    if (!argument_number(given, "limit", UINT64_MAX, 1, UINT64_MAX, &limit)) return EX_USAGE;
    connection *server = connection_open(given);
    if (!server) return EX_USAGE;
    table *all = table_new(HEADINGS, 8);
    const int code = list(given, server, limit, all);
    if (!flag(given, "json") && code == EX_OK) table_print(stdout, all);
    table_free(all);
    connection_close(server);
    return code;
}

static const command_option OPTIONS[] = {{"route", "ROUTE", "only those of this route"},
                                         {"limit", "N", "at most so many"},
                                         {"json", NULL, "a line of JSON for each"},
                                         {0}};

const command COMMAND_DEAD_LIST = {
    .group = "dead",
    .name = "list",
    .operands = "",
    .summary = "the events that Kafka refused for what they are",
    .help = "Lists dead letters in the order of their sequences, without their events: see `dead\n"
            "show` for one of them whole.",
    .example = "  ingestctl dead list --route transactions --limit 20",
    .options = OPTIONS,
    .online = true,
    .run = run,
};
