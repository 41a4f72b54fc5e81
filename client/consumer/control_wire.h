/*
 * control_wire: the frames on the control socket, for both ends. Pure; any thread.
 *
 *   frame     u32 length of what follows (little-endian), u8 version, u8 kind, then
 *   a request (list, retry, discard)
 *             u64 after  u64 limit  u64 number  u8 flags (1: with events; 2, 4, 8: id, operation,
 *             code are given), then of each of these three: varint length, bytes
 *   its replies: records (of a list only), and then either done or failed
 *     record  u64 number  varint length, figures  the event to the end; as on disk, see
 *             storage/failed_record.h, checksums included
 *     done    u64 last  u64 count  u8 more: a page is done, and the next one begins behind `last`
 *     failed  u64 count: changed before it failed  u8 gRPC code  varint length, field  the reason
 *             to the end
 *
 * To change anything: raise CONTROL_VERSION. An end that sees another version says so and stops.
 */
#ifndef INGEST_CLIENT_CONTROL_WIRE_H
#define INGEST_CLIENT_CONTROL_WIRE_H

#include "client/consumer/failed_query.h"

#define CONTROL_SOCKET "control.sock" /* in the data folder */

enum {
    CONTROL_VERSION = 1,
    CONTROL_LENGTH_SIZE = 4,
    CONTROL_HEAD_SIZE = CONTROL_LENGTH_SIZE + 2,
    CONTROL_REQUEST_MAX = 16 * 1024,
    CONTROL_REPLY_MAX = 64 << 20,
};

typedef enum control_kind {
    CONTROL_LIST = 1,
    CONTROL_RETRY = 2,
    CONTROL_DISCARD = 3,
    CONTROL_RECORD = 16,
    CONTROL_DONE = 17,
    CONTROL_FAILED = 18
} control_kind;

/* ---- requests ------------------------------------------------------------------------------- */

/* A whole frame. 0: a text of the query is longer than FAILED_TEXT_MAX; `why` says which. */
size_t control_put_request(control_kind kind, const failed_query *query,
                           uint8_t out[CONTROL_LENGTH_SIZE + CONTROL_REQUEST_MAX], failure *why);
/* Of a frame without its length; the query borrows from it. ST_INVALID; ST_UNIMPLEMENTED: of
 * another version. */
MUST_CHECK outcome control_get_request(bytes frame, control_kind *kind, failed_query *query,
                                       failure *why);

/* ---- replies -------------------------------------------------------------------------------- */

/* A buffer that grows. Zeroed at first; freed by its owner. */
typedef struct control_buffer {
    uint8_t *data; /* owned */
    size_t len;
    size_t size;
} control_buffer;

/* Append a frame each. False: no memory, nothing is appended. */
MUST_CHECK bool control_put_record(control_buffer *out, const failed_record *record);
MUST_CHECK bool control_put_done(control_buffer *out, const failed_page *page);
MUST_CHECK bool control_put_failed(control_buffer *out, uint64_t count, const failure *why);
/* Whether the record's frame keeps to CONTROL_REPLY_MAX. */
bool control_record_fits(const failed_record *record);

typedef struct control_reply {
    control_kind kind;
    failed_record record; /* CONTROL_RECORD; borrows from the frame */
    failed_page page;     /* CONTROL_DONE; its count with CONTROL_FAILED, too */
    int grpc_code;        /* CONTROL_FAILED */
    bytes field, reason;  /* CONTROL_FAILED; borrowed, too */
} control_reply;

/* The same; ST_CORRUPT: the record in it is damaged. */
MUST_CHECK outcome control_get_reply(bytes frame, control_reply *reply, failure *why);

/* The length in the first bytes of a frame; ST_INVALID: above `most`, or too short to be one. */
MUST_CHECK outcome control_get_length(const uint8_t head[CONTROL_LENGTH_SIZE], uint32_t most,
                                      uint32_t *length, failure *why);

#endif
