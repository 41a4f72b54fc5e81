/* ingestctl failed show: one failed event, whole. */
#include "client/ingestctl/failed.h"
#include "client/ingestctl/output.h"

typedef struct showing {
    const arguments *given;
    bool found;
} showing;

static void print_event(const ingest_failed_event *event) {
    print_line("number", "%llu", (unsigned long long)event->number);
    print_line("state", "%s", failed_state_text(event->state));
    print_line("source", "%s", event->source);
    print_line("id", "%s", event->event_id);
    print_line("key", "%s", event->key);
    print_line("type", "%s", event->event_type);
    print_line("operation", "%s", event->operation);
    print_line("effect", "%s", event->effect);
    print_line("done", "%u of %u effects", event->effects_done, event->effects);
    print_line("attempts", "%u", event->attempts);
    print_line("code", "%s", event->code[0] ? event->code : "-");
    print_line("reason", "%s", event->reason);
    print_line("first", "%s", failed_time_text(event->first_failed_ms));
    print_line("last", "%s", failed_time_text(event->last_failed_ms));
    print_line("next", "%s", failed_time_text(event->next_attempt_ms));
    print_line("record", "%s/%d, offset %lld", event->topic, event->partition,
               (long long)event->offset);
    print_line("event", "%s", event->json);
}

static bool show(void *arg, const ingest_failed_event *event) {
    showing *it = arg;
    it->found = true;
    if (flag(it->given, "json"))
        failed_print_json(event);
    else
        print_event(event);
    return true;
}

static int run(const arguments *given) {
    ingest_failed_filter filter = {0};
    showing it = {.given = given};
    int code = EX_OK;
    ingest_error error = {0};
    if (!parse_number(given->operands[0], &filter.number) || filter.number == 0)
        return complain(given, EX_USAGE, "\"%s\" is no number of a failed event",
                        given->operands[0]);
    ingest_failed_store *store = failed_open(given, &code);
    if (!store) return code;
    if (!ingest_failed_list(store, &filter, 0, 1, true, show, &it, &error))
        code = failed_complain(given, &error);
    else if (!it.found)
        code = complain(given, EX_NOINPUT, "there is no failed event %s", given->operands[0]);
    ingest_failed_store_close(store);
    return code;
}

static const command_option OPTIONS[] = {
    FAILED_FOLDER_OPTION, {"json", NULL, "as JSON, for scripts"}, {0}};

const command COMMAND_FAILED_SHOW = {
    .group = "failed",
    .name = "show",
    .operands = "NUMBER",
    .least = 1,
    .most = 1,
    .summary = "one of them, with its event",
    .help = "Shows where and why the event stopped, what of it is done, and the event itself.",
    .example = "  ingestctl failed show 17 --data-dir /var/lib/profiles",
    .options = OPTIONS,
    .run = run,
};
