/* ingestctl failed list and failed export: in bounded memory, however many there are. */
#include <string.h>

#include "client/ingestctl/failed.h"
#include "client/ingestctl/output.h"

enum { ROWS = 1000, COLUMNS = 9 }; /* of a table; then the next one begins */

static const char *const HEADINGS[COLUMNS] = {">NUMBER", "STATE", "SOURCE", "ID",    "OPERATION",
                                              ">DONE",   "CODE",  "LAST",   "REASON"};

typedef struct listing {
    const arguments *given;
    table *rows;
    int count;
    uint64_t left_out;
} listing;

static void next_table(listing *it) {
    if (it->count > 0) table_print(stdout, it->rows);
    table_free(it->rows);
    it->rows = table_new(HEADINGS, COLUMNS);
    it->count = 0;
}

static void add_row(listing *it, const ingest_failed_event *event) {
    if (it->count == ROWS) next_table(it);
    it->count++;
    table_add(it->rows, "%llu", (unsigned long long)event->number);
    table_add(it->rows, "%s", failed_state_text(event->state));
    table_add(it->rows, "%s", event->source);
    table_add(it->rows, "%s", event->event_id);
    table_add(it->rows, "%s", event->operation);
    table_add(it->rows, "%u/%u", event->effects_done, event->effects);
    table_add(it->rows, "%s", event->code[0] ? event->code : "-");
    table_add(it->rows, "%s", failed_time_text(event->last_failed_ms));
    table_add(it->rows, "%s", event->reason);
}

static bool show(void *arg, const ingest_failed_event *event) {
    listing *it = arg;
    if (flag(it->given, "json"))
        failed_print_json(event);
    else
        add_row(it, event);
    return !ferror(stdout);
}

static bool export_one(void *arg, const ingest_failed_event *event) {
    listing *it = arg;
    if (!flag(it->given, "events-only"))
        failed_print_json(event);
    else if (strncmp(event->json, "{\"opaque\":", 10) == 0)
        it->left_out++;
    else
        (void)puts(event->json);
    return !ferror(stdout);
}

static int list(listing *it, bool with_events,
                bool (*each)(void *arg, const ingest_failed_event *event)) {
    const ingest_failed_filter filter = failed_filter(it->given);
    uint64_t after;
    uint64_t limit;
    int code = EX_OK;
    ingest_error error = {0};
    if (!argument_number(it->given, "after", 0, 0, UINT64_MAX, &after) ||
        !argument_number(it->given, "limit", 0, 1, UINT64_MAX, &limit))
        return EX_USAGE;
    ingest_failed_store *store = failed_open(it->given, &code);
    if (!store) return code;
    if (!ingest_failed_list(store, &filter, after, limit, with_events, each, it, &error))
        code = failed_complain(it->given, &error);
    ingest_failed_store_close(store);
    return code;
}

static int run_list(const arguments *given) {
    listing it = {.given = given, .rows = table_new(HEADINGS, COLUMNS)};
    const int code = list(&it, false, show);
    if (!flag(given, "json") && (code == EX_OK || it.count > 0)) table_print(stdout, it.rows);
    table_free(it.rows);
    return code;
}

static int run_export(const arguments *given) {
    listing it = {.given = given};
    int code = list(&it, true, export_one);
    if (code == EX_OK && it.left_out > 0)
        code = complain(given, EX_DATAERR, "%llu values that are no events were left out",
                        (unsigned long long)it.left_out);
    return code;
}

#define PAGE_OPTIONS                                                                               \
    {"after", "NUMBER", "only those with a higher number"}, { "limit", "N", "at most so many" }

static const command_option LIST_OPTIONS[] = {FAILED_FOLDER_OPTION,
                                              FAILED_FILTER_OPTIONS,
                                              PAGE_OPTIONS,
                                              {"json", NULL, "a line of JSON for each"},
                                              {0}};

static const command_option EXPORT_OPTIONS[] = {
    FAILED_FOLDER_OPTION,
    FAILED_FILTER_OPTIONS,
    PAGE_OPTIONS,
    {"events-only", NULL, "the events alone, as `ingestctl publish` takes them"},
    {0}};

const command COMMAND_FAILED_LIST = {
    .group = "failed",
    .name = "list",
    .operands = "",
    .summary = "the events that a consumer could not finish",
    .help =
        "Lists the failed events of a consumer in the order of their numbers, without the events\n"
        "themselves: see `failed show` for one, `failed export` for all. DONE is how many of an\n"
        "event's effects are done. States: waiting will be tried again by itself, given up is for\n"
        "somebody to decide, held is given up and its key waits behind it in Kafka.\n"
        "\n"
        "A consumer that runs is asked through the socket in its data folder. Of one that does\n"
        "not run, the store is read directly; meanwhile the consumer cannot start.",
    .example = "  ingestctl failed list --data-dir /var/lib/profiles --code timeout --limit 20",
    .options = LIST_OPTIONS,
    .run = run_list,
};

const command COMMAND_FAILED_EXPORT = {
    .group = "failed",
    .name = "export",
    .operands = "",
    .summary = "the same with their events, as lines of JSON",
    .help =
        "Writes a line of JSON for each failed event: what `failed list --json` tells, and the\n"
        "whole event in canonical protobuf JSON. A value that could not be read as an event is\n"
        "{\"opaque\":\"BASE64\"}. Nothing is removed.\n"
        "\n"
        "With --events-only a line is the event alone, as `ingestctl publish` takes it; values\n"
        "that are no events are left out, and the exit code says so.",
    .example = "  ingestctl failed export --data-dir /var/lib/profiles >failed.jsonl",
    .options = EXPORT_OPTIONS,
    .run = run_export,
};
