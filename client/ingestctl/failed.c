/* Plain functions; one thread. */
#include "client/ingestctl/failed.h"

#include "client/ingestctl/output.h"

ingest_failed_store *failed_open(const arguments *given, int *code) {
    const char *folder = argument(given, "data-dir");
    ingest_error error = {0};
    if (!folder || !*folder) {
        *code = complain(given, EX_USAGE, "--data-dir: say which folder");
        return NULL;
    }
    ingest_failed_store *store = ingest_failed_store_open(folder, &error);
    if (store) return store;
    *code = failed_complain(given, &error);
    if (error.status == INGEST_INVALID) *code = EX_NOINPUT;
    return NULL;
}

int failed_complain(const arguments *given, const ingest_error *error) {
    int code = EX_IOERR;
    if (error->status == INGEST_UNSUPPORTED) code = EX_CONFIG;
    if (error->status == INGEST_INVALID) code = EX_DATAERR;
    if (error->status == INGEST_CLOSED) code = EX_TEMPFAIL;
    return complain(given, code, "%s", error->reason);
}

ingest_failed_filter failed_filter(const arguments *given) {
    return (ingest_failed_filter){.event_id = argument(given, "id"),
                                  .operation = argument(given, "operation"),
                                  .code = argument(given, "code")};
}

bool failed_has_filter(const arguments *given) {
    const ingest_failed_filter filter = failed_filter(given);
    return filter.event_id || filter.operation || filter.code;
}

const char *failed_state_text(ingest_failed_state state) {
    if (state == INGEST_FAILED_WAITING) return "waiting";
    return state == INGEST_FAILED_HELD ? "held" : "given up";
}

const char *failed_time_text(int64_t ms) {
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    time.seconds = ms / 1000;
    time.nanos = (int32_t)(ms % 1000) * 1000000;
    return ms > 0 ? time_text(&time) : "-";
}

static void print_text(const char *name, const char *text) {
    (void)printf(",\"%s\":", name);
    print_json_text(stdout, text);
}

static void print_time(const char *name, int64_t ms) {
    if (ms > 0) print_text(name, failed_time_text(ms));
}

void failed_print_json(const ingest_failed_event *event) {
    (void)printf("{\"number\":%llu,\"state\":\"%s\"", (unsigned long long)event->number,
                 event->state == INGEST_FAILED_GIVEN_UP ? "given_up"
                                                        : failed_state_text(event->state));
    print_text("source", event->source);
    print_text("id", event->event_id);
    print_text("type", event->event_type);
    print_text("key", event->key);
    print_text("operation", event->operation);
    print_text("effect", event->effect);
    (void)printf(",\"effectsDone\":%u,\"effects\":%u,\"attempts\":%u", event->effects_done,
                 event->effects, event->attempts);
    print_text("code", event->code);
    print_text("reason", event->reason);
    print_time("firstFailedAt", event->first_failed_ms);
    print_time("lastFailedAt", event->last_failed_ms);
    print_time("nextAttemptAt", event->next_attempt_ms);
    print_text("topic", event->topic);
    (void)printf(",\"partition\":%d,\"offset\":%lld", event->partition, (long long)event->offset);
    if (event->json) (void)printf(",\"event\":%s", event->json);
    (void)printf("}\n");
}
