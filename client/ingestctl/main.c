/*
 * ingestctl: the operator's tool. Finds the command in the table, prints help, and nothing else;
 * one thread. Exit codes are those of sysexits.h: see HELP.
 */
#include "client/ingestctl/command.h"

#include <stdlib.h>
#include <string.h>

static const command *const COMMANDS[] = {
    &COMMAND_STORE_VERIFY,
    &COMMAND_STORE_REPAIR,
    &COMMAND_STORE_RESTORE,
};
enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS };

static const char EXIT_CODES[] = "exit codes\n"
                                 "  0   done, and all is well\n"
                                 "  64  the command line is wrong\n"
                                 "  65  the store is damaged, or something has to be accepted "
                                 "first; nothing was changed\n"
                                 "  66  there is no store\n"
                                 "  70  an error that should not be\n"
                                 "  74  reading or writing failed\n"
                                 "  75  the folder is in use: stop the server first\n"
                                 "  78  the store was written by a newer version\n";

static void print_commands(FILE *out) {
    (void)fprintf(out, "usage: ingestctl GROUP COMMAND [OPTION...]\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++) {
        const command *it = COMMANDS[i];
        (void)fprintf(out, "  %s %-8s %s\n", it->group, it->name, it->summary);
    }
    (void)fprintf(out,
                  "\n  ingestctl GROUP COMMAND --help tells more; ingestctl --version\n\n"
                  "%s",
                  EXIT_CODES);
}

static void print_usage(FILE *out, const command *it) {
    (void)fprintf(out, "usage: ingestctl %s %s %s\n\n%s\n%s", it->group, it->name, it->arguments,
                  it->help, EXIT_CODES);
}

static const command *find_command(const char *group, const char *name) {
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(COMMANDS[i]->group, group) == 0 && strcmp(COMMANDS[i]->name, name) == 0)
            return COMMANDS[i];
    return NULL;
}

static bool asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

int command_failed(const char *name, const failure *why) {
    (void)fprintf(stderr, "ingestctl %s: %s\n", name, why->reason);
    switch (why->code) {
    case ST_CORRUPT:
        return EX_DATAERR;
    case ST_NOT_FOUND:
        return EX_NOINPUT;
    case ST_IO:
        return EX_IOERR;
    case ST_UNAVAILABLE:
        return EX_TEMPFAIL;
    case ST_PRECONDITION:
        return strcmp(why->field, "format") == 0 ? EX_CONFIG : EX_DATAERR;
    default:
        return EX_SOFTWARE;
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)printf("ingestctl %s\n", INGEST_VERSION);
        return EX_OK;
    }
    const command *it = argc >= 3 ? find_command(argv[1], argv[2]) : NULL;
    if (!it) {
        bool help = argc == 1 || asks_for_help(argc, argv);
        print_commands(help ? stdout : stderr);
        return help ? EX_OK : EX_USAGE;
    }
    if (asks_for_help(argc - 2, argv + 2)) {
        print_usage(stdout, it);
        return EX_OK;
    }
    int code = it->run(argc - 2, argv + 2);
    if (code == EX_USAGE) print_usage(stderr, it);
    return code;
}
