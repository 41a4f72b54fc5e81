/* ingestctl store verify: reads all of a store and says what is there. Changes nothing. */
#include "client/ingestctl/survey.h"

static int run(const arguments *given) {
    const bool json = flag(given, "json");
    const char *directory = given->operands[0];
    store_survey survey;
    failure why = {0};
    if (store_verify(directory, &survey, &why) != ST_OK) {
        store_survey_free(&survey);
        return store_failed(given, &why);
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

static const command_option OPTIONS[] = {{"json", NULL, "as JSON, for scripts"}, {0}};

const command COMMAND_STORE_VERIFY = {
    .group = "store",
    .name = "verify",
    .operands = "DIRECTORY",
    .least = 1,
    .most = 1,
    .summary = "read all of a store, and say what is damaged and which events are lost",
    .help =
        "Reads every table, log, record, dead letter and id of the store in DIRECTORY (the\n"
        "server's data_dir) and compares the counters with what is there. Nothing of the store\n"
        "is changed; a damaged one is looked at in a folder `salvage` inside, which needs\n"
        "little space and is removed again. The server must be stopped.",
    .example = "  ingestctl store verify /var/lib/ingest",
    .options = OPTIONS,
    .run = run,
};
