/* A store's survey, for people and as JSON. Pure but for the output. */
#include "client/ingestctl/survey.h"
#include "client/ingestctl/output.h"

static unsigned long long wide(uint64_t number) { return number; }

/* ---- for people ------------------------------------------------------------------------------ */

static void print_route(FILE *out, const store_survey *survey, uint32_t number) {
    const route_survey *route = &survey->routes[number];
    (void)fprintf(out, "route %u, %s: %llu events above %llu (published), up to %llu\n", number,
                  route->name[0] ? route->name : "name unreadable", wide(route->events),
                  wide(route->hint), wide(route->last));
    if (route->dead) (void)fprintf(out, "  dead letters: %llu\n", wide(route->dead));
    if (route->lost_before)
        (void)fprintf(out, "  lost earlier, and accepted: %llu\n", wide(route->lost_before));
    for (size_t i = 0; i < survey->loss_count; i++) {
        const store_loss *loss = &survey->losses[i];
        if (loss->route != number) continue;
        (void)fprintf(out, "  LOST: %s %llu to %llu\n", loss->dead ? "dead letters" : "events",
                      wide(loss->first), wide(loss->last));
    }
    if (route->dead_missing)
        (void)fprintf(out, "  LOST: %llu dead letters; nothing tells which\n",
                      wide(route->dead_missing));
}

void print_survey(FILE *out, const char *directory, const store_survey *survey) {
    char id[UUID_TEXT_SIZE];
    uuid_format(&survey->store, id);
    (void)fprintf(out, "%s: %s\nstore %s\n", directory, survey->sound ? "sound" : "DAMAGED",
                  survey->identity_lost ? "id unreadable" : id);
    for (size_t i = 0; i < survey->damage_count; i++)
        (void)fprintf(out, "damage: %s\n", survey->damages[i].text);
    for (uint32_t i = 0; i < survey->route_count; i++)
        print_route(out, survey, i);
    (void)fprintf(out, "ids remembered: %llu%s\n", wide(survey->ids),
                  survey->ids_incomplete
                      ? "; others are unreadable: their requests, retried, are taken as new"
                      : "");
    if (survey->identity_lost)
        (void)fprintf(out, "a repair gives the store a new id: what is above (published) may be "
                           "published twice\n");
    if (!survey->sound) (void)fprintf(out, "lost in all: %llu events\n", wide(survey->events_lost));
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void print_routes_json(FILE *out, const store_survey *survey) {
    for (uint32_t i = 0; i < survey->route_count; i++) {
        const route_survey *route = &survey->routes[i];
        (void)fprintf(out, "%s{\"route\":%u,\"name\":", i ? "," : "", i);
        print_json_text(out, route->name);
        (void)fprintf(out,
                      ",\"published\":%llu,\"last\":%llu,\"events\":%llu,\"dead\":%llu,"
                      "\"dead_missing\":%llu,\"lost\":%llu,\"lost_before\":%llu}",
                      wide(route->hint), wide(route->last), wide(route->events), wide(route->dead),
                      wide(route->dead_missing), wide(route->lost), wide(route->lost_before));
    }
}

void print_survey_json(FILE *out, const char *directory, const store_survey *survey) {
    char id[UUID_TEXT_SIZE];
    uuid_format(&survey->store, id);
    (void)fprintf(out, "{\"directory\":");
    print_json_text(out, directory);
    (void)fprintf(out, ",\"sound\":%s,\"store\":\"%s\",\"identity_lost\":%s,\"damage_id\":\"%s\"",
                  survey->sound ? "true" : "false", id, survey->identity_lost ? "true" : "false",
                  survey->damage_id);
    (void)fprintf(out, ",\"damages\":[");
    for (size_t i = 0; i < survey->damage_count; i++) {
        if (i) (void)fputc(',', out);
        print_json_text(out, survey->damages[i].text);
    }
    (void)fprintf(out, "],\"losses\":[");
    for (size_t i = 0; i < survey->loss_count; i++) {
        const store_loss *loss = &survey->losses[i];
        (void)fprintf(out, "%s{\"route\":%u,\"first\":%llu,\"last\":%llu,\"dead\":%s}",
                      i ? "," : "", loss->route, wide(loss->first), wide(loss->last),
                      loss->dead ? "true" : "false");
    }
    (void)fprintf(out, "],\"routes\":[");
    print_routes_json(out, survey);
    (void)fprintf(out, "],\"ids\":%llu,\"ids_incomplete\":%s,\"events_lost\":%llu,\"kept_in\":",
                  wide(survey->ids), survey->ids_incomplete ? "true" : "false",
                  wide(survey->events_lost));
    print_json_text(out, survey->kept_in);
    (void)fprintf(out, "}\n");
}

int store_failed(const arguments *given, const failure *why) {
    int code = EX_SOFTWARE;
    if (why->code == ST_CORRUPT) code = EX_DATAERR;
    if (why->code == ST_NOT_FOUND) code = EX_NOINPUT;
    if (why->code == ST_IO) code = EX_IOERR;
    if (why->code == ST_UNAVAILABLE) code = EX_TEMPFAIL;
    if (why->code == ST_PRECONDITION)
        code = strcmp(why->field, "format") == 0 ? EX_CONFIG : EX_DATAERR;
    return complain(given, code, "%s", why->reason);
}
