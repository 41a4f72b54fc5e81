/* ingestctl status: what became of one event. */
#include <string.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/output.h"
#include "ingest/v1/ingest_service.pb-c.h"

typedef Ingest__V1__GetEventStatusResponse response;

/* "EVENT_STATE_PENDING" -> "PENDING" */
static const char *state_name(int32_t state) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&ingest__v1__event_state__descriptor, state);
    return value ? value->name + strlen("EVENT_STATE_") : "?";
}

static void print_status(const response *it) {
    print_line("state", "%s", state_name(it->state));
    if (it->state != INGEST__V1__EVENT_STATE__EVENT_STATE_UNKNOWN) {
        print_line("route", "%s", it->route);
        print_line("sequence", "%llu", (unsigned long long)it->sequence);
        print_line("accepted", "%s", time_text(it->accepted_at));
    }
    if (it->state == INGEST__V1__EVENT_STATE__EVENT_STATE_DEAD) {
        print_line("dead", "%s", time_text(it->dead_at));
        print_line("reason", "%s", it->reason);
    }
    print_line("store", "%s", it->store);
}

static int run(const arguments *given) {
    const char *source = argument(given, "source");
    if (!source) return complain(given, EX_USAGE, "--source is needed: an event is named by both");
    connection *server = connection_open(given);
    if (!server) return EX_USAGE;
    Ingest__V1__GetEventStatusRequest request = INGEST__V1__GET_EVENT_STATUS_REQUEST__INIT;
    request.source = (char *)(uintptr_t)source;
    request.id = given->operands[0];
    ProtobufCMessage *message;
    int code = connection_call(server, "/ingest.v1.IngestService/GetEventStatus", &request.base,
                               &ingest__v1__get_event_status_response__descriptor, &message);
    if (code == EX_OK) {
        const response *it = (const response *)message;
        if (flag(given, "json")) {
            print_message_json(stdout, message);
            (void)putchar('\n');
        } else {
            print_status(it);
        }
        if (it->state == INGEST__V1__EVENT_STATE__EVENT_STATE_UNKNOWN) code = EX_NOINPUT;
        protobuf_c_message_free_unpacked(message, NULL);
    }
    connection_close(server);
    return code;
}

static const command_option OPTIONS[] = {
    {"source", "SOURCE", "the event's source"}, {"json", NULL, "as JSON, for scripts"}, {0}};

const command COMMAND_STATUS = {
    .group = "",
    .name = "status",
    .operands = "ID",
    .least = 1,
    .most = 1,
    .summary = "what became of one event",
    .help = "Asks whether the event is pending, published, a dead letter, purged, or not known.\n"
            "Ids are remembered for 24 hours after publishing, or as long as storage.ids_budget\n"
            "holds; an event that is not known gives exit code 66.",
    .example = "  ingestctl status --source shop order-7",
    .options = OPTIONS,
    .online = true,
    .run = run,
};
