/* The position record as it comes from Kafka: what decodes encodes to the same bytes. */
#include "fuzz.h"

#include "server/position.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    position found;
    failure why = {0};
    if (position_decode(bytes_of(data, size), &found, &why) != ST_OK) {
        PROMISE(why.reason[0]);
        return 0;
    }
    uint8_t value[POSITION_SIZE];
    position_encode(&found, value);
    PROMISE(size == sizeof value && memcmp(value, data, size) == 0);
    return 0;
}
