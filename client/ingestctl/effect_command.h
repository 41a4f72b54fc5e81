/*
 * effect_command: runs a command of the user's for one effect: the payload on its stdin, what the
 * effect is in its environment (INGEST_SOURCE, INGEST_EVENT_ID …, see effect_command.c). Its exit
 * code is the verdict: 0 done, 65 (EX_DATAERR) final, anything else to be tried again. The last
 * line that it writes to stderr is the reason; all of stderr goes to ours as well, and its stdout
 * is ours.
 *
 * Any number of threads at once; blocks until the command has ended. The process must ignore
 * SIGPIPE: a command need not read its stdin. It runs in a process group of its own, so that ^C
 * asks us alone to stop, and a command that takes too long is ended with all that it started.
 */
#ifndef INGEST_CLIENT_INGESTCTL_EFFECT_COMMAND_H
#define INGEST_CLIENT_INGESTCTL_EFFECT_COMMAND_H

#include "ingest/consumer.h"
#include "storage/bytes.h"

typedef struct effect_command {
    char *const *argv;   /* ends with NULL; the first is looked up in PATH */
    uint32_t timeout_ms; /* then SIGTERM, and `grace_ms` later SIGKILL; 0: none */
    uint32_t grace_ms;
} effect_command;

/* Codes in `trouble`: "exit_N", "signal_N", "timeout", "not_started". */
ingest_verdict effect_command_run(const effect_command *self, const ingest_effect *effect,
                                  bytes payload, ingest_trouble *trouble);

#endif
