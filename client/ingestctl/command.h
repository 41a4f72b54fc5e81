/*
 * command: what a command of ingestctl is. Each stands in a file of its own and in the table in
 * main.c; to add one, write both. Its options are declared once, in its own table: parsing
 * (arguments.c), help and manual page (help.c) and completion (completion.c) are made from there.
 *
 * What commands share: `connection` for a call to the server, `input` for events in JSON, `output`
 * for tables and JSON, `stop` for ^C, `latency` for quantiles. Results go to stdout, what went
 * wrong to stderr, and the exit code says of which kind it was (help.c).
 */
#ifndef INGEST_CLIENT_INGESTCTL_COMMAND_H
#define INGEST_CLIENT_INGESTCTL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sysexits.h>

#include "storage/status.h"

typedef struct command_option {
    const char *name;     /* "rate" in --rate=N */
    const char *argument; /* "N"; "[ID]" when it may be left out; NULL: a flag */
    const char *help;     /* one line */
} command_option;

typedef struct arguments arguments;

typedef struct command {
    const char *group; /* "store" in `ingestctl store verify`; "": none */
    const char *name;
    const char *operands;               /* for the usage line */
    int least, most;                    /* operands; most -1: any number */
    const char *summary;                /* one line */
    const char *help;                   /* paragraphs */
    const char *example;                /* lines */
    const command_option *options;      /* ends with an empty one; NULL: none */
    bool online;                        /* talks to a server: has the options of connection, too */
    int (*run)(const arguments *given); /* returns the exit code */
} command;

extern const command COMMAND_PUBLISH, COMMAND_STATUS, COMMAND_BACKLOG, COMMAND_TAIL,
    COMMAND_CONSUME, COMMAND_BENCH, COMMAND_COMPLETION, COMMAND_DEAD_LIST, COMMAND_DEAD_SHOW,
    COMMAND_DEAD_REPLAY, COMMAND_DEAD_PURGE, COMMAND_FAILED_LIST, COMMAND_FAILED_SHOW,
    COMMAND_FAILED_RETRY, COMMAND_FAILED_DISCARD, COMMAND_FAILED_EXPORT, COMMAND_STORE_VERIFY,
    COMMAND_STORE_REPAIR, COMMAND_STORE_RESTORE;

extern const command *const COMMANDS[]; /* ends with NULL */
extern const command_option CONNECTION_OPTIONS[];
extern const command_option JSON_OPTION; /* --json, the same everywhere */

/* ---- what was given ------------------------------------------------------------------------ */

enum { ARGUMENTS_MAX = 64 };

struct arguments {
    const command *of;
    struct {
        const char *name, *value; /* value: "" for a flag */
    } options[ARGUMENTS_MAX];
    size_t option_count;
    char **operands;
    int operand_count;
};

/* argv[0] is the command's name. False: said on stderr. */
bool arguments_parse(const command *of, int argc, char **argv, arguments *out);
/* The last value of an option; NULL: not given. */
const char *argument(const arguments *given, const char *name);
bool flag(const arguments *given, const char *name);
/* `fallback` when it was not given. False: it is no number within the bounds, said on stderr. */
bool argument_number(const arguments *given, const char *name, uint64_t fallback, uint64_t least,
                     uint64_t most, uint64_t *out);
/* A whole text as a number; false: it is none. */
bool parse_number(const char *text, uint64_t *out);

/* ---- help ---------------------------------------------------------------------------------- */

void print_overview(FILE *out, const char *group); /* NULL: of all commands */
void print_usage(FILE *out, const command *it);
void print_manual(FILE *out); /* ingestctl(1), in roff */

/* "store verify" */
const char *command_title(const command *it);
/* "ingestctl TITLE: ..." on stderr; returns `code`. */
int complain(const arguments *given, int code, const char *format, ...) PRINTF_LIKE(3, 4);
/* Says on stderr why a command on a store failed; the exit code for it. */
int store_failed(const arguments *given, const failure *why);

#endif
