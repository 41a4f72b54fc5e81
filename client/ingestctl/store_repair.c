/* ingestctl store repair: makes a store of all that is readable; the loss has to be accepted. */
#include <stdlib.h>
#include <string.h>

#include "client/ingestctl/survey.h"

typedef struct wishes {
    repair_options repair;
    bool json;
    const char *directory;
} wishes;

/* NUMBER=NAME */
static bool take_name(repair_options *repair, const char *text) {
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (end == text || *end != '=' || !end[1] || number >= STORE_ROUTES_MAX) return false;
    repair->names[number] = end + 1;
    return true;
}

static bool take_options(const arguments *given, wishes *into) {
    const char *accept = argument(given, "accept-loss");
    into->json = flag(given, "json");
    into->directory = given->operands[0];
    if (accept) into->repair.accept = *accept ? accept : "any";
    for (size_t i = 0; i < given->option_count; i++)
        if (strcmp(given->options[i].name, "route") == 0 &&
            !take_name(&into->repair, given->options[i].value))
            return complain(given, 0, "--route: \"%s\" is not NUMBER=NAME",
                            given->options[i].value);
    return true;
}

static void say_what_was_done(const char *directory, const store_survey *survey) {
    if (!survey->kept_in[0])
        (void)printf("nothing had to be repaired\n");
    else
        (void)printf("repaired; what was there is kept in %s/%s until you remove it\n", directory,
                     survey->kept_in);
}

static int run(const arguments *given) {
    wishes wanted = {0};
    if (!take_options(given, &wanted)) return EX_USAGE;
    store_survey survey;
    failure why = {0};
    outcome result = store_repair(wanted.directory, &wanted.repair, &survey, &why);
    if (wanted.json && (result == ST_OK || survey.damage_id[0]))
        print_survey_json(stdout, wanted.directory, &survey);
    else if (result == ST_OK || survey.damage_id[0])
        print_survey(stdout, wanted.directory, &survey);
    if (result == ST_OK && !wanted.json) say_what_was_done(wanted.directory, &survey);
    store_survey_free(&survey);
    return result == ST_OK ? EX_OK : store_failed(given, &why);
}

static const command_option OPTIONS[] = {
    {"accept-loss", "[ID]", "accept the loss that `store verify` named ID, or whatever is lost"},
    {"route", "NUMBER=NAME", "the name of a route, when it says that it is unreadable"},
    {"json", NULL, "as JSON, for scripts"},
    {0}};

const command COMMAND_STORE_REPAIR = {
    .group = "store",
    .name = "repair",
    .operands = "DIRECTORY",
    .least = 1,
    .most = 1,
    .summary = "make a damaged store start again, of all that is readable",
    .help =
        "Writes a new database with every event, dead letter and id of the store in DIRECTORY\n"
        "that can be read; each lost event leaves a tombstone, and is counted as lost. The store\n"
        "keeps its id, and goes on in Kafka where it was. The damaged files are kept aside, in\n"
        "DIRECTORY/damaged-TIME. Needs free space for a copy. The server must be stopped.\n"
        "\n"
        "Without --accept-loss it says what would be lost, and changes nothing.",
    .example = "  ingestctl store repair /var/lib/ingest --accept-loss=1f00ba12",
    .options = OPTIONS,
    .run = run,
};
