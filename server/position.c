#include "server/position.h"

#include <stdio.h>

#define VERSION 1
#define INCARNATION_AT 1
#define SEQUENCE_AT 17

void position_key(const uuid *store, const char *route, char key[POSITION_KEY_SIZE]) {
    char text[UUID_TEXT_SIZE];
    uuid_format(store, text);
    snprintf(key, POSITION_KEY_SIZE, "%s/%s", text, route);
}

void position_encode(const position *it, uint8_t value[POSITION_SIZE]) {
    value[0] = VERSION;
    memcpy(value + INCARNATION_AT, it->incarnation.octets, sizeof it->incarnation.octets);
    for (size_t i = 0; i < 8; i++)
        value[SEQUENCE_AT + i] = (uint8_t)(it->sequence >> (8 * (7 - i)));
}

outcome position_decode(bytes value, position *it, failure *why) {
    if (value.len == 0) return fail(why, ST_CORRUPT, "", "the position record is empty");
    if (value.data[0] != VERSION)
        return fail(why, ST_CORRUPT, "",
                    "the position record has version %u, this program knows version %d",
                    (unsigned)value.data[0], VERSION);
    if (value.len != POSITION_SIZE)
        return fail(why, ST_CORRUPT, "", "the position record has %zu bytes instead of %d",
                    value.len, POSITION_SIZE);
    memcpy(it->incarnation.octets, value.data + INCARNATION_AT, sizeof it->incarnation.octets);
    it->sequence = 0;
    for (size_t i = 0; i < 8; i++)
        it->sequence = it->sequence << 8 | value.data[SEQUENCE_AT + i];
    return ST_OK;
}
