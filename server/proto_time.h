/* Milliseconds as protobuf's well-known types. */
#ifndef INGEST_SERVER_PROTO_TIME_H
#define INGEST_SERVER_PROTO_TIME_H

#include <google/protobuf/duration.pb-c.h>
#include <google/protobuf/timestamp.pb-c.h>

static inline void proto_timestamp(Google__Protobuf__Timestamp *out, int64_t wall_ms) {
    google__protobuf__timestamp__init(out);
    out->seconds = wall_ms / 1000;
    out->nanos = (int32_t)(wall_ms % 1000) * 1000000;
}

static inline void proto_duration(Google__Protobuf__Duration *out, int64_t ms) {
    google__protobuf__duration__init(out);
    out->seconds = ms / 1000;
    out->nanos = (int32_t)(ms % 1000) * 1000000;
}

#endif
