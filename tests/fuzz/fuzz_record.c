/* A stored record: what decodes encodes to the same bytes. The checksum is set right, or nothing
 * behind it would ever be reached. */
#include "fuzz.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"
#include "storage/record.h"

#include <string.h>

enum { CRC_AT = 1, BODY_AT = 5 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    event_record record = {0};
    failure why = {0};
    if (record_decode(1, bytes_of(data, size), &record, &why) != ST_OK) PROMISE(why.reason[0]);
    if (size < BODY_AT) return 0;
    uint8_t *value = malloc(size);
    PROMISE(value);
    memcpy(value, data, size);
    put_le32(value + CRC_AT, crc32c_extend(0, value + BODY_AT, size - BODY_AT));
    if (record_decode(1, bytes_of(value, size), &record, &why) == ST_OK) {
        size_t again = record_encoded_size(&record);
        uint8_t *encoded = malloc(again);
        event_record back = {0};
        PROMISE(encoded);
        record_encode(&record, encoded);
        PROMISE(record_decode(1, bytes_of(encoded, again), &back, &why) == ST_OK);
        PROMISE(again <= size && back.event.len == record.event.len && back.kind == record.kind);
        free(encoded);
    }
    free(value);
    return 0;
}
