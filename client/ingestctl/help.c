/* Help and the manual page, from the table of commands. Pure output. */
#include <stdarg.h>
#include <string.h>

#include "client/ingestctl/command.h"

static const struct {
    int code;
    const char *meaning;
} EXIT_CODES[] = {
    {EX_OK, "done, and all is well"},
    {EX_USAGE, "the command line is wrong"},
    {EX_DATAERR,
     "refused for what it is: an event, a damaged store, something to be accepted first"},
    {EX_NOINPUT, "there is no such thing: store, file, event, dead letter, failed event"},
    {EX_UNAVAILABLE, "the server, or Kafka, cannot be reached or does not answer in time"},
    {EX_SOFTWARE, "an error that should not be"},
    {EX_IOERR, "reading or writing failed"},
    {EX_TEMPFAIL,
     "not now: the folder is in use (stop the server), the server is full, the consumer ends, or "
     "^C; again later"},
    {EX_PROTOCOL, "the server does not know the call: an older one, or none of ours"},
    {EX_NOPERM, "the server does not allow it"},
    {EX_CONFIG, "the store was written by a newer version"},
};
enum { EXIT_CODE_COUNT = sizeof EXIT_CODES / sizeof *EXIT_CODES };

const char *command_title(const command *it) {
    static char title[64];
    (void)snprintf(title, sizeof title, "%s%s%s", it->group, *it->group ? " " : "", it->name);
    return title;
}

int complain(const arguments *given, int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)fprintf(stderr, "ingestctl %s: ", command_title(given->of));
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    return code;
}

/* "--rate=N" */
static void put_option(char text[64], const command_option *it) {
    const bool optional = it->argument && it->argument[0] == '[';
    (void)snprintf(text, 64, "--%s%s%s%s", it->name,
                   optional       ? "[="
                   : it->argument ? "="
                                  : "",
                   it->argument ? it->argument + optional : "", "");
}

static void print_options(FILE *out, const command_option *all) {
    for (; all && all->name; all++) {
        char text[64];
        put_option(text, all);
        (void)fprintf(out, "  %-26s %s\n", text, all->help);
    }
}

static void print_exit_codes(FILE *out) {
    (void)fprintf(out, "\nexit codes\n");
    for (int i = 0; i < EXIT_CODE_COUNT; i++)
        (void)fprintf(out, "  %-3d %s\n", EXIT_CODES[i].code, EXIT_CODES[i].meaning);
}

void print_overview(FILE *out, const char *group) {
    (void)fprintf(out, "usage: ingestctl COMMAND [OPTION...] [OPERAND...]\n\n");
    for (const command *const *it = COMMANDS; *it; it++)
        if (!group || strcmp((*it)->group, group) == 0)
            (void)fprintf(out, "  %-15s %s\n", command_title(*it), (*it)->summary);
    (void)fprintf(out,
                  "\n  ingestctl COMMAND --help tells more; --version; --man is the manual page\n");
    print_exit_codes(out);
}

void print_usage(FILE *out, const command *it) {
    const bool options = it->online || (it->options && it->options->name);
    (void)fprintf(out, "usage: ingestctl %s%s%s%s\n\n%s\n", command_title(it),
                  options ? " [OPTION...]" : "", *it->operands ? " " : "", it->operands, it->help);
    if (options) (void)fputc('\n', out);
    print_options(out, it->options);
    if (it->online) print_options(out, CONNECTION_OPTIONS);
    (void)fprintf(out, "\nexample\n%s\n", it->example);
    print_exit_codes(out);
}

/* ---- roff ---------------------------------------------------------------------------------- */

/* Backslashes and a leading full stop mean something to roff. */
static void roff_text(FILE *out, const char *text) {
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\'')) (void)fputs("\\&", out);
        if (*text == '\\')
            (void)fputs("\\e", out);
        else if (*text == '-')
            (void)fputs("\\-", out);
        else
            (void)fputc(*text, out);
        start = *text == '\n';
    }
    (void)fputc('\n', out);
}

/* Empty lines part paragraphs. */
static void roff_paragraphs(FILE *out, const char *text) {
    const char *gap;
    while ((gap = strstr(text, "\n\n")) != NULL) {
        char part[4096];
        (void)snprintf(part, sizeof part, "%.*s", (int)(gap - text), text);
        roff_text(out, part);
        (void)fprintf(out, ".PP\n");
        text = gap + 2;
    }
    roff_text(out, text);
}

static void roff_options(FILE *out, const command_option *all) {
    for (; all && all->name; all++) {
        char text[64];
        put_option(text, all);
        (void)fprintf(out, ".TP\n.B ");
        roff_text(out, text);
        roff_text(out, all->help);
    }
}

static void roff_command(FILE *out, const command *it) {
    (void)fprintf(out, ".SS ");
    char heading[160];
    (void)snprintf(heading, sizeof heading, "%s %s", command_title(it), it->operands);
    roff_text(out, heading);
    roff_paragraphs(out, it->help);
    roff_options(out, it->options);
    (void)fprintf(out, ".PP\n.EX\n");
    roff_text(out, it->example);
    (void)fprintf(out, ".EE\n");
}

void print_manual(FILE *out) {
    (void)fprintf(
        out,
        ".TH INGESTCTL 1 2026-11-23 \"ingest %s\" \"User Commands\"\n.SH NAME\n"
        "ingestctl \\- publish events, watch an ingest server, repair its store, look after failed "
        "events\n"
        ".SH SYNOPSIS\n.B ingestctl\n.I COMMAND\n"
        "[\\fIOPTION\\fR...] [\\fIOPERAND\\fR...]\n.SH COMMANDS\n",
        INGEST_VERSION);
    for (const command *const *it = COMMANDS; *it; it++)
        roff_command(out, *it);
    (void)fprintf(out, ".SH OPTIONS OF THE CONNECTION\nFor all commands that talk to a server.\n");
    roff_options(out, CONNECTION_OPTIONS);
    (void)fprintf(out, ".SH EXIT STATUS\n");
    for (int i = 0; i < EXIT_CODE_COUNT; i++) {
        (void)fprintf(out, ".TP\n.B %d\n", EXIT_CODES[i].code);
        roff_text(out, EXIT_CODES[i].meaning);
    }
}
