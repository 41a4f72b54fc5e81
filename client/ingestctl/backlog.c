/* ingestctl backlog: how each route stands, once or over and over. */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/output.h"
#include "ingest/v1/admin_service.pb-c.h"

typedef Ingest__V1__GetStatusResponse response;

/* "PUBLISHER_STATE_RUNNING" -> "RUNNING" */
static const char *state_name(int32_t state) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&ingest__v1__publisher_state__descriptor, state);
    return value ? value->name + strlen("PUBLISHER_STATE_") : "?";
}

static void print_routes(const response *it) {
    static const char *const HEADINGS[] = {"ROUTE",   "STATE", ">PENDING",  ">SIZE",
                                           ">OLDEST", ">LAST", ">POSITION", ">PUBLISHED",
                                           ">DEAD",   ">LOST", "LAST ERROR"};
    table *all = table_new(HEADINGS, 11);
    for (size_t i = 0; i < it->n_routes; i++) {
        const Ingest__V1__RouteStatus *route = it->routes[i];
        table_add(all, "%s", route->route);
        table_add(all, "%s", state_name(route->state));
        table_add(all, "%llu", (unsigned long long)route->pending);
        table_add(all, "%s", size_text(route->backlog_bytes));
        table_add(all, "%s", route->pending ? age_text(route->oldest_age) : "-");
        table_add(all, "%llu", (unsigned long long)route->last_sequence);
        table_add(all, "%llu", (unsigned long long)route->position);
        table_add(all, "%llu", (unsigned long long)route->published);
        table_add(all, "%llu", (unsigned long long)route->dead);
        table_add(all, "%llu", (unsigned long long)route->lost);
        table_add(all, "%s%s%s", route->last_error[0] ? time_text(route->last_error_at) : "",
                  route->last_error[0] ? ": " : "", route->last_error);
    }
    table_print(stdout, all);
    table_free(all);
}

static int show(const arguments *given, connection *server) {
    const Ingest__V1__GetStatusRequest request = INGEST__V1__GET_STATUS_REQUEST__INIT;
    ProtobufCMessage *message;
    const int code = connection_call(server, "/ingest.v1.AdminService/GetStatus", &request.base,
                                     &ingest__v1__get_status_response__descriptor, &message);
    if (code != EX_OK) return code;
    if (flag(given, "json")) {
        print_message_json(stdout, message);
        (void)putchar('\n');
    } else {
        print_routes((const response *)message);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return EX_OK;
}

static int run(const arguments *given) {
    uint64_t seconds;
    const char *watch = argument(given, "watch");
    if (watch && *watch && !argument_number(given, "watch", 2, 1, 3600, &seconds)) return EX_USAGE;
    if (!watch || !*watch) seconds = 2;
    connection *server = connection_open(given);
    if (!server) return EX_USAGE;
    const bool terminal = isatty(STDOUT_FILENO) && !flag(given, "json");
    int code = EX_OK;
    do {
        if (watch && terminal) (void)printf("\033[H\033[2J"); /* the screen anew */
        code = show(given, server);
        (void)fflush(stdout);
    } while (watch && !ferror(stdout) && sleep((unsigned)seconds) == 0);
    connection_close(server);
    return code;
}

static const command_option OPTIONS[] = {
    {"watch", "[SECONDS]", "again and again, every 2 seconds or so many"},
    {"json", NULL, "as JSON, for scripts"},
    {0}};

const command COMMAND_BACKLOG = {
    .group = "",
    .name = "backlog",
    .operands = "",
    .summary = "what waits to be published, how long, and why",
    .help =
        "Shows each route: what its publisher is doing, events that wait and their size, the age\n"
        "of the oldest, the sequence of the last event and that up to which all is in Kafka, how\n"
        "many events were published, are dead letters, were accepted as lost; and the last\n"
        "trouble, with its way out.",
    .example = "  ingestctl backlog --watch",
    .options = OPTIONS,
    .online = true,
    .run = run,
};
