/* failed: what the commands on failed events share. */
#ifndef INGEST_CLIENT_INGESTCTL_FAILED_H
#define INGEST_CLIENT_INGESTCTL_FAILED_H

#include "client/ingestctl/command.h"
#include "ingest/consumer.h"

/* clang-format off */
/* Each command's table begins with these. */
#define FAILED_FOLDER_OPTION                                                                       \
    {"data-dir", "DIR", "the consumer's data folder; it may be running or not"}
#define FAILED_FILTER_OPTIONS                                                                      \
    {"id", "ID", "only those of this event id"},                                                   \
    {"operation", "NAME", "only those that stopped at this operation"},                            \
    {"code", "CODE", "only those whose last attempt ended with this code"}
/* clang-format on */

/* NULL: said why on stderr, *code is the exit code. */
ingest_failed_store *failed_open(const arguments *given, int *code);
/* The exit code for what was said of an open store; prints it. */
int failed_complain(const arguments *given, const ingest_error *error);
ingest_failed_filter failed_filter(const arguments *given);
bool failed_has_filter(const arguments *given);

const char *failed_state_text(ingest_failed_state state);
/* As time_text; "-" for 0. */
const char *failed_time_text(int64_t ms);
/* An object on a line of its own; with "event" where it has one. */
void failed_print_json(const ingest_failed_event *event);

#endif
