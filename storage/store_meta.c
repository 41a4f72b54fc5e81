/* Encodes and decodes meta. Writing is the committer's, or store_open's before it runs; loading is
 * store_open's. Loading fails with ST_CORRUPT on anything that it does not understand. */
#include "storage/store_meta.h"

#include "storage/encoding.h"

#include <stdlib.h>

#define ANCHOR_SIZE_MAX 512

enum { KEY_SIZE_MAX = 32, LEDGER_SIZE = 6 * 8, LOST_SIZE = 2 * 8 };

/* PREFIX and, when `digits` is not 0, that many bytes of a big-endian number. */
static bytes meta_key(uint8_t key[KEY_SIZE_MAX], const char *prefix, uint64_t number,
                      size_t digits) {
    uint8_t octets[8];
    size_t len = strlen(prefix);
    put_be64(octets, number);
    memcpy(key, prefix, len); /* NOLINT(bugprone-not-null-terminated-result): no text any more */
    memcpy(key + len, octets + 8 - digits, digits);
    return bytes_of(key, len + digits);
}

static void meta_put(const store_db *db, rocksdb_writebatch_t *batch, const char *prefix,
                     uint64_t number, size_t digits, bytes value) {
    uint8_t key[KEY_SIZE_MAX];
    batch_put(db, batch, FAMILY_META, meta_key(key, prefix, number, digits), value);
}

void meta_put_identity(const store_db *db, rocksdb_writebatch_t *batch, const uuid *id) {
    uint8_t format[4];
    put_le32(format, STORE_FORMAT);
    meta_put(db, batch, "format", 0, 0, bytes_of(format, sizeof format));
    meta_put(db, batch, "store", 0, 0, bytes_of(id->octets, sizeof id->octets));
}

void meta_put_route(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                    const char *name) {
    meta_put(db, batch, "route/", route, 1, bytes_of_string(name));
}

void meta_put_ledger(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                     const route_ledger *ledger) {
    uint8_t value[LEDGER_SIZE];
    uint8_t *at = value;
    at = put_le64(at, ledger->dead);
    at = put_le64(at, ledger->dead_bytes);
    at = put_le64(at, ledger->buried);
    at = put_le64(at, ledger->purged);
    at = put_le64(at, ledger->lost);
    at = put_le64(at, ledger->replayed);
    meta_put(db, batch, "ledger/", route, 1, bytes_of(value, (size_t)(at - value)));
}

void meta_put_anchor(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                     const route_anchor *anchor, uint64_t cumulative) {
    uint8_t value[ANCHOR_SIZE_MAX];
    uint8_t *at = value;
    bytes cluster =
        bytes_of(anchor->cluster_id, strnlen(anchor->cluster_id, sizeof anchor->cluster_id - 1));
    bytes topic = bytes_of(anchor->positions_topic,
                           strnlen(anchor->positions_topic, sizeof anchor->positions_topic - 1));
    *at++ = anchor->has_published;
    at = put_le32(at, (uint32_t)anchor->positions_partition);
    at = put_le64(at, anchor->sequence);
    at = put_le64(at, cumulative);
    at = put_le64(at, (uint64_t)anchor->kafka_offset);
    at = put_bytes(at, bytes_of(anchor->incarnation.octets, sizeof anchor->incarnation.octets));
    at = put_bytes(put_varint(at, cluster.len), cluster);
    at = put_bytes(put_varint(at, topic.len), topic);
    meta_put(db, batch, "anchor/", route, 1, bytes_of(value, (size_t)(at - value)));
}

void meta_put_incarnation(const store_db *db, rocksdb_writebatch_t *batch,
                          const incarnation_entry *entry, uint32_t route_count) {
    uint8_t value[16 + 8 * STORE_ROUTES_MAX];
    uint8_t *at = put_bytes(value, bytes_of(entry->id.octets, sizeof entry->id.octets));
    for (uint32_t i = 0; i < route_count; i++)
        at = put_le64(at, entry->last_at_open[i]);
    meta_put(db, batch, "opened/", entry->number, 8, bytes_of(value, (size_t)(at - value)));
}

void meta_put_ids(const store_db *db, rocksdb_writebatch_t *batch, const ids_window *ids) {
    uint8_t value[IDS_WINDOW_SIZE_MAX];
    meta_put(db, batch, "ids", 0, 0, ids_window_put(ids, value));
}

void meta_put_settled(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                      const settled_marks *marks) {
    uint8_t value[SETTLED_SIZE_MAX];
    meta_put(db, batch, "settled/", route, 1, settled_put(marks, value));
}

void meta_delete_incarnation(const store_db *db, rocksdb_writebatch_t *batch, uint64_t number) {
    uint8_t key[KEY_SIZE_MAX];
    bytes run = meta_key(key, "opened/", number, 8);
    rocksdb_writebatch_delete_cf(batch, db->families[FAMILY_META], (const char *)run.data, run.len);
}

outcome meta_put_lost(const store_db *db, rocksdb_writebatch_t *batch, uint32_t route,
                      const lost_range *ranges, size_t count, failure *why) {
    uint8_t *value = malloc(count * LOST_SIZE);
    if (!value) return fail(why, ST_NO_MEMORY, "", "no memory for %zu lost ranges", count);
    uint8_t *at = value;
    for (size_t i = 0; i < count; i++)
        at = put_le64(put_le64(at, ranges[i].first), ranges[i].last);
    meta_put(db, batch, "lost/", route, 1, bytes_of(value, count * LOST_SIZE));
    free(value);
    return ST_OK;
}

/* ---- loading --------------------------------------------------------------------------- */

static bool take_text(decoder *in, char *out, size_t size) {
    bytes text = take_bytes(in, take_varint(in));
    if (!in->ok || text.len >= size) return false;
    memcpy(out, text.data, text.len);
    out[text.len] = '\0';
    return true;
}

static void take_uuid(decoder *in, uuid *id) {
    bytes run = take_bytes(in, sizeof id->octets);
    if (run.len) memcpy(id->octets, run.data, run.len);
}

static bool load_anchor(decoder *in, route_durable *to) {
    to->anchor.has_published = take_u8(in);
    to->anchor.positions_partition = (int32_t)take_le32(in);
    to->anchor.sequence = take_le64(in);
    to->anchor_cumulative = take_le64(in);
    to->anchor.kafka_offset = (int64_t)take_le64(in);
    take_uuid(in, &to->anchor.incarnation);
    return take_text(in, to->anchor.cluster_id, sizeof to->anchor.cluster_id) &&
           take_text(in, to->anchor.positions_topic, sizeof to->anchor.positions_topic) &&
           in->left == 0;
}

static bool load_ledger(decoder *in, route_ledger *ledger) {
    ledger->dead = take_le64(in);
    ledger->dead_bytes = take_le64(in);
    ledger->buried = take_le64(in);
    ledger->purged = take_le64(in);
    ledger->lost = take_le64(in);
    ledger->replayed = take_le64(in);
    return in->ok && in->left == 0;
}

bool meta_add_moved(route_state *route, uint64_t sequence) {
    if (route->moved_count == route->moved_capacity) {
        size_t capacity = route->moved_capacity ? 2 * route->moved_capacity : 64;
        uint64_t *grown = realloc(route->moved, capacity * sizeof *grown);
        if (!grown) return false;
        route->moved = grown;
        route->moved_capacity = capacity;
    }
    route->moved[route->moved_count++] = sequence;
    return true;
}

static outcome understood(bool is) { return is ? ST_OK : ST_CORRUPT; }

/* The tombstones of what is lost above the hint; the anchor has been read, by the order of keys. */
static outcome load_lost(decoder *in, route_state *route) {
    bool done = true;
    while (done && in->left) {
        uint64_t first = take_le64(in);
        uint64_t last = take_le64(in);
        uint64_t hint = route->synced.anchor.sequence;
        if (!in->ok) return ST_CORRUPT;
        for (uint64_t i = first > hint ? first : hint + 1; done && i <= last; i++)
            done = meta_add_moved(route, i);
    }
    return done ? ST_OK : ST_NO_MEMORY;
}

static bool load_route(event_store *store, uint32_t route, decoder *in) {
    /* Numbers are given in order, and read in the order of their keys. */
    bytes name = take_bytes(in, in->left);
    if (route != store->route_count || name.len == 0 || name.len >= ROUTE_NAME_SIZE) return false;
    memcpy(store->routes[route].name, name.data, name.len);
    store->route_count++;
    return true;
}

static outcome load_incarnation(event_store *store, uint64_t number, decoder *in) {
    size_t size = (store->incarnation_count + 1) * sizeof *store->incarnations;
    incarnation_entry *grown = realloc(store->incarnations, size);
    if (!grown) return ST_NO_MEMORY;
    store->incarnations = grown;
    incarnation_entry *entry = &grown[store->incarnation_count++];
    *entry = (incarnation_entry){.number = number};
    take_uuid(in, &entry->id);
    for (int i = 0; i < STORE_ROUTES_MAX && in->left; i++)
        entry->last_at_open[i] = take_le64(in);
    return understood(in->ok && in->left == 0);
}

static bool strip(bytes *key, const char *prefix, size_t digits) {
    size_t len = strlen(prefix);
    if (key->len != len + digits || memcmp(key->data, prefix, len) != 0) return false;
    *key = bytes_of(key->data + len, digits);
    return true;
}

outcome meta_load_entry(event_store *store, bytes key, bytes value, uint32_t *format) {
    decoder in = decoder_of(value);
    if (strip(&key, "format", 0)) {
        *format = take_le32(&in);
        return understood(in.ok);
    }
    if (strip(&key, "store", 0)) {
        take_uuid(&in, &store->id);
        return understood(in.ok);
    }
    if (strip(&key, "ids", 0)) return understood(ids_window_get(&store->ids, value));
    if (strip(&key, "opened/", 8)) return load_incarnation(store, get_be64(key.data), &in);
    if (strip(&key, "route/", 1)) return understood(load_route(store, key.data[0], &in));
    if (strip(&key, "anchor/", 1) && key.data[0] < STORE_ROUTES_MAX)
        return understood(load_anchor(&in, &store->routes[key.data[0]].synced));
    if (strip(&key, "ledger/", 1) && key.data[0] < STORE_ROUTES_MAX)
        return understood(load_ledger(&in, &store->routes[key.data[0]].synced.ledger));
    if (strip(&key, "settled/", 1) && key.data[0] < STORE_ROUTES_MAX)
        return understood(settled_get(&store->routes[key.data[0]].settled, value));
    if (strip(&key, "lost/", 1) && key.data[0] < STORE_ROUTES_MAX)
        return load_lost(&in, &store->routes[key.data[0]]);
    return ST_CORRUPT;
}

static bytes iterator_key(const rocksdb_iterator_t *all) {
    bytes key;
    key.data = (const uint8_t *)rocksdb_iter_key(all, &key.len);
    return key;
}

static bytes iterator_value(const rocksdb_iterator_t *all) {
    bytes value;
    value.data = (const uint8_t *)rocksdb_iter_value(all, &value.len);
    return value;
}

/* Before anything else is read: a newer program may have added entries that we do not know. */
static outcome check_format(event_store *store, bool *fresh, failure *why) {
    char *value;
    size_t len;
    outcome result =
        store_db_get(&store->db, FAMILY_META, bytes_of_string("format"), &value, &len, why);
    *fresh = result == ST_NOT_FOUND;
    if (*fresh) return ST_OK;
    if (result != ST_OK) return result;
    uint32_t format = len == 4 ? get_le32((const uint8_t *)value) : 0;
    rocksdb_free(value);
    if (format == STORE_FORMAT) return ST_OK;
    if (format > STORE_FORMAT)
        return fail(why, ST_PRECONDITION, "format",
                    "%s was written by a newer version (store format %u, this program knows %u): "
                    "start that version again",
                    store->directory, format, STORE_FORMAT);
    return fail(why, ST_CORRUPT, "format", "%s: store format %u never existed", store->directory,
                format);
}

outcome meta_load(event_store *store, bool *fresh, failure *why) {
    outcome result = check_format(store, fresh, why);
    if (result != ST_OK) return result;
    uint32_t format = 0;
    rocksdb_iterator_t *all = rocksdb_create_iterator_cf(store->db.handle, store->db.read,
                                                         store->db.families[FAMILY_META]);
    for (rocksdb_iter_seek_to_first(all); rocksdb_iter_valid(all); rocksdb_iter_next(all)) {
        bytes key = iterator_key(all);
        result = *fresh ? ST_CORRUPT : meta_load_entry(store, key, iterator_value(all), &format);
        if (result == ST_OK) continue;
        result = fail(why, result, "meta", "%s: cannot %s the entry \"%.*s\"", store->directory,
                      result == ST_CORRUPT ? "understand" : "keep",
                      (int)(key.len < 16 ? key.len : 16), (const char *)key.data);
        break;
    }
    char *error = NULL;
    rocksdb_iter_get_error(all, &error);
    if (result == ST_OK)
        result = store_db_outcome(error, "read meta", why);
    else
        rocksdb_free(error);
    rocksdb_iter_destroy(all);
    return result;
}
