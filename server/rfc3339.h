/* rfc3339: times as text in UTC, "2026-01-31T23:59:59.250Z". Pure; any thread. */
#ifndef INGEST_SERVER_RFC3339_H
#define INGEST_SERVER_RFC3339_H

#include <stddef.h>
#include <stdint.h>

#define RFC3339_SIZE 31 /* 30 characters with nine digits of fraction, and the NUL */

typedef enum rfc3339_fraction {
    RFC3339_SHORTEST, /* 0, 3, 6 or 9 digits, as protobuf's JSON has it */
    RFC3339_MILLIS,   /* always 3 */
} rfc3339_fraction;

/* `seconds` since 1970, years 0001 to 9999 (clamped to them); `nanos` 0 to 999,999,999. Returns
 * the length. */
size_t rfc3339_write(int64_t seconds, int32_t nanos, rfc3339_fraction fraction,
                     char text[RFC3339_SIZE]);

#endif
