/*
 * arena: memory that is given out piece by piece and taken back at once. One thread at a time.
 */
#ifndef INGEST_SERVER_ARENA_H
#define INGEST_SERVER_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

typedef struct arena_block arena_block;

typedef struct arena {
    arena_block *blocks; /* owned; the newest first */
    char *next;
    size_t left;
    ProtobufCAllocator allocator; /* gives out from this arena; its free does nothing */
} arena;

/* The first block may be given (on the stack, or part of a larger allocation): not owned. */
void arena_init(arena *it, void *first, size_t first_size);
/* 16-byte aligned, not zeroed. Never NULL: ends the process when there is no memory, as every
 * size that reaches it is bounded by the message limits. */
void *arena_alloc(arena *it, size_t size);
char *arena_string(arena *it, const void *text, size_t len); /* a copy with NUL */
void arena_free(arena *it);                                  /* `it` itself is not freed */

#endif
