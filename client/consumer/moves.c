#include "client/consumer/moves.h"

#include "storage/encoding.h"

static void remove_at(moves *it, size_t i) {
    it->count--;
    memmove(&it->items[i], &it->items[i + 1], (it->count - i) * sizeof *it->items);
}

static size_t find(const moves *it, int64_t offset, uint64_t store) {
    size_t i = 0;
    while (i < it->count && (it->items[i].offset != offset || it->items[i].store != store))
        i++;
    return i;
}

void moves_unsure(moves *it, int64_t below) {
    if (below > it->unsure_below) it->unsure_below = below;
}

/* The oldest of another store. */
static bool make_room(moves *it, uint64_t store) {
    for (size_t i = 0; i < it->count; i++) {
        if (it->items[i].store == store) continue;
        moves_unsure(it, it->items[i].offset + 1);
        remove_at(it, i);
        return true;
    }
    return false;
}

bool moves_add(moves *it, int64_t offset, uint64_t store) {
    if (it->count == MOVES_MAX && !make_room(it, store)) return false;
    it->items[it->count++] = (moves_item){.offset = offset, .store = store};
    return true;
}

bool moves_has(const moves *it, int64_t offset, uint64_t store) {
    return find(it, offset, store) < it->count;
}

void moves_known(moves *it, int64_t offset, uint64_t store) {
    const size_t i = find(it, offset, store);
    if (i < it->count) it->items[i].known = true;
}

bool moves_drop_known(moves *it) {
    const size_t before = it->count;
    for (size_t i = it->count; i-- > 0;)
        if (it->items[i].known) remove_at(it, i);
    return it->count < before;
}

void moves_drop_store(moves *it, uint64_t store) {
    for (size_t i = it->count; i-- > 0;)
        if (it->items[i].store == store) remove_at(it, i);
}

size_t moves_encode(const moves *it, uint8_t out[MOVES_BYTES_MAX]) {
    if (it->count == 0 && it->unsure_below == 0) return 0;
    uint8_t *at = put_varint(out, (uint64_t)it->unsure_below);
    for (size_t i = 0; i < it->count; i++)
        at = put_le64(put_varint(at, (uint64_t)it->items[i].offset), it->items[i].store);
    return (size_t)(at - out);
}

bool moves_decode(moves *it, bytes from) {
    decoder in = decoder_of(from);
    *it = (moves){0};
    if (from.len == 0) return true;
    it->unsure_below = (int64_t)take_varint(&in);
    bool sound = in.ok && it->unsure_below >= 0;
    while (sound && in.left > 0) {
        moves_item next = {.offset = (int64_t)take_varint(&in)};
        next.store = take_le64(&in);
        sound = in.ok && next.offset >= 0 && it->count < MOVES_MAX;
        if (sound) it->items[it->count++] = next;
    }
    if (!sound) *it = (moves){0};
    return sound;
}
