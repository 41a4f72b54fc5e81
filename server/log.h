/*
 * log: one structured line per incident on standard error, logfmt or JSON.
 * Any thread; a line is one write(2), so lines do not mix. Never blocks on a lock held over I/O.
 */
#ifndef INGEST_SERVER_LOG_H
#define INGEST_SERVER_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/status.h"

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR } log_level;
typedef enum log_format { LOG_LOGFMT, LOG_JSON } log_format;

void log_setup(log_level level, log_format format);
bool log_enabled(log_level level);

/*
 * A line with its fields:
 *   log_line(LOG_INFO, "route blocked", "route=%s error=%s", name, text);
 * `fields` is a printf format of the form "name=%x name=%x ..."; each value is quoted or escaped
 * as the output format needs. "" for none. The message must be a constant.
 */
void log_line(log_level level, const char *message, const char *fields, ...) PRINTF_LIKE(3, 4);

/* At most one line a `period_ms` from this place; the next line tells how many were left out. */
typedef struct log_limit {
    int64_t next_ms;
    uint64_t suppressed;
} log_limit;
bool log_allowed(log_limit *limit, int64_t period_ms);

#endif
