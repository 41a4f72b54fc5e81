/*
 * progress: how far the records behind a committed offset are, as the text that is committed with
 * it: "1.CRC.RUNS" or "1.CRC.RUNS.MOVES", both in base64url. CRC is that of the catalogue's
 * effects, in hexadecimal; RUNS are pairs of varints (state, run length), from the committed offset
 * on. Offsets that hold no record belong to the run before them; all behind the last run is not
 * begun. MOVES: see moves.h. Pure.
 */
#ifndef INGEST_CLIENT_PROGRESS_H
#define INGEST_CLIENT_PROGRESS_H

#include "client/consumer/moves.h"

enum {
    PROGRESS_TEXT_MAX = 4096, /* Kafka's default of offset.metadata.max.bytes */
    PROGRESS_HEAD_CHARS = 11, /* "1.", eight digits, "." */
    PROGRESS_MOVES_CHARS = 1 + (MOVES_BYTES_MAX * 4 + 2) / 3,
    PROGRESS_BYTES_MAX = /* of the runs, before base64 */
    (PROGRESS_TEXT_MAX - PROGRESS_HEAD_CHARS - PROGRESS_MOVES_CHARS) / 4 * 3,
};

/* States of a record: 0 not begun, 1 done, 2 + k: k of its event's effects are done. */
enum { PROGRESS_NOT_BEGUN = 0, PROGRESS_DONE = 1, PROGRESS_PARTLY = 2 };

size_t progress_varint_size(uint64_t value);

/* ---- writing: runs in the order of their offsets; neighbours of one state become one run ------
 */

typedef struct progress_writer {
    uint8_t encoded[PROGRESS_BYTES_MAX];
    size_t len;
    uint32_t state; /* of the run that is open */
    uint64_t length;
    bool full; /* it did not fit: the text would be wrong */
} progress_writer;

void progress_begin(progress_writer *it);
void progress_add(progress_writer *it, uint32_t state, uint64_t length);
/* NUL-terminated; returns its length. What is not begun at the end is left out. Never "": that is
 * what others commit. The writer must not be full. */
size_t progress_end(progress_writer *it, uint32_t crc, const moves *moved,
                    char text[PROGRESS_TEXT_MAX + 1]);

/* ---- reading ----------------------------------------------------------------------------------
 */

typedef struct progress {
    bool ours; /* it is a text of this library */
    uint32_t crc;
    uint8_t encoded[PROGRESS_BYTES_MAX];
    size_t len;
    moves moves;
} progress;

/* "" is no progress, and not ours. ST_INVALID: it was not written by us; ST_UNIMPLEMENTED: by a
 * later version. */
MUST_CHECK outcome progress_parse(bytes text, progress *out, failure *why);
/* Of the record so many offsets behind the committed one. */
uint32_t progress_state(const progress *it, uint64_t distance);

#endif
