/* The command line, by the command's own table of options. One thread. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "client/ingestctl/command.h"

enum { FIRST = 256, MOST = 32 }; /* what getopt_long returns for the first option */

static size_t add_options(const command_option *from, struct option *into, size_t count) {
    for (; from && from->name && count < MOST; from++, count++) {
        const int kind = !from->argument            ? no_argument
                         : from->argument[0] == '[' ? optional_argument
                                                    : required_argument;
        into[count] = (struct option){from->name, kind, NULL, FIRST + (int)count};
    }
    return count;
}

bool arguments_parse(const command *of, int argc, char **argv, arguments *out) {
    struct option all[MOST + 1] = {0};
    size_t count = add_options(of->options, all, 0);
    if (of->online) count = add_options(CONNECTION_OPTIONS, all, count);
    all[count] = (struct option){0};
    *out = (arguments){.of = of};
    int found;
    while ((found = getopt_long(argc, argv, "", all, NULL)) != -1) {
        if (found < FIRST || out->option_count == ARGUMENTS_MAX) return false; /* getopt said why */
        out->options[out->option_count].name = all[found - FIRST].name;
        out->options[out->option_count++].value = optarg ? optarg : "";
    }
    out->operands = argv + optind;
    out->operand_count = argc - optind;
    if (out->operand_count >= of->least && (of->most < 0 || out->operand_count <= of->most))
        return true;
    (void)complain(out, 0, "takes %s", of->operands[0] ? of->operands : "no operands");
    return false;
}

const char *argument(const arguments *given, const char *name) {
    const char *value = NULL;
    for (size_t i = 0; i < given->option_count; i++)
        if (strcmp(given->options[i].name, name) == 0) value = given->options[i].value;
    return value;
}

bool flag(const arguments *given, const char *name) { return argument(given, name) != NULL; }

bool parse_number(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return isdigit((unsigned char)*text) && !*end && errno == 0;
}

bool argument_number(const arguments *given, const char *name, uint64_t fallback, uint64_t least,
                     uint64_t most, uint64_t *out) {
    const char *text = argument(given, name);
    *out = fallback;
    if (!text || (parse_number(text, out) && *out >= least && *out <= most)) return true;
    (void)complain(given, 0, "--%s: \"%s\" is not a number from %llu to %llu", name, text,
                   (unsigned long long)least, (unsigned long long)most);
    return false;
}
