/* UUIDs (RFC 9562): version 4 for stores and incarnations, version 7 for events without an id. */
#ifndef INGEST_STORAGE_UUID_H
#define INGEST_STORAGE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT_SIZE 37 /* 36 characters and the NUL */

typedef struct uuid {
    uint8_t octets[16];
} uuid;

uuid uuid_random(void);                  /* version 4, from getrandom; any thread */
uuid uuid_time_ordered(int64_t wall_ms); /* version 7; any thread; thread-local state, so cheap */
void uuid_format(const uuid *id, char text[UUID_TEXT_SIZE]);
bool uuid_parse(const char *text, uuid *id); /* lower or upper case, with hyphens */
bool uuid_equal(const uuid *a, const uuid *b);

#endif
