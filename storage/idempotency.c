/* Identities: bytes, judgement, compaction filter, and the hash table of one batch. The table is
 * the committer's; the filter runs on RocksDB's threads. An entry that cannot be decoded is
 * ST_CORRUPT to a reader and kept by the filter. */
#include "storage/idempotency.h"

#include "storage/clock.h"
#include "storage/encoding.h"

#include <stdlib.h>
#include <sys/random.h>

enum { FLAG_DEAD = 1, FLAG_PURGED = 2 };

size_t id_key_size(bytes source, bytes id) { return varint_size(source.len) + source.len + id.len; }

bytes id_key_put(uint8_t *out, bytes source, bytes id) {
    uint8_t *end = put_bytes(put_bytes(put_varint(out, source.len), source), id);
    return bytes_of(out, (size_t)(end - out));
}

void id_value_put(uint8_t out[ID_VALUE_SIZE], const id_entry *entry) {
    memcpy(out, entry->fingerprint, STORE_FINGERPRINT_SIZE);
    uint8_t *at = out + STORE_FINGERPRINT_SIZE;
    *at++ = (uint8_t)entry->route;
    *at++ = (uint8_t)((entry->dead ? FLAG_DEAD : 0) | (entry->purged ? FLAG_PURGED : 0));
    at = put_le64(at, entry->sequence);
    put_le64(at, (uint64_t)entry->accepted_ms);
}

bool id_value_get(bytes value, id_entry *entry) {
    if (value.len != ID_VALUE_SIZE) return false;
    decoder in = decoder_of(value);
    memcpy(entry->fingerprint, take_bytes(&in, STORE_FINGERPRINT_SIZE).data,
           STORE_FINGERPRINT_SIZE);
    entry->route = take_u8(&in);
    uint8_t flags = take_u8(&in);
    entry->dead = flags & FLAG_DEAD;
    entry->purged = flags & FLAG_PURGED;
    entry->sequence = take_le64(&in);
    entry->accepted_ms = (int64_t)take_le64(&in);
    return entry->route < STORE_ROUTES_MAX;
}

bool id_entry_counts(const event_store *store, const id_entry *entry, int64_t now_ms) {
    if (entry->dead) return true;
    const route_state *route = &store->routes[entry->route];
    if (entry->sequence > atomic_load_explicit(&route->position, memory_order_relaxed)) return true;
    if (entry->accepted_ms <= ids_window_forgotten_ms(&store->ids)) return false;
    if (entry->purged) return now_ms - entry->accepted_ms < (int64_t)store->ids.window_ms;
    return entry->sequence > atomic_load_explicit(&route->settled.expired, memory_order_relaxed);
}

outcome ids_get(const event_store *store, bytes key, int64_t now_ms, id_entry *entry,
                failure *why) {
    char *error = NULL;
    rocksdb_pinnableslice_t *pinned =
        rocksdb_get_pinned_cf(store->db.handle, store->db.read, store->db.families[FAMILY_IDS],
                              (const char *)key.data, key.len, &error);
    if (error) return store_db_outcome(error, "read an id", why);
    if (!pinned) return ST_NOT_FOUND;
    size_t len;
    const char *value = rocksdb_pinnableslice_value(pinned, &len);
    bool sound = id_value_get(bytes_of(value, len), entry);
    rocksdb_pinnableslice_destroy(pinned);
    if (!sound) return fail(why, ST_CORRUPT, "ids", "an id entry is malformed");
    return id_entry_counts(store, entry, now_ms) ? ST_OK : ST_NOT_FOUND;
}

static unsigned char filter_entry(void *state, int level, const char *key, size_t key_length,
                                  const char *value, size_t value_length, char **new_value,
                                  size_t *new_value_length, unsigned char *value_changed) {
    (void)level, (void)key, (void)key_length, (void)new_value, (void)new_value_length;
    *value_changed = 0;
    id_entry entry;
    if (!id_value_get(bytes_of(value, value_length), &entry)) return 0;
    return !id_entry_counts(state, &entry, clock_wall_ms());
}

static const char *filter_name(void *state) {
    (void)state;
    return "ingest-ids";
}

static void filter_destroy(void *state) { (void)state; }

rocksdb_compactionfilter_t *ids_filter_create(event_store *store) {
    return rocksdb_compactionfilter_create(store, filter_destroy, filter_entry, filter_name);
}

/* ---- one batch ------------------------------------------------------------------------- */

struct batch_slot {
    append_request *request;
    uint32_t hash;
    uint32_t stamp;
};

bool batch_ids_init(batch_ids *self, uint32_t requests_max) {
    uint32_t capacity = 1;
    while (capacity < 2 * requests_max)
        capacity *= 2;
    *self = (batch_ids){.capacity = capacity};
    self->slots = calloc(capacity, sizeof *self->slots);
    return self->slots && getrandom(&self->seed, sizeof self->seed, 0) == sizeof self->seed;
}

void batch_ids_fini(batch_ids *self) {
    free(self->slots);
    self->slots = NULL;
}

void batch_ids_begin(batch_ids *self, uint32_t requests) {
    uint32_t size = 16;
    while (size < 2 * requests && size < self->capacity)
        size *= 2;
    self->mask = size - 1;
    if (++self->stamp) return;
    /* Came round: a slot of four thousand million batches ago must not look like a new one. */
    memset(self->slots, 0, self->capacity * sizeof *self->slots);
    self->stamp = 1;
}

static uint64_t mix(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xd6e8feb86659fd93u);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_bytes(uint64_t seed, bytes run) {
    uint64_t hash = mix(seed, run.len);
    for (; run.len >= 8; run = bytes_of(run.data + 8, run.len - 8)) {
        uint64_t word;
        memcpy(&word, run.data, sizeof word);
        hash = mix(hash ^ word, seed);
    }
    uint64_t rest = 0;
    if (run.len) memcpy(&rest, run.data, run.len);
    return mix(hash ^ rest, seed);
}

/* The slot of the identity, or the empty one where it belongs. */
static struct batch_slot *find_slot(const batch_ids *self, const append_request *request,
                                    uint32_t hash) {
    const event_record *record = &request->record;
    for (uint32_t i = hash & self->mask;; i = (i + 1) & self->mask) {
        struct batch_slot *slot = &self->slots[i];
        if (slot->stamp != self->stamp) return slot;
        const event_record *other = &slot->request->record;
        if (slot->hash == hash && bytes_equal(other->id, record->id) &&
            bytes_equal(other->source, record->source))
            return slot;
    }
}

static uint32_t hash_identity(const batch_ids *self, const append_request *request) {
    uint64_t hash = hash_bytes(self->seed, request->record.source);
    return (uint32_t)hash_bytes(hash, request->record.id);
}

append_request *batch_ids_find(const batch_ids *self, const append_request *request) {
    const struct batch_slot *slot = find_slot(self, request, hash_identity(self, request));
    return slot->stamp == self->stamp ? slot->request : NULL;
}

void batch_ids_enter(batch_ids *self, append_request *request) {
    uint32_t hash = hash_identity(self, request);
    *find_slot(self, request, hash) =
        (struct batch_slot){.request = request, .hash = hash, .stamp = self->stamp};
}
