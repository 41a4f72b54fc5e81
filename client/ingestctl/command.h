/*
 * command: what a command of ingestctl is. Each stands in a file of its own and in the table in
 * main.c; to add one, write both.
 */
#ifndef INGEST_CLIENT_INGESTCTL_COMMAND_H
#define INGEST_CLIENT_INGESTCTL_COMMAND_H

#include "storage/offline.h"

#include <stdio.h>
#include <sysexits.h>

typedef struct command {
    const char *group; /* "store" in `ingestctl store verify` */
    const char *name;
    const char *arguments; /* for the usage line */
    const char *summary;   /* one line */
    const char *help;      /* what it does, its options, an example */
    /* argv[0] is the name. Returns the exit code; EX_USAGE makes main print the usage. */
    int (*run)(int argc, char **argv);
} command;

extern const command COMMAND_STORE_VERIFY;
extern const command COMMAND_STORE_REPAIR;
extern const command COMMAND_STORE_RESTORE;

/* Says on stderr why a command failed; the exit code for it. */
int command_failed(const char *command, const failure *why);

/* A JSON string with its quotes. */
void print_json_text(FILE *out, const char *text);

/* The survey for people or as one JSON object. `directory` as the operator typed it. */
void print_survey(FILE *out, const char *directory, const store_survey *survey);
void print_survey_json(FILE *out, const char *directory, const store_survey *survey);

#endif
