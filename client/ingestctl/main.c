/*
 * ingestctl: the operator's tool, and a caller's. Finds the command in the table and runs it; one
 * thread. Exit codes are those of sysexits.h: see help.c.
 */
#include <stdlib.h>
#include <string.h>

#include "client/ingestctl/command.h"

const command *const COMMANDS[] = {
    &COMMAND_PUBLISH,      &COMMAND_STATUS,         &COMMAND_BACKLOG,       &COMMAND_TAIL,
    &COMMAND_CONSUME,      &COMMAND_BENCH,          &COMMAND_DEAD_LIST,     &COMMAND_DEAD_SHOW,
    &COMMAND_DEAD_REPLAY,  &COMMAND_DEAD_PURGE,     &COMMAND_FAILED_LIST,   &COMMAND_FAILED_SHOW,
    &COMMAND_FAILED_RETRY, &COMMAND_FAILED_DISCARD, &COMMAND_FAILED_EXPORT, &COMMAND_STORE_VERIFY,
    &COMMAND_STORE_REPAIR, &COMMAND_STORE_RESTORE,  &COMMAND_COMPLETION,    NULL,
};

const command_option JSON_OPTION = {"json", NULL, "as JSON, for scripts"};

/* `words`: how many of argv name the command. */
static const command *find_command(int argc, char **argv, int *words) {
    for (const command *const *it = COMMANDS; *it; it++) {
        *words = *(*it)->group ? 2 : 1;
        if (argc <= *words || strcmp(argv[*words], (*it)->name) != 0) continue;
        if (*words == 1 || strcmp(argv[1], (*it)->group) == 0) return *it;
    }
    return NULL;
}

static bool asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

/* `word` itself, if it is a group of commands; else NULL. */
static const char *find_group(const char *word) {
    for (const command *const *it = COMMANDS; *it; it++)
        if (*word && strcmp((*it)->group, word) == 0) return word;
    return NULL;
}

static int run_none(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "--help";
    const char *group = find_group(word);
    if (strcmp(word, "--version") == 0) return printf("ingestctl %s\n", INGEST_VERSION), EX_OK;
    if (strcmp(word, "--man") == 0) return print_manual(stdout), EX_OK;
    if (asks_for_help(argc, argv) || argc == 1) return print_overview(stdout, group), EX_OK;
    print_overview(stderr, group);
    if (group && argc == 2)
        (void)fprintf(stderr, "\ningestctl: which command of \"%s\"?\n", word);
    else
        (void)fprintf(stderr, "\ningestctl: there is no command \"%s%s%s\"\n", word,
                      argc > 2 ? " " : "", argc > 2 ? argv[2] : "");
    return EX_USAGE;
}

/* A full disk is told, although the command itself went well. */
static int end(int code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    (void)fprintf(stderr, "ingestctl: the output could not be written\n");
    return code == EX_OK ? EX_IOERR : code;
}

int main(int argc, char **argv) {
    int words;
    const command *it = find_command(argc, argv, &words);
    if (!it) return end(run_none(argc, argv));
    if (asks_for_help(argc - words, argv + words)) {
        print_usage(stdout, it);
        return end(EX_OK);
    }
    arguments given;
    if (!arguments_parse(it, argc - words, argv + words, &given)) {
        (void)fprintf(stderr, "ingestctl %s --help tells more\n", command_title(it));
        return EX_USAGE;
    }
    return end(it->run(&given));
}
