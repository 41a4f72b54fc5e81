/* ingestctl failed retry and failed discard. Both may be repeated after an error: what has left is
 * only reported. */
#include "client/ingestctl/failed.h"

typedef bool (*change_call)(ingest_failed_store *store, const ingest_failed_filter *filter,
                            uint64_t *count, ingest_error *error);

typedef struct change {
    const arguments *given;
    ingest_failed_store *store;
    change_call call;
    const char *done; /* "retried" */
    uint64_t count, missing;
} change;

static int change_matching(change *it, const ingest_failed_filter *filter, uint64_t *count) {
    ingest_error error = {0};
    const bool done = it->call(it->store, filter, count, &error);
    it->count += *count;
    return done ? EX_OK : failed_complain(it->given, &error);
}

static int change_named(change *it) {
    ingest_failed_filter filter = failed_filter(it->given);
    int code = EX_OK;
    for (int i = 0; code == EX_OK && i < it->given->operand_count; i++) {
        uint64_t count = 0;
        (void)parse_number(it->given->operands[i], &filter.number);
        code = change_matching(it, &filter, &count);
        if (code != EX_OK || count > 0) continue;
        it->missing++;
        (void)fprintf(stderr, "%s: there is no such failed event\n", it->given->operands[i]);
    }
    return code;
}

static void print_totals(const change *it) {
    if (flag(it->given, "json"))
        (void)printf("{\"%s\":%llu,\"missing\":%llu}\n", it->done, (unsigned long long)it->count,
                     (unsigned long long)it->missing);
    else
        (void)printf("%llu %s\n", (unsigned long long)it->count, it->done);
}

/* Everything is done only to whoever says so. */
static int check(const arguments *given) {
    uint64_t number;
    const int numbers = given->operand_count;
    const bool filtered = failed_has_filter(given);
    if (flag(given, "all") && (numbers || filtered))
        return complain(given, EX_USAGE,
                        "--all is all: without numbers, --id, --operation, --code");
    if (!flag(given, "all") && !numbers && !filtered)
        return complain(given, EX_USAGE,
                        "name numbers, or --id, --operation or --code, or say --all");
    for (int i = 0; i < numbers; i++)
        if (!parse_number(given->operands[i], &number) || number == 0)
            return complain(given, EX_USAGE, "\"%s\" is no number of a failed event",
                            given->operands[i]);
    return EX_OK;
}

static int run(const arguments *given, change_call call, const char *done) {
    change it = {.given = given, .call = call, .done = done};
    int code = check(given);
    if (code != EX_OK) return code;
    it.store = failed_open(given, &code);
    if (!it.store) return code;
    const ingest_failed_filter filter = failed_filter(given);
    uint64_t count = 0;
    code = given->operand_count ? change_named(&it) : change_matching(&it, &filter, &count);
    if (code == EX_OK || it.count > 0) print_totals(&it);
    if (code == EX_OK && it.missing > 0) code = EX_DATAERR;
    ingest_failed_store_close(it.store);
    return code;
}

static int run_retry(const arguments *given) { return run(given, ingest_failed_retry, "retried"); }
static int run_discard(const arguments *given) {
    return run(given, ingest_failed_discard, "discarded");
}

static const command_option OPTIONS[] = {FAILED_FOLDER_OPTION,
                                         FAILED_FILTER_OPTIONS,
                                         {"all", NULL, "all that there are now"},
                                         {"json", NULL, "the counts as JSON"},
                                         {0}};

const command COMMAND_FAILED_RETRY = {
    .group = "failed",
    .name = "retry",
    .operands = "[NUMBER...]",
    .most = -1,
    .summary = "try failed events again, from the effect where they stopped",
    .help =
        "The events go on at the effect where they stopped, with their attempts counted anew; no\n"
        "effect that is done runs again. Where the consumer does not run: at its next start.",
    .example = "  ingestctl failed retry 17 18 --data-dir /var/lib/profiles\n"
               "  ingestctl failed retry --code timeout --data-dir /var/lib/profiles",
    .options = OPTIONS,
    .run = run_retry,
};

const command COMMAND_FAILED_DISCARD = {
    .group = "failed",
    .name = "discard",
    .operands = "[NUMBER...]",
    .most = -1,
    .summary = "delete failed events for good",
    .help =
        "The events are deleted as if they had been done: the rest of their effects never runs.\n"
        "`failed export` keeps a copy. Those that are held still stand in Kafka: only while their\n"
        "consumer runs can they be discarded.",
    .example = "  ingestctl failed discard 17 --data-dir /var/lib/profiles\n"
               "  ingestctl failed discard --all --data-dir /var/lib/profiles",
    .options = OPTIONS,
    .run = run_discard,
};
