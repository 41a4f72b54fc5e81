/*
 * life: one seed: a workload, faults, a quiet end, and the promises checked against what a reader
 * of committed records sees.
 */
#ifndef INGEST_SIMULATION_LIFE_H
#define INGEST_SIMULATION_LIFE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct life_figures {
    uint64_t lives;
    uint64_t events; /* read back */
    uint64_t acknowledged;
    uint64_t groups;
    uint64_t dead;
    uint64_t faults;
    uint64_t kills;
    uint64_t transactions;
    uint64_t halted; /* lives that had to end so */
} life_figures;

/* NULL, or the promise that was broken; valid until the next life. Adds to `figures`. */
const char *life_run(uint64_t seed, bool traced, life_figures *figures);

#endif
