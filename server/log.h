/*
 * log: one structured line per incident on standard error, logfmt or JSON.
 * Any thread; a line is one write(2), so lines do not mix. Never blocks on a lock held over I/O.
 * Keeps errno.
 */
#ifndef INGEST_SERVER_LOG_H
#define INGEST_SERVER_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/status.h"

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR } log_level;
typedef enum log_format { LOG_LOGFMT, LOG_JSON } log_format;

/* "" is a good format here: a line without fields. */
#pragma GCC diagnostic ignored "-Wformat-zero-length"

void log_setup(log_level level, log_format format);
bool log_enabled(log_level level);

/*
 * A line with its fields:
 *   log_line(LOG_INFO, "route blocked", "route=%s error=%s", name, text);
 * `fields` is a printf format of the form "name=VALUE name=VALUE ..."; "" for none. A VALUE is
 * literal text and conversions up to the next space of the format ("took=%dms"); what it becomes is
 * quoted or escaped as the output format needs, whatever bytes it holds, and cut at 2 KiB. A value
 * that is one number alone is a number in JSON too. The message must be a constant.
 *
 * Conversions: d i u x X c s f g %, with l, ll, z, j (so PRIu64 and the like too), a width, 0 to
 * pad numbers, and a precision (%.3f, %.*s for bytes without a NUL). Others end the line early
 * with bad_format=true.
 */
void log_line(log_level level, const char *message, const char *fields, ...) PRINTF_LIKE(3, 4);

/*
 * At most one line a `period_ms` from this place: `if (log_allowed(&limit, 1000)) log_line(...)`.
 * The next line of the thread that was allowed carries suppressed=N, the number left out.
 * Zero-initialise, usually static; any thread.
 */
typedef struct log_limit {
    _Atomic int64_t next_ms;
    _Atomic uint64_t suppressed;
} log_limit;
bool log_allowed(log_limit *limit, int64_t period_ms);

#endif
