/*
 * The publisher's real code against a simulated Kafka, one life for each seed; see life.c.
 *
 *   simulate --seed N [--count K] [--trace]
 *
 * Runs the seeds N .. N+K-1. Prints a line of JSON; or, when a promise is broken, the seed, the
 * promise and the trace of that life, and exits with 1. A seed always gives the same life.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "life.h"
#include "server/log.h"

#define LLU(number) ((unsigned long long)(number))

static int usage(void) {
    fprintf(stderr, "usage: simulate --seed N [--count K] [--trace]\n");
    return 2;
}

static int run_traced(uint64_t seed) {
    life_figures figures = {0};
    setvbuf(stdout, NULL, _IONBF, 0);
    const char *broken = life_run(seed, true, &figures);
    if (broken) printf("seed %llu: %s\n", LLU(seed), broken);
    return broken ? 1 : 0;
}

int main(int count_of_arguments, char **arguments) {
    uint64_t seed = 0, count = 1;
    bool traced = false;
    for (int i = 1; i < count_of_arguments; i++) {
        bool more = i + 1 < count_of_arguments;
        if (strcmp(arguments[i], "--trace") == 0)
            traced = true;
        else if (strcmp(arguments[i], "--seed") == 0 && more)
            seed = strtoull(arguments[++i], NULL, 10);
        else if (strcmp(arguments[i], "--count") == 0 && more)
            count = strtoull(arguments[++i], NULL, 10);
        else
            return usage();
    }
    log_setup(LOG_ERROR + 1, LOG_LOGFMT); /* the trace tells more */
    if (traced) return run_traced(seed);
    life_figures figures = {0};
    for (uint64_t i = 0; i < count; i++) {
        const char *broken = life_run(seed + i, false, &figures);
        if (!broken) continue;
        printf("seed %llu, number %llu: %s\n", LLU(seed + i), LLU(i + 1), broken);
        return run_traced(seed + i);
    }
    printf("{\"lives\": %llu, \"events\": %llu, \"acks\": %llu, \"groups\": %llu, \"dead\": %llu, "
           "\"faults\": %llu, \"kills\": %llu, \"transactions\": %llu, \"halted\": %llu}\n",
           LLU(figures.lives), LLU(figures.events), LLU(figures.acknowledged), LLU(figures.groups),
           LLU(figures.dead), LLU(figures.faults), LLU(figures.kills), LLU(figures.transactions),
           LLU(figures.halted));
    return 0;
}
