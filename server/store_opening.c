/* Fails as store_open does; the survey of a damaged store takes as long as reading all of it. */
#include "server/store_opening.h"

#include <stdio.h>
#include <string.h>

#include "server/log.h"
#include "storage/offline.h"

static void log_survey(const store_survey *survey) {
    for (size_t i = 0; i < survey->damage_count; i++)
        log_line(LOG_ERROR, "the store is damaged", "damage=%s", survey->damages[i].text);
    for (size_t i = 0; i < survey->loss_count; i++) {
        const store_loss *loss = &survey->losses[i];
        log_line(LOG_ERROR, loss->dead ? "dead letters are lost" : "events are lost",
                 "route=%s first=%llu last=%llu", survey->routes[loss->route].name,
                 (unsigned long long)loss->first, (unsigned long long)loss->last);
    }
    for (uint32_t i = 0; i < survey->route_count; i++)
        if (survey->routes[i].dead_missing)
            log_line(LOG_ERROR, "dead letters are lost", "route=%s count=%llu",
                     survey->routes[i].name, (unsigned long long)survey->routes[i].dead_missing);
}

static outcome refuse(const store_survey *survey, const char *directory, const char *accept_loss,
                      failure *why) {
    char first[160];
    (void)snprintf(first, sizeof first, "%.159s", why->reason);
    char command[1200];
    (void)snprintf(command, sizeof command, "ingestctl store repair %s --accept-loss=%s", directory,
                   survey->damage_id);
    log_line(LOG_ERROR,
             "the start is refused; to go on without what is lost, run the command or set "
             "storage.accept_loss to the damage's id",
             "damage_id=%s events_lost=%llu command=%s accept_loss=%s", survey->damage_id,
             (unsigned long long)survey->events_lost, command, accept_loss);
    return fail(why, ST_CORRUPT, "data_dir",
                "%s; %llu events are lost. To go on without them: ingestctl store repair %.80s "
                "--accept-loss=%s",
                first, (unsigned long long)survey->events_lost, directory, survey->damage_id);
}

static outcome repair(const char *directory, const char *accept_loss, failure *why) {
    store_survey survey;
    const repair_options options = {.accept = accept_loss};
    const outcome result = store_repair(directory, &options, &survey, why);
    if (result == ST_OK)
        log_line(LOG_WARNING, "the store is repaired; the damaged files are kept",
                 "damage_id=%s events_lost=%llu kept_in=%s/%s", survey.damage_id,
                 (unsigned long long)survey.events_lost, directory, survey.kept_in);
    store_survey_free(&survey);
    return result;
}

outcome store_opening(const store_options *options, const char *accept_loss, event_store **store,
                      failure *why) {
    outcome result = store_open(options, store, why);
    if (result != ST_CORRUPT) return result;
    const failure refused = *why;
    store_survey survey;
    result = store_verify(options->directory, &survey, why);
    if (result == ST_OK) {
        log_survey(&survey);
        *why = refused;
        /* A survey that finds nothing is no reason to start what could not be opened. */
        if (!survey.sound && strcmp(accept_loss, survey.damage_id) == 0)
            result = repair(options->directory, accept_loss, why);
        else
            result = refuse(&survey, options->directory, accept_loss, why);
    }
    store_survey_free(&survey);
    return result == ST_OK ? store_open(options, store, why) : result;
}
