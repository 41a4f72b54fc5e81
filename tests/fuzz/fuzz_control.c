/* A frame from the control socket, taken for a request and for a reply: what decodes is within the
 * frame, and encodes to what decodes to the same. */
#include "fuzz.h"

#include "client/consumer/control_wire.h"

static void check_request(bytes frame) {
    static uint8_t again[CONTROL_LENGTH_SIZE + CONTROL_REQUEST_MAX];
    control_kind kind;
    failed_query query;
    failed_query back;
    failure why = {0};
    if (control_get_request(frame, &kind, &query, &why) != ST_OK) {
        PROMISE(why.reason[0]);
        return;
    }
    size_t len = control_put_request(kind, &query, again, &why);
    if (len == 0) return; /* longer texts than it would send */
    PROMISE(control_get_request(bytes_of(again + CONTROL_LENGTH_SIZE, len - CONTROL_LENGTH_SIZE),
                                &kind, &back, &why) == ST_OK);
    PROMISE(back.after == query.after && back.number == query.number);
    PROMISE(bytes_equal(back.id, query.id) && !back.id.data == !query.id.data);
    PROMISE(bytes_equal(back.code, query.code));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    control_reply reply;
    failure why = {0};
    uint32_t length;
    bytes frame = bytes_of(data, size);
    check_request(frame);
    if (control_get_reply(frame, &reply, &why) != ST_OK)
        PROMISE(why.reason[0]);
    else if (reply.kind == CONTROL_FAILED)
        PROMISE(reply.field.len + reply.reason.len <= size);
    if (size >= CONTROL_LENGTH_SIZE && control_get_length(data, 100, &length, &why) == ST_OK)
        PROMISE(length >= 2 && length <= 100);
    return 0;
}
