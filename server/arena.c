/* A chain of blocks, each twice as large as the one before. No locks. */
#include "server/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, FIRST_BLOCK_BYTES = 2048, LARGEST_BLOCK_BYTES = 256 * 1024 };

struct arena_block {
    arena_block *older;
    size_t size;
};

static void *allocator_alloc(void *it, size_t size) { return arena_alloc(it, size); }

static void allocator_free(void *it, void *memory) {
    (void)it;
    (void)memory;
}

void arena_init(arena *it, void *first, size_t first_size) {
    *it = (arena){.next = first, .left = first_size};
    it->allocator = (ProtobufCAllocator){
        .alloc = allocator_alloc, .free = allocator_free, .allocator_data = it};
}

static void add_block(arena *it, size_t at_least) {
    size_t size = it->blocks ? it->blocks->size * 2 : FIRST_BLOCK_BYTES;
    if (size > LARGEST_BLOCK_BYTES) size = LARGEST_BLOCK_BYTES;
    if (size < at_least) size = at_least;
    const size_t header = (sizeof(arena_block) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    arena_block *block = malloc(header + size);
    if (!block) {
        (void)fputs("ingest: out of memory\n", stderr);
        abort();
    }
    block->older = it->blocks;
    block->size = size;
    it->blocks = block;
    it->next = (char *)block + header;
    it->left = size;
}

void *arena_alloc(arena *it, size_t size) {
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size > it->left) add_block(it, size);
    void *memory = it->next;
    it->next += size;
    it->left -= size;
    return memory;
}

char *arena_string(arena *it, const void *text, size_t len) {
    char *copy = arena_alloc(it, len + 1);
    if (len > 0) memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void arena_free(arena *it) {
    while (it->blocks) {
        arena_block *block = it->blocks;
        it->blocks = block->older;
        free(block);
    }
}
