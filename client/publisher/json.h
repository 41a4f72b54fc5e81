/*
 * json: JSON text (RFC 8259) to the messages of google/protobuf/struct.proto.
 *
 * Strict: refused are a name given twice, a NUL or half a surrogate pair in a string, bytes that
 * are not UTF-8, numbers beyond a double and integers that a double would change, more levels than
 * `depth` messages. Pure; everything is allocated from `memory`, also when it fails.
 */
#ifndef INGEST_CLIENT_JSON_H
#define INGEST_CLIENT_JSON_H

#include "google/protobuf/struct.pb-c.h"
#include "server/arena.h"
#include "storage/bytes.h"

enum { JSON_WHY_SIZE = 192 };

/* Any value. NULL: `why` says what is wrong and at which byte. */
Google__Protobuf__Value *json_value(bytes text, unsigned depth, arena *memory,
                                    char why[JSON_WHY_SIZE]);
/* The same for a text that has to be an object. */
Google__Protobuf__Struct *json_object(bytes text, unsigned depth, arena *memory,
                                      char why[JSON_WHY_SIZE]);

/* Room for one more in an array of pointers that was made by this function; it grows in place of
 * its field: `items[count]` may be set afterwards. */
void *json_grow(void *items, size_t count, arena *memory);

#endif
