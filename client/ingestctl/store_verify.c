/* ingestctl store verify: reads all of a store and says what is there. Changes nothing. */
#include "client/ingestctl/command.h"

#include <getopt.h>

static int run(int argc, char **argv) {
    static const struct option OPTIONS[] = {{"json", no_argument, NULL, 'j'}, {0}};
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        if (option != 'j') return EX_USAGE;
        json = true;
    }
    if (argc - optind != 1) return EX_USAGE;
    const char *directory = argv[optind];
    store_survey survey;
    failure why = {0};
    if (store_verify(directory, &survey, &why) != ST_OK) {
        store_survey_free(&survey);
        return command_failed("store verify", &why);
    }
    bool sound = survey.sound;
    if (json) {
        print_survey_json(stdout, directory, &survey);
    } else {
        print_survey(stdout, directory, &survey);
        if (!sound)
            (void)printf("to go on without what is lost: ingestctl store repair %s "
                         "--accept-loss=%s\n",
                         directory, survey.damage_id);
    }
    store_survey_free(&survey);
    return sound ? EX_OK : EX_DATAERR;
}

const command COMMAND_STORE_VERIFY = {
    .group = "store",
    .name = "verify",
    .arguments = "DIRECTORY [--json]",
    .summary = "read all of a store, and say what is damaged and which events are lost",
    .help =
        "Reads every table, log, record, dead letter and id of the store in DIRECTORY (the\n"
        "server's data_dir) and compares the counters with what is there. Nothing of the store\n"
        "is changed; a damaged one is looked at in a folder `salvage` inside, which needs\n"
        "little space and is removed again. The server must be stopped.\n"
        "\n"
        "example\n"
        "  ingestctl store verify /var/lib/ingest\n",
    .run = run,
};
