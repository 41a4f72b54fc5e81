/*
 * Protobuf on the wire: what must be known about a message before it is unpacked. protobuf-c
 * recurses as deep as the input says, cuts strings at a NUL, passes any bytes for UTF-8 and cannot
 * merge every message that is given twice; codec_check refuses such input first, and names the
 * field. No state, no allocation; any thread.
 */
#ifndef INGEST_SERVER_CODEC_H
#define INGEST_SERVER_CODEC_H

#include <protobuf-c/protobuf-c.h>

#include "storage/bytes.h"
#include "storage/status.h"

enum { CODEC_DEPTH_MAX = 128 };

typedef struct codec_limits {
    uint32_t max_depth;  /* messages within messages, the outermost counts; 1 .. CODEC_DEPTH_MAX */
    uint32_t max_fields; /* over all levels, those in packed fields not counted: a two-byte field
                            may cost some hundred when unpacked */
} codec_limits;

#define CODEC_LIMITS_DEFAULT ((codec_limits){.max_depth = 64, .max_fields = 1000000})

/*
 * ST_OK: protobuf_c_message_unpack(type) will take it, within the limits, and lose nothing.
 * Else ST_INVALID, and `why` holds the field's path ("event.transaction.operations[2].name").
 */
MUST_CHECK outcome codec_check(const ProtobufCMessageDescriptor *type, bytes wire,
                               codec_limits limits, failure *why);

/* Unpacks what codec_check let pass. NULL when memory is out. NULL allocator: malloc. */
void *codec_unpack(const ProtobufCMessageDescriptor *type, bytes wire,
                   ProtobufCAllocator *allocator);

/* One field of a message, in the order of the wire. */
typedef struct codec_field {
    uint32_t number;
    uint32_t wire_type; /* as ProtobufCWireType */
    uint64_t value;     /* varint, 64 and 32 bits */
    bytes body;         /* length-delimited; else empty */
} codec_field;

/* Takes the next field off the front of `rest`. False at the end, and when what follows is
 * malformed: `rest->len` is 0 only at the end. */
bool codec_next(bytes *rest, codec_field *field);

/* The last length-delimited field `number` at the top level, and how often it occurs there, which
 * may be more than once even if it is not repeated. False: absent, or the wire is malformed. */
bool codec_find_field(bytes wire, uint32_t number, bytes *body, unsigned *count);

#endif
