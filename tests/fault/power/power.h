/*
 * power: what a program that runs under the power shim (shim.c, preloaded) may say to it. Weak: the
 * symbols are missing without the shim.
 */
#ifndef INGEST_TESTS_POWER_H
#define INGEST_TESTS_POWER_H

#include <stdbool.h>

/* Exit statuses of a process whose power was cut: by a count; where a library has asserted. */
enum { POWER_CUT_STATUS = 86, POWER_ASSERTED_STATUS = 87 };

/* From here on the calls up to the cut, and to the fault, are counted when POWER_FROM_MARK is 1. */
void power_mark(void) __attribute__((weak));
/* Cuts the power now; the process ends with `status`. Never returns. */
_Noreturn void power_cut(int status) __attribute__((weak));
/* Whether a write or sync of a write-ahead log has failed on this thread. */
bool power_log_failed(void) __attribute__((weak));

#endif
