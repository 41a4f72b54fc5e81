/* ingestctl completion bash: words of commands and options, from the table. */
#include <string.h>

#include "client/ingestctl/command.h"

static void print_options(const command_option *all) {
    for (; all && all->name; all++)
        (void)printf(" --%s%s", all->name, all->argument && all->argument[0] != '[' ? "=" : "");
}

/* The words that may follow "ingestctl", or "ingestctl GROUP", each once. */
static void print_words(const char *group) {
    const char *last = "";
    for (const command *const *it = COMMANDS; *it; it++) {
        const char *word = *group || !*(*it)->group ? (*it)->name : (*it)->group;
        if (*group && strcmp((*it)->group, group) != 0) continue;
        if (strcmp(word, last) != 0) (void)printf(" %s", word);
        last = word;
    }
}

static void print_groups(void) {
    const char *last = "";
    for (const command *const *it = COMMANDS; *it; it++) {
        const char *group = (*it)->group;
        if (!*group || strcmp(group, last) == 0) continue;
        (void)printf("        %s) words=\"", group);
        print_words(group);
        (void)printf("\" ;;\n");
        last = group;
    }
}

static int run(const arguments *given) {
    if (strcmp(given->operands[0], "bash") != 0)
        return complain(given, EX_USAGE, "only bash is known");
    (void)printf("# bash completion of ingestctl; see `ingestctl completion --help`\n"
                 "_ingestctl() {\n"
                 "    local current=${COMP_WORDS[COMP_CWORD]} words=\n"
                 "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    print_words("");
    (void)printf(" --help --version --man\"\n"
                 "    elif [ \"$COMP_CWORD\" -eq 2 ]; then\n"
                 "        case ${COMP_WORDS[1]} in\n");
    print_groups();
    (void)printf("        esac\n    fi\n"
                 "    [ -n \"$words\" ] || case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n");
    for (const command *const *it = COMMANDS; *it; it++) {
        (void)printf("        \"%s\"%s) words=\" --help", command_title(*it),
                     *(*it)->group ? "" : "\\ *");
        print_options((*it)->options);
        if ((*it)->online) print_options(CONNECTION_OPTIONS);
        (void)printf("\" ;;\n");
    }
    (void)printf("    esac\n"
                 "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
                 "    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace\n"
                 "}\n"
                 "complete -o default -F _ingestctl ingestctl\n");
    return EX_OK;
}

const command COMMAND_COMPLETION = {
    .group = "",
    .name = "completion",
    .operands = "bash",
    .least = 1,
    .most = 1,
    .summary = "print the completion of commands and options for the shell",
    .help = "Prints a script for bash that completes commands and options.",
    .example = "  source <(ingestctl completion bash)",
    .run = run,
};
