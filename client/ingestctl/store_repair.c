/* ingestctl store repair: makes a store of all that is readable; the loss has to be accepted. */
#include "client/ingestctl/command.h"

#include <getopt.h>
#include <stdlib.h>

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

static bool take_options(int argc, char **argv, wishes *into) {
    static const struct option OPTIONS[] = {{"json", no_argument, NULL, 'j'},
                                            {"accept-loss", optional_argument, NULL, 'a'},
                                            {"route", required_argument, NULL, 'r'},
                                            {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        if (option == 'j')
            into->json = true;
        else if (option == 'a')
            into->repair.accept = optarg ? optarg : "any";
        else if (option != 'r' || !take_name(&into->repair, optarg))
            return false;
    }
    if (argc - optind != 1) return false;
    into->directory = argv[optind];
    return true;
}

static void say_what_was_done(const char *directory, const store_survey *survey) {
    if (!survey->kept_in[0])
        (void)printf("nothing had to be repaired\n");
    else
        (void)printf("repaired; what was there is kept in %s/%s until you remove it\n", directory,
                     survey->kept_in);
}

static int run(int argc, char **argv) {
    wishes wanted = {0};
    if (!take_options(argc, argv, &wanted)) return EX_USAGE;
    store_survey survey;
    failure why = {0};
    outcome result = store_repair(wanted.directory, &wanted.repair, &survey, &why);
    if (wanted.json && (result == ST_OK || survey.damage_id[0]))
        print_survey_json(stdout, wanted.directory, &survey);
    else if (result == ST_OK || survey.damage_id[0])
        print_survey(stdout, wanted.directory, &survey);
    if (result == ST_OK && !wanted.json) say_what_was_done(wanted.directory, &survey);
    store_survey_free(&survey);
    return result == ST_OK ? EX_OK : command_failed("store repair", &why);
}

const command COMMAND_STORE_REPAIR = {
    .group = "store",
    .name = "repair",
    .arguments = "DIRECTORY [--accept-loss[=ID]] [--route NUMBER=NAME]... [--json]",
    .summary = "make a damaged store start again, of all that is readable",
    .help =
        "Writes a new database with every event, dead letter and id of the store in DIRECTORY\n"
        "that can be read; each lost event leaves a tombstone, and is counted as lost. The store\n"
        "keeps its id, and goes on in Kafka where it was. The damaged files are kept aside, in\n"
        "DIRECTORY/damaged-TIME. Needs free space for a copy. The server must be stopped.\n"
        "\n"
        "Without --accept-loss it says what would be lost, and changes nothing.\n"
        "\n"
        "  --accept-loss        accept whatever is lost\n"
        "  --accept-loss=ID     accept the loss that `store verify` named ID, and no other\n"
        "  --route NUMBER=NAME  the name of a route, when it says that it is unreadable\n"
        "\n"
        "example\n"
        "  ingestctl store repair /var/lib/ingest --accept-loss=1f00ba12\n",
    .run = run,
};
