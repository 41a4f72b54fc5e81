/* ingestctl store restore: gives a store a new id, so that a copy of it can publish. */
#include "client/ingestctl/output.h"
#include "client/ingestctl/survey.h"

static void print_range(const char *name, uint64_t published, uint64_t last, uint64_t events) {
    if (published == last)
        (void)printf("route %s: nothing is published twice\n", name);
    else
        (void)printf("route %s: %llu to %llu (%llu events) will be published; those that Kafka "
                     "has already are there twice\n",
                     name, (unsigned long long)published + 1, (unsigned long long)last,
                     (unsigned long long)events);
}

/* What it would do; the store stays as it is. */
static int announce(const arguments *given) {
    const char *directory = given->operands[0];
    store_survey survey;
    failure why = {0};
    if (store_verify(directory, &survey, &why) != ST_OK) {
        store_survey_free(&survey);
        return store_failed(given, &why);
    }
    if (!survey.sound) {
        (void)fprintf(stderr,
                      "ingestctl store restore: the store is damaged; first: ingestctl store "
                      "repair %s\n",
                      directory);
    } else if (flag(given, "json")) {
        print_survey_json(stdout, directory, &survey);
    } else {
        for (uint32_t i = 0; i < survey.route_count; i++)
            print_range(survey.routes[i].name, survey.routes[i].hint, survey.routes[i].last,
                        survey.routes[i].events);
        (void)printf("nothing was changed; to do it: ingestctl store restore %s "
                     "--accept-duplicates\n",
                     directory);
    }
    store_survey_free(&survey);
    return EX_DATAERR;
}

static void print_restored(const store_restored *restored) {
    char before[UUID_TEXT_SIZE];
    char now[UUID_TEXT_SIZE];
    uuid_format(&restored->before, before);
    uuid_format(&restored->now, now);
    (void)printf("store %s is store %s from now on\n", before, now);
    for (uint32_t i = 0; i < restored->route_count; i++)
        print_range(restored->routes[i].name, restored->routes[i].published,
                    restored->routes[i].last, restored->routes[i].events);
}

static void print_restored_json(const store_restored *restored) {
    char before[UUID_TEXT_SIZE];
    char now[UUID_TEXT_SIZE];
    uuid_format(&restored->before, before);
    uuid_format(&restored->now, now);
    (void)printf("{\"before\":\"%s\",\"now\":\"%s\",\"routes\":[", before, now);
    for (uint32_t i = 0; i < restored->route_count; i++) {
        const route_restored *route = &restored->routes[i];
        (void)printf("%s{\"name\":", i ? "," : "");
        print_json_text(stdout, route->name);
        (void)printf(",\"published\":%llu,\"last\":%llu,\"events\":%llu}",
                     (unsigned long long)route->published, (unsigned long long)route->last,
                     (unsigned long long)route->events);
    }
    (void)printf("]}\n");
}

static int run(const arguments *given) {
    if (!flag(given, "accept-duplicates")) return announce(given);
    store_restored restored;
    failure why = {0};
    if (store_restore(given->operands[0], &restored, &why) != ST_OK)
        return store_failed(given, &why);
    if (flag(given, "json"))
        print_restored_json(&restored);
    else
        print_restored(&restored);
    return EX_OK;
}

static const command_option OPTIONS[] = {
    {"accept-duplicates", NULL, "do it; those that Kafka has already will be there twice"},
    {"json", NULL, "as JSON, for scripts"},
    {0}};

const command COMMAND_STORE_RESTORE = {
    .group = "store",
    .name = "restore",
    .operands = "DIRECTORY",
    .least = 1,
    .most = 1,
    .summary = "give a copied or rolled-back store a new id, so that it can publish",
    .help =
        "Gives the store in DIRECTORY a new id: it has nothing to do any more with what Kafka\n"
        "knows of it, nor with other copies of it. All that is not noted as published is then\n"
        "published. This is the way out when a route has halted because\n"
        "  - the volume was rolled back or cloned,\n"
        "  - the positions topic was deleted, or Kafka is another cluster for good,\n"
        "  - Kafka lost what it had committed, and it cannot be brought back.\n"
        "The server must be stopped.\n"
        "\n"
        "Without --accept-duplicates it says which sequences may be in Kafka twice after that,\n"
        "and changes nothing.",
    .example = "  ingestctl store restore /var/lib/ingest --accept-duplicates",
    .options = OPTIONS,
    .run = run,
};
