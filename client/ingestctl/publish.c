/*
 * ingestctl publish: events from a file or standard input, through the publishing library. The main
 * thread reads and sends; the library's own counts the answers, and the lock is between the two.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/input.h"
#include "client/ingestctl/output.h"
#include "client/publisher/event.h"

enum { PROGRESS_MS = 200, REFUSALS_SHOWN = 20 };

typedef struct counts {
    uint64_t sent, stored, duplicates, refused, unanswered, moved;
} counts;

typedef struct job {
    const arguments *given;
    ingest_publisher *publisher;
    input *in;
    const char *source; /* for events without one */
    uint64_t rate;      /* a second; 0: as fast as it goes */
    FILE *rejects;      /* or NULL */
    bool progress;
    int64_t began_ms, shown_ms;

    pthread_mutex_t lock; /* over all below */
    counts count;
} job;

/* One event under way. */
typedef struct sending {
    job *of;
    uint64_t number;
    char *text; /* owned; only where rejects are kept */
} sending;

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static int64_t now_ms(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* ---- answers ------------------------------------------------------------------------------- */

/* The lock is held. Some are told one by one, all are counted. */
static void reject(job *it, uint64_t number, const char *text, const char *reason) {
    it->count.refused++;
    if (it->rejects && text)
        (void)fprintf(it->rejects, "%s%s", text, strchr(text, '\n') ? "" : "\n");
    if (it->count.refused > REFUSALS_SHOWN) return;
    (void)fprintf(stderr, "%s%llu: %s\n", it->progress ? "\r\033[K" : "",
                  (unsigned long long)number, reason);
    if (it->count.refused == REFUSALS_SHOWN) (void)fprintf(stderr, "... and so on\n");
}

static void answered(void *arg, const ingest_result *result) {
    sending *one = arg;
    job *it = one->of;
    (void)pthread_mutex_lock(&it->lock);
    it->count.moved += result->moved;
    if (result->status == INGEST_OK) {
        it->count.stored++;
        it->count.duplicates += result->duplicate;
    } else if (result->maybe_stored || result->retry) {
        if (it->count.unanswered++ == 0)
            (void)fprintf(stderr, "%llu: %s\n", (unsigned long long)one->number, result->reason);
    } else {
        reject(it, one->number, one->text, result->reason);
    }
    (void)pthread_mutex_unlock(&it->lock);
    free(one->text);
    free(one);
}

/* ---- sending ------------------------------------------------------------------------------- */

static void send_event(job *it, ingest_event *event) {
    ingest_result result;
    const char *text = it->rejects ? input_text(it->in) : NULL;
    sending *one = malloc(sizeof *one);
    if (!one) abort();
    *one = (sending){.of = it, .number = input_number(it->in), .text = text ? strdup(text) : NULL};
    if (it->source && !ingest_event_error(event) && !event_message(event)->source[0])
        event_set_source(event, it->source);
    const ingest_status status =
        ingest_publish_async(it->publisher, event, UINT32_MAX, answered, one, &result);
    it->count.sent++;
    if (status == INGEST_OK) return;
    (void)pthread_mutex_lock(&it->lock);
    reject(it, one->number, one->text, result.reason);
    (void)pthread_mutex_unlock(&it->lock);
    free(one->text);
    free(one);
}

static void show_progress(job *it, bool last) {
    const int64_t now = now_ms();
    if (!it->progress || (!last && now - it->shown_ms < PROGRESS_MS)) return;
    it->shown_ms = now;
    (void)pthread_mutex_lock(&it->lock);
    const counts count = it->count;
    (void)pthread_mutex_unlock(&it->lock);
    const double seconds = (double)(now - it->began_ms + 1) / 1000, part = input_progress(it->in);
    char bar[31] = "";
    if (part >= 0) {
        memset(bar, '.', sizeof bar - 1);
        memset(bar, '#', (size_t)(part * (sizeof bar - 1)));
    }
    (void)fprintf(stderr, "\r\033[K%s %llu stored, %llu refused, %.0f/s%s", bar,
                  (unsigned long long)count.stored, (unsigned long long)count.refused,
                  (double)count.stored / seconds, last ? "\n" : "");
}

/* Until the time of the next one, by the rate; short enough for ^C and the progress. */
static void keep_pace(job *it) {
    while (it->rate && !interrupted) {
        const int64_t due_ms = it->began_ms + (int64_t)(it->count.sent * 1000 / it->rate);
        const int64_t left_ms = due_ms - now_ms();
        if (left_ms <= 0) return;
        const long ms = left_ms < PROGRESS_MS ? (long)left_ms : PROGRESS_MS;
        const struct timespec pause = {.tv_nsec = ms * 1000000};
        (void)nanosleep(&pause, NULL);
        show_progress(it, false);
    }
}

static void send_all(job *it) {
    ingest_event *event;
    while (!interrupted && (event = input_next(it->in)) != NULL) {
        keep_pace(it);
        send_event(it, event);
        ingest_event_free(event);
        show_progress(it, false);
    }
    while (!ingest_flush(it->publisher, PROGRESS_MS)) /* each is answered by its own time-out */
        show_progress(it, false);
    show_progress(it, true);
}

/* ---- the end ------------------------------------------------------------------------------- */

static void print_counts(const job *it) {
    const counts *all = &it->count;
    const unsigned long long stored = all->stored, twice = all->duplicates, refused = all->refused,
                             unsure = all->unanswered, moved = all->moved;
    const double seconds = (double)(now_ms() - it->began_ms) / 1000;
    if (flag(it->given, "json"))
        (void)printf("{\"stored\":%llu,\"duplicates\":%llu,\"refused\":%llu,\"unanswered\":%llu,"
                     "\"moved\":%llu,\"seconds\":%.3f,\"interrupted\":%s}\n",
                     stored, twice, refused, unsure, moved, seconds,
                     interrupted ? "true" : "false");
    else
        (void)printf("%llu stored (%llu were there already), %llu refused, %llu unanswered, in "
                     "%.1f s\n",
                     stored, twice, refused, unsure, seconds);
    if (interrupted || unsure)
        (void)fprintf(stderr, "not all was sent and answered; the same command again goes on, and "
                              "stores no event twice if they have ids, or come from a file\n");
}

static int exit_code(const job *it) {
    if (input_failed(it->in)) return complain(it->given, EX_IOERR, "the input cannot be read");
    if (it->count.unanswered) return EX_UNAVAILABLE;
    if (it->count.refused) return EX_DATAERR;
    return interrupted ? EX_TEMPFAIL : EX_OK;
}

static bool take_catalogue(const arguments *given, ingest_publisher_options *options) {
    static char text[1 << 20];
    char why[512];
    const char *path = argument(given, "catalogue");
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!path) return true;
    const size_t len = file ? fread(text, 1, sizeof text, file) : 0;
    if (file) (void)fclose(file);
    options->catalogue = len ? ingest_catalogue_parse(text, len, why, sizeof why) : NULL;
    if (options->catalogue) return true;
    return complain(given, 0, "--catalogue: %s: %s", path, len ? why : "cannot be read");
}

static bool take_options(const arguments *given, ingest_publisher_options *options, job *it) {
    uint64_t window;
    const char *ack = argument(given, "ack");
    if (!connection_options(given, options) || !take_catalogue(given, options)) return false;
    if (!argument_number(given, "rate", 0, 1, 10000000, &it->rate)) return false;
    if (!argument_number(given, "window", options->window, 1, 1 << 20, &window)) return false;
    options->window = (uint32_t)window;
    if (ack && strcmp(ack, "persisted") != 0 && strcmp(ack, "published") != 0)
        return complain(given, 0, "--ack: persisted or published");
    options->ack = ack && strcmp(ack, "published") == 0 ? INGEST_PUBLISHED : INGEST_PERSISTED;
    it->source = argument(given, "source");
    return true;
}

static int publish(job *it, ingest_publisher_options *options) {
    const char *path = it->given->operand_count ? it->given->operands[0] : "-";
    const char *rejects = argument(it->given, "rejects");
    ingest_error error;
    it->in = input_open(path, argument(it->given, "id-prefix"));
    if (!it->in) return complain(it->given, EX_NOINPUT, "%s: %s", path, strerror(errno));
    int code = EX_USAGE;
    if (rejects && !(it->rejects = fopen(rejects, "we")))
        code = complain(it->given, EX_IOERR, "%s: %s", rejects, strerror(errno));
    else if (!(it->publisher = ingest_publisher_open(options, &error)))
        (void)complain(it->given, EX_USAGE, "%s", error.reason);
    if (it->publisher) {
        send_all(it);
        ingest_publisher_close(it->publisher, 0);
        print_counts(it);
        code = exit_code(it);
    }
    if (it->rejects && fclose(it->rejects) != 0) code = EX_IOERR;
    input_close(it->in);
    return code;
}

static int run(const arguments *given) {
    job it = {.given = given, .progress = isatty(STDERR_FILENO), .began_ms = now_ms()};
    ingest_publisher_options options;
    if (!take_options(given, &options, &it)) return EX_USAGE;
    (void)pthread_mutex_init(&it.lock, NULL);
    const struct sigaction stop = {.sa_handler = interrupt};
    (void)sigaction(SIGINT, &stop, NULL);
    (void)sigaction(SIGTERM, &stop, NULL);
    const int code = publish(&it, &options);
    (void)pthread_mutex_destroy(&it.lock);
    ingest_catalogue_free((ingest_catalogue *)(uintptr_t)options.catalogue);
    return code;
}

static const command_option OPTIONS[] = {
    {"source", "SOURCE", "of events that name none"},
    {"rate", "N", "at most so many events a second"},
    {"ack", "WHAT", "persisted (default): on the server's disk; published: in Kafka"},
    {"window", "N", "events unanswered at a time; default 4096"},
    {"id-prefix", "TEXT", "of ids for events that have none, instead of a hash of the file"},
    {"rejects", "FILE", "lines that were refused are written there"},
    {"catalogue", "FILE", "checks names of events before sending"},
    {"json", NULL, "the counts as JSON"},
    {0}};

const command COMMAND_PUBLISH = {
    .group = "",
    .name = "publish",
    .operands = "[FILE]",
    .most = 1,
    .summary = "publish events from a file or standard input",
    .help =
        "Reads events as JSON, the way grpcurl takes them: one a line, or one document with an\n"
        "event or a list of them. Each is sent until it is answered, within --timeout. Refused\n"
        "ones are told by their line on stderr, and the rest goes on.\n"
        "\n"
        "Events without an id get one made of a hash of the file and their line. So after an\n"
        "interruption the same command may simply be run again: what is stored already is not\n"
        "stored twice. A pipe is not read twice: give ids, or --id-prefix, for the same safety.",
    .example = "  ingestctl publish --source shop orders.jsonl\n"
               "  echo '{\"source\":\"shop\",\"transaction\":{\"operations\":"
               "[{\"name\":\"create_user\"}]}}' | ingestctl publish",
    .options = OPTIONS,
    .online = true,
    .run = run,
};
