/* The figures and the event of a failed event: what decodes encodes to the same bytes. The checksum
 * is set right, or nothing behind it would ever be reached. */
#include "fuzz.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"
#include "storage/failed_record.h"

#include <string.h>

enum { CRC_AT = 1, BODY_AT = 5, NUMBER = 1 };

static void check_figures(bytes value) {
    static uint8_t again[FAILED_RECORD_MAX];
    failed_record record;
    failed_record back;
    uint64_t event_size;
    uint64_t back_size;
    if (failed_record_decode(NUMBER, value, &record, &event_size, NULL) != ST_OK) return;
    bytes encoded = failed_record_encode(&record, event_size, again);
    PROMISE(encoded.len <= value.len);
    PROMISE(failed_record_decode(NUMBER, encoded, &back, &back_size, NULL) == ST_OK);
    PROMISE(back.state == record.state && back.opaque == record.opaque);
    PROMISE(back_size == event_size && back.offset == record.offset);
    PROMISE(bytes_equal(back.id, record.id) && bytes_equal(back.topic, record.topic));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    failed_record record;
    failure why = {0};
    uint64_t event_size;
    bytes event;
    if (failed_record_decode(NUMBER, bytes_of(data, size), &record, &event_size, &why) != ST_OK)
        PROMISE(why.reason[0]);
    if (size < BODY_AT) return 0;
    uint8_t salt[8];
    uint8_t *value = malloc(size);
    PROMISE(value);
    memcpy(value, data, size);
    put_le64(salt, NUMBER);
    put_le32(value + CRC_AT,
             crc32c_extend(crc32c_extend(0, salt, sizeof salt), value + BODY_AT, size - BODY_AT));
    check_figures(bytes_of(value, size));
    if (failed_event_decode(NUMBER, bytes_of(value, size), &event, NULL) == ST_OK)
        PROMISE(event.len == size - BODY_AT);
    free(value);
    return 0;
}
