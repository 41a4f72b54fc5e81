/*
 * ingestctl publish: events from a file or standard input, through the publishing library. The main
 * thread reads and sends; the library's own counts the answers, and the lock is between the two.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/ingestctl/connection.h"
#include "client/ingestctl/input.h"
#include "client/ingestctl/output.h"
#include "client/ingestctl/stop.h"
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
    ingest_status halt; /* INGEST_OK, or what stands in the way of all that follow, too */
} job;

/* One event under way. */
typedef struct sending {
    job *of;
    uint64_t number;
    char *text; /* owned; only where rejects are kept */
} sending;

static int64_t now_ms(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* ---- answers ------------------------------------------------------------------------------- */

/* The lock is held, as for the next two. */
static void say(const job *it, uint64_t number, const char *reason) {
    (void)fprintf(stderr, "%s%llu: %s\n", it->progress ? "\r\033[K" : "",
                  (unsigned long long)number, reason);
}

/* Some are told one by one, all are counted. */
static void reject(job *it, const sending *one, const ingest_result *result) {
    it->count.refused++;
    if (it->rejects && one->text && !result->maybe_stored)
        (void)fprintf(it->rejects, "%s%s", one->text, strchr(one->text, '\n') ? "" : "\n");
    if (it->count.refused <= REFUSALS_SHOWN) say(it, one->number, result->reason);
    if (it->count.refused == REFUSALS_SHOWN) (void)fprintf(stderr, "... and so on\n");
}

static void count_result(job *it, const sending *one, const ingest_result *result) {
    it->count.moved += result->moved;
    switch (result->status) {
    case INGEST_OK:
        it->count.stored++;
        it->count.duplicates += result->duplicate;
        break;
    case INGEST_DENIED:
    case INGEST_UNSUPPORTED: /* the server's word on all of them */
        it->halt = result->status;
        reject(it, one, result);
        break;
    case INGEST_INVALID:
    case INGEST_CONFLICT:
    case INGEST_DEAD:
        reject(it, one, result);
        break;
    case INGEST_TIMEOUT: /* going on would put later events of a key before this one */
        it->halt = result->status;
        /* fall through */
    default:
        if (it->count.unanswered++ == 0) say(it, one->number, result->reason);
    }
}

static void answered(void *arg, const ingest_result *result) {
    sending *one = arg;
    job *it = one->of;
    (void)pthread_mutex_lock(&it->lock);
    count_result(it, one, result);
    (void)pthread_mutex_unlock(&it->lock);
    free(one->text);
    free(one);
}

/* ---- sending ------------------------------------------------------------------------------- */

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

static bool must_stop(job *it) {
    (void)pthread_mutex_lock(&it->lock);
    const bool halted = it->halt != INGEST_OK;
    (void)pthread_mutex_unlock(&it->lock);
    return halted || stop_asked();
}

/* Until the time of the next one, by the rate. False: to be stopped. */
static bool keep_pace(job *it) {
    int64_t left_ms = 0;
    while (!must_stop(it)) {
        if (it->rate)
            left_ms = it->began_ms + (int64_t)(it->count.sent * 1000 / it->rate) - now_ms();
        if (left_ms <= 0) return true;
        const long ms = left_ms < PROGRESS_MS ? (long)left_ms : PROGRESS_MS;
        const struct timespec pause = {.tv_nsec = ms * 1000000};
        (void)nanosleep(&pause, NULL);
        show_progress(it, false);
    }
    return false;
}

static sending *sending_new(job *it) {
    const char *text = it->rejects ? input_text(it->in) : NULL;
    sending *one = malloc(sizeof *one);
    if (!one) abort();
    *one = (sending){.of = it, .number = input_number(it->in), .text = text ? strdup(text) : NULL};
    return one;
}

/* Waits for room in the window. False: it was not sent, and no more is to be. */
static bool send_event(job *it, ingest_event *event) {
    ingest_result result;
    sending *one = sending_new(it);
    if (it->source && !ingest_event_error(event) && !event_message(event)->source[0])
        event_set_source(event, it->source);
    ingest_status status;
    do {
        status = ingest_publish_async(it->publisher, event, PROGRESS_MS, answered, one, &result);
        show_progress(it, false);
    } while (status == INGEST_WINDOW_FULL && !must_stop(it));
    if (status == INGEST_OK) {
        it->count.sent++;
        return true;
    }
    const bool refused = status != INGEST_WINDOW_FULL;
    it->count.sent += refused;
    if (refused)
        answered(one, &result);
    else
        free(one->text), free(one);
    return refused;
}

/* Each event is answered by its own time-out at the latest; ^C does not wait for that. */
static void await_answers(job *it) {
    int64_t until_ms = INT64_MAX;
    while (!ingest_flush(it->publisher, PROGRESS_MS) && now_ms() < until_ms) {
        show_progress(it, false);
        if (stop_asked() && until_ms == INT64_MAX) until_ms = now_ms() + STOP_GRACE_MS;
    }
}

static void send_all(job *it) {
    ingest_event *event;
    bool going = true;
    while (going && keep_pace(it) && (event = input_next(it->in)) != NULL) {
        going = !stop_asked() && send_event(it, event);
        ingest_event_free(event);
    }
    await_answers(it);
    ingest_publisher_close(it->publisher, 0);
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
                     stop_asked() ? "true" : "false");
    else
        (void)printf("%llu stored (%llu were there already), %llu refused, %llu unanswered, in "
                     "%.1f s\n",
                     stored, twice, refused, unsure, seconds);
    if (stop_asked() || it->halt != INGEST_OK || unsure)
        (void)fprintf(stderr,
                      "stopped at %llu, and not all was answered; the same command again goes on, "
                      "and stores no event twice if they have ids, or come from a file\n",
                      (unsigned long long)input_number(it->in));
}

static int exit_code(const job *it) {
    if (input_failed(it->in)) return complain(it->given, EX_IOERR, "the input cannot be read");
    if (it->halt != INGEST_OK) return exit_code_of(it->halt);
    if (stop_asked()) return EX_TEMPFAIL;
    if (it->count.unanswered) return EX_UNAVAILABLE;
    return it->count.refused ? EX_DATAERR : EX_OK;
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
    const char *ack = argument(given, "ack"), *prefix = argument(given, "id-prefix");
    if (!connection_options(given, options) || !take_catalogue(given, options)) return false;
    if (!argument_number(given, "rate", 0, 1, 10000000, &it->rate)) return false;
    if (!argument_number(given, "window", options->window, 1, 1 << 20, &window)) return false;
    options->window = (uint32_t)window;
    if (ack && strcmp(ack, "persisted") != 0 && strcmp(ack, "published") != 0)
        return complain(given, 0, "--ack: persisted or published");
    options->ack = ack && strcmp(ack, "published") == 0 ? INGEST_PUBLISHED : INGEST_PERSISTED;
    if (prefix && (!*prefix || strlen(prefix) > INPUT_ID_PREFIX_MAX))
        return complain(given, 0, "--id-prefix: 1 to %d bytes", INPUT_ID_PREFIX_MAX);
    it->source = argument(given, "source");
    return true;
}

static bool is_same_file(const char *one, const char *other) {
    struct stat a, b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static int open_rejects(job *it, const char *input_path) {
    const char *path = argument(it->given, "rejects");
    if (!path) return EX_OK;
    if (is_same_file(path, input_path))
        return complain(it->given, EX_USAGE, "--rejects: %s is the input", path);
    it->rejects = fopen(path, "we");
    return it->rejects ? EX_OK : complain(it->given, EX_IOERR, "%s: %s", path, strerror(errno));
}

static int close_rejects(job *it, int code) {
    if (!it->rejects || fclose(it->rejects) == 0) return code;
    return complain(it->given, EX_IOERR, "--rejects: %s", strerror(errno));
}

static int publish(job *it, const ingest_publisher_options *options) {
    const char *path = it->given->operand_count ? it->given->operands[0] : "-";
    ingest_error error;
    it->in = input_open(path, argument(it->given, "id-prefix"));
    if (!it->in) return complain(it->given, EX_NOINPUT, "%s: %s", path, strerror(errno));
    int code = open_rejects(it, path);
    if (code == EX_OK && !(it->publisher = ingest_publisher_open(options, &error)))
        code = complain(it->given, EX_USAGE, "%s", error.reason);
    if (it->publisher) {
        send_all(it);
        print_counts(it);
        code = exit_code(it);
    }
    code = close_rejects(it, code);
    input_close(it->in);
    return code;
}

static int run(const arguments *given) {
    job it = {.given = given, .progress = isatty(STDERR_FILENO), .began_ms = now_ms()};
    ingest_publisher_options options;
    if (!take_options(given, &options, &it)) return EX_USAGE;
    (void)pthread_mutex_init(&it.lock, NULL);
    stop_on_signals();
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
    {"rejects", "FILE", "lines that were refused are written there, to be corrected"},
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
        "event or a list of them. Each is sent until it is answered, within --timeout; the first\n"
        "that is not ends the command, as does ^C. Refused ones are told by their line on stderr,\n"
        "and the rest goes on.\n"
        "\n"
        "Events without an id get one made of a hash of the file and their line. So after an\n"
        "interruption the same command may simply be run again: what is stored already is not\n"
        "stored twice. A file that was changed is another one: correct what --rejects kept, and\n"
        "publish that. A pipe is not read twice: give ids, or --id-prefix, for the same safety.",
    .example = "  ingestctl publish --source shop orders.jsonl\n"
               "  echo '{\"source\":\"shop\",\"transaction\":{\"operations\":"
               "[{\"name\":\"create_user\"}]}}' | ingestctl publish",
    .options = OPTIONS,
    .online = true,
    .run = run,
};
