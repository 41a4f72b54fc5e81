/*
 * ingestd's entry: configuration, signals, and the once-a-second tick. SIGTERM and SIGINT stop
 * gracefully, a second one at once. Exit codes (sysexits.h): 0 stopped, 78 configuration, or the
 * store is of a newer version, 74 the store cannot be written, 65 the store is damaged, 70 anything
 * else at start.
 */
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "server/ingestd.h"

/* All threads are made later and inherit the mask: only main waits for signals. */
static sigset_t block_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    return set;
}

static void *end_at_once(void *set) {
    int received;
    if (sigwait(set, &received) == 0) _exit(128 + received);
    return NULL;
}

static int run_until_signal(ingestd *it, const sigset_t *set) {
    const struct timespec second = {.tv_sec = 1};
    for (;;) {
        const int received = sigtimedwait(set, NULL, &second);
        if (received > 0) return received;
        if (errno == EAGAIN) ingestd_tick(it);
    }
}

static int exit_code(outcome result) {
    switch (result) {
    case ST_INVALID:
    case ST_TOO_LARGE:
    case ST_PRECONDITION:
        return EX_CONFIG;
    case ST_CORRUPT:
        return EX_DATAERR;
    case ST_IO:
        return EX_IOERR;
    default:
        return EX_SOFTWARE;
    }
}

/* ---- trial ----------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

static outcome make_trial_folder(config *all, failure *why) {
    const char *parent = getenv("TMPDIR");
    (void)snprintf(all->data_dir, sizeof all->data_dir, "%s/ingest-trial-XXXXXX",
                   parent && parent[0] ? parent : "/tmp");
    if (!mkdtemp(all->data_dir))
        return fail(why, ST_IO, "data_dir", "cannot make %s", all->data_dir);
    return ST_OK;
}

static outcome announce_trial(const ingestd *it, failure *why) {
    const char *brokers = it->config.kafka.brokers;
    const char *file = it->config.trial_address_file;
    if (file[0]) {
        FILE *out = fopen(file, "w");
        if (!out) return fail(why, ST_IO, "trial-address-file", "cannot write %s", file);
        const bool written = fprintf(out, "%s\n", brokers) > 0;
        if (fclose(out) != 0 || !written)
            return fail(why, ST_IO, "trial-address-file", "cannot write %s", file);
    }
    printf(
        "\nA trial: Kafka is a mock inside this process, at %s\n"
        "It keeps records in memory only, knows neither aborted transactions nor compaction, and\n"
        "ends with the process; so does the data folder. For the real thing: --kafka host:port\n\n",
        brokers);
    (void)fflush(stdout);
    return ST_OK;
}

/* ---------------------------------------------------------------------------------------- */

static int serve(ingestd *it, failure *why) {
    static sigset_t signals; /* outlives this function for the thread below */
    signals = block_signals();
    outcome result = it->config.trial ? make_trial_folder(&it->config, why) : ST_OK;
    if (result == ST_OK) result = ingestd_start(it, why);
    if (result == ST_OK && it->config.trial) {
        result = announce_trial(it, why);
        if (result != ST_OK) ingestd_stop(it);
    }
    if (result == ST_OK) {
        const int received = run_until_signal(it, &signals);
        log_line(LOG_INFO, "stopping", "signal=%d grace_ms=%llu", received,
                 (unsigned long long)it->config.shutdown_grace_ms);
        pthread_t impatient;
        if (pthread_create(&impatient, NULL, end_at_once, &signals) == 0) pthread_detach(impatient);
        ingestd_stop(it);
        log_line(LOG_INFO, "stopped", "");
    }
    if (it->config.trial && it->config.data_dir[0])
        (void)nftw(it->config.data_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return result == ST_OK ? EX_OK : exit_code(result);
}

int main(int argc, char **argv) {
    static ingestd server;
    failure why = {0};
    config_action action;
    int code = EX_OK;
    if (config_load(&server.config, argc, argv, environ, &action, &why) != ST_OK) {
        code = EX_CONFIG;
    } else if (action == CONFIG_CHECK) {
        config_print(&server.config);
    } else if (action == CONFIG_RUN) {
        log_setup(server.config.log.level, server.config.log.format);
        code = serve(&server, &why);
    }
    if (code != EX_OK)
        (void)fprintf(stderr, "ingestd: %s%s%s\n", why.field, why.field[0] ? ": " : "", why.reason);
    config_free(&server.config);
    return code;
}
