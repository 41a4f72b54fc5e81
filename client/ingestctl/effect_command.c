/*
 * One loop over three descriptors: the payload into stdin, stderr out, and the end of the process
 * (a pidfd). Whatever the command does with its pipes, its end or the time-out ends the loop. A
 * process that it left behind may keep stderr open: that is not waited for.
 */
#include "client/ingestctl/effect_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "storage/clock.h"

/* ---- environment ---------------------------------------------------------------------------- */

enum { VARIABLES = 12 };

static const char *kind_text(ingest_effect_kind kind) {
    static const char *const TEXTS[] = {[INGEST_INDEX] = "index",
                                        [INGEST_TABLE] = "table",
                                        [INGEST_OPERATION] = "operation",
                                        [INGEST_NOTICE] = "notice",
                                        [INGEST_ANY] = "any"};
    return TEXTS[kind];
}

static char *variable(const char *name, const char *value) {
    char *text;
    if (asprintf(&text, "%s=%s", name, value) < 0) abort();
    return text;
}

static char *variable_number(const char *name, uint32_t value) {
    char text[16];
    (void)snprintf(text, sizeof text, "%u", value);
    return variable(name, text);
}

static void list_variables(const ingest_effect *effect, char *variables[VARIABLES]) {
    char *const all[VARIABLES] = {
        variable("INGEST_SOURCE", effect->source),
        variable("INGEST_EVENT_ID", effect->event_id),
        variable("INGEST_EVENT_TYPE", effect->event_type),
        variable("INGEST_KEY", effect->key),
        variable("INGEST_OPERATION", effect->operation),
        variable_number("INGEST_OPERATION_INDEX", effect->operation_index),
        variable("INGEST_EFFECT_KIND", kind_text(effect->kind)),
        variable("INGEST_EFFECT", effect->name),
        variable_number("INGEST_EFFECT_INDEX", effect->effect_index),
        variable("INGEST_ENTITY_ID", effect->entity_id),
        variable("INGEST_IDEMPOTENCY_KEY", effect->idempotency_key),
        variable_number("INGEST_ATTEMPT", effect->attempt),
    };
    memcpy(variables, all, sizeof all);
}

static bool is_ours(const char *entry, char *const variables[VARIABLES]) {
    size_t name = strcspn(entry, "=") + 1;
    for (int i = 0; i < VARIABLES; i++)
        if (strncmp(entry, variables[i], name) == 0) return true;
    return false;
}

/* Ours in place of any of the same names. The array is owned, what it holds is borrowed. */
static char **make_environment(char *const variables[VARIABLES]) {
    size_t count = 0;
    while (environ[count])
        count++;
    char **all = malloc((count + VARIABLES + 1) * sizeof *all);
    if (!all) abort();
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!is_ours(environ[i], variables)) all[kept++] = environ[i];
    memcpy(all + kept, variables, VARIABLES * sizeof *all);
    all[kept + VARIABLES] = NULL;
    return all;
}

/* ---- the process ---------------------------------------------------------------------------- */

enum { TAIL_SIZE = 1024 };

typedef struct process {
    pid_t id;
    int end;    /* a pidfd: readable when it has ended */
    int input;  /* -1: closed */
    int errors; /* -1: closed */
    bytes payload;
    char tail[TAIL_SIZE]; /* the last of its stderr */
    size_t tail_len;
    int64_t until_ms; /* of this step; INT64_MAX: none */
    int next_signal;  /* then; 0: it was killed already */
    bool timed_out;
} process;

static void close_if_open(int *file) {
    if (*file >= 0) (void)close(*file);
    *file = -1;
}

/* In the child: pipes in place, a group of its own, no signal blocked or ignored. */
static int spawn(const effect_command *self, char *const *environment, const int input[2],
                 const int errors[2], pid_t *id) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t standard;
    (void)sigemptyset(&none);
    (void)sigemptyset(&standard);
    (void)sigaddset(&standard, SIGPIPE);
    (void)sigaddset(&standard, SIGINT);
    (void)sigaddset(&standard, SIGTERM);
    if (posix_spawn_file_actions_init(&actions) != 0) abort();
    if (posix_spawnattr_init(&attributes) != 0) abort();
    int error = posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
    if (!error) error = posix_spawn_file_actions_adddup2(&actions, errors[1], STDERR_FILENO);
    if (!error) error = posix_spawnattr_setsigmask(&attributes, &none);
    if (!error) error = posix_spawnattr_setsigdefault(&attributes, &standard);
    if (!error) error = posix_spawnattr_setpgroup(&attributes, 0);
    if (!error)
        error = posix_spawnattr_setflags(
            &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    if (!error)
        error = posix_spawnp(id, self->argv[0], &actions, &attributes, self->argv, environment);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return error;
}

static int reap(pid_t id) {
    int status = 0;
    while (waitpid(id, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

static void end_at_once(pid_t id) {
    (void)kill(-id, SIGKILL);
    (void)reap(id);
}

static void set_nonblocking(int file) { (void)fcntl(file, F_SETFL, O_NONBLOCK); }

/* 0, or the errno that says why it did not start. */
static int start(process *it, const effect_command *self, const ingest_effect *effect) {
    int input[2] = {-1, -1};
    int errors[2] = {-1, -1};
    char *variables[VARIABLES];
    int error = pipe2(input, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC) != 0 ? errno : 0;
    if (!error) {
        list_variables(effect, variables);
        char **environment = make_environment(variables);
        error = spawn(self, environment, input, errors, &it->id);
        free(environment);
        for (int i = 0; i < VARIABLES; i++)
            free(variables[i]);
    }
    close_if_open(&input[0]);
    close_if_open(&errors[1]);
    it->input = input[1];
    it->errors = errors[0];
    if (!error) {
        set_nonblocking(it->input);
        set_nonblocking(it->errors);
        it->end = pidfd_open(it->id, 0);
        if (it->end < 0) { /* no descriptor left, or a kernel before 5.3 */
            error = errno;
            end_at_once(it->id);
        }
    }
    return error;
}

static bool passing(ssize_t done) { return done < 0 && (errno == EAGAIN || errno == EINTR); }

/* A command that does not want its stdin has closed it: so be it. */
static void feed(process *it) {
    ssize_t done = write(it->input, it->payload.data, it->payload.len);
    if (passing(done)) return;
    if (done > 0) it->payload = bytes_of(it->payload.data + done, it->payload.len - (size_t)done);
    if (done < 0 || it->payload.len == 0) close_if_open(&it->input);
}

/* False: there is no more at the moment. */
static bool take_errors(process *it) {
    char text[TAIL_SIZE];
    ssize_t got = read(it->errors, text, sizeof text);
    if (passing(got)) return false;
    if (got <= 0) {
        close_if_open(&it->errors);
        return false;
    }
    (void)fwrite(text, 1, (size_t)got, stderr);
    size_t keep = TAIL_SIZE - (size_t)got < it->tail_len ? TAIL_SIZE - (size_t)got : it->tail_len;
    memmove(it->tail, it->tail + it->tail_len - keep, keep);
    memcpy(it->tail + keep, text, (size_t)got);
    it->tail_len = keep + (size_t)got;
    return true;
}

static void run_out(process *it, const effect_command *self) {
    it->timed_out = true;
    (void)kill(-it->id, it->next_signal);
    it->until_ms = it->next_signal == SIGTERM ? clock_monotonic_ms() + self->grace_ms : INT64_MAX;
    it->next_signal = SIGKILL;
}

/* At most a minute: then it looks again. */
static int wait_ms(const process *it) {
    const int64_t left_ms = it->until_ms - clock_monotonic_ms();
    if (left_ms > 60000) return 60000;
    return left_ms > 0 ? (int)left_ms : 0;
}

/* Until it has ended; gives its wait status. */
static int attend(process *it, const effect_command *self) {
    for (;;) {
        struct pollfd files[] = {{.fd = it->end, .events = POLLIN},
                                 {.fd = it->input, .events = POLLOUT},
                                 {.fd = it->errors, .events = POLLIN}};
        const int ready = poll(files, sizeof files / sizeof *files, wait_ms(it));
        if (ready > 0 && files[1].revents) feed(it);
        if (ready > 0 && files[2].revents) (void)take_errors(it);
        if (ready > 0 && files[0].revents) break;
        if (clock_monotonic_ms() >= it->until_ms) run_out(it, self);
    }
    for (int i = 0; i < TAIL_SIZE && it->errors >= 0 && take_errors(it); i++)
        continue;
    if (it->timed_out) (void)kill(-it->id, SIGKILL); /* what it has started */
    return reap(it->id);
}

/* ---- verdicts ------------------------------------------------------------------------------- */

/* The last line that is not empty. */
static bytes last_line(const process *it) {
    size_t end = it->tail_len;
    while (end > 0 && (it->tail[end - 1] == '\n' || it->tail[end - 1] == '\r'))
        end--;
    size_t begin = end;
    while (begin > 0 && it->tail[begin - 1] != '\n')
        begin--;
    return bytes_of(it->tail + begin, end - begin);
}

static ingest_verdict judge(const process *it, const effect_command *self, int status,
                            ingest_trouble *trouble) {
    const bool exited = WIFEXITED(status);
    const int code = exited ? WEXITSTATUS(status) : WTERMSIG(status);
    if (it->timed_out) {
        (void)snprintf(trouble->code, sizeof trouble->code, "timeout");
        (void)snprintf(trouble->reason, sizeof trouble->reason, "took longer than %u ms",
                       self->timeout_ms);
        return INGEST_RETRY;
    }
    if (exited && code == EX_OK) return INGEST_DONE;
    bytes line = last_line(it);
    (void)snprintf(trouble->code, sizeof trouble->code, exited ? "exit_%d" : "signal_%d", code);
    if (line.len > 0)
        (void)snprintf(trouble->reason, sizeof trouble->reason, "%.*s", (int)line.len,
                       (const char *)line.data);
    else
        (void)snprintf(trouble->reason, sizeof trouble->reason,
                       exited ? "exit code %d" : "ended by signal %d", code);
    return exited && code == EX_DATAERR ? INGEST_FINAL : INGEST_RETRY;
}

ingest_verdict effect_command_run(const effect_command *self, const ingest_effect *effect,
                                  bytes payload, ingest_trouble *trouble) {
    process it = {.input = -1, .errors = -1, .end = -1, .payload = payload, .until_ms = INT64_MAX};
    ingest_verdict verdict = INGEST_RETRY;
    int error = start(&it, self, effect);
    if (error) {
        (void)snprintf(trouble->code, sizeof trouble->code, "not_started");
        (void)snprintf(trouble->reason, sizeof trouble->reason, "%.400s: %s", self->argv[0],
                       strerror(error));
    } else {
        it.next_signal = SIGTERM;
        if (self->timeout_ms) it.until_ms = clock_monotonic_ms() + self->timeout_ms;
        verdict = judge(&it, self, attend(&it, self), trouble);
    }
    close_if_open(&it.input);
    close_if_open(&it.errors);
    close_if_open(&it.end);
    return verdict;
}
