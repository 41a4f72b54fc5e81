/*
 * Dead letters: their bytes, reading them, how one comes (the caller's side of a bury: any thread;
 * it prepares all bytes, so that the committer has only to put them into its batch) and how one
 * leaves (replay and purge: the committer's thread, which reads the letter, because only there
 * nothing can move it meanwhile).
 *
 *   version  crc32c of the rest  error_code  attempts  first_attempt_ms  last_attempt_ms
 *   varint length of the reason, reason, then the record as the outbox had it
 */
#include "storage/clock.h"
#include "storage/crc32c.h"
#include "storage/encoding.h"
#include "storage/idempotency.h"
#include "storage/store_meta.h"

#include <stdlib.h>

#define FORMAT_VERSION 1

enum { CRC_AT = 1, BODY_AT = 5, FIXED_SIZE = BODY_AT + 4 + 4 + 8 + 8 };

static bytes letter_put(uint8_t *out, const bury_reason *why, bytes reason, bytes record) {
    uint8_t *at = out + BODY_AT;
    at = put_le32(at, (uint32_t)why->error_code);
    at = put_le32(at, why->attempts);
    at = put_le64(at, (uint64_t)why->first_attempt_ms);
    at = put_le64(at, (uint64_t)why->last_attempt_ms);
    at = put_bytes(put_varint(at, reason.len), reason);
    at = put_bytes(at, record);
    out[0] = FORMAT_VERSION;
    put_le32(out + CRC_AT, crc32c_extend(0, out + BODY_AT, (size_t)(at - out) - BODY_AT));
    return bytes_of(out, (size_t)(at - out));
}

outcome dead_letter_decode(uint64_t sequence, bytes value, dead_letter *letter, failure *why) {
    if (value.len < FIXED_SIZE || value.data[0] != FORMAT_VERSION ||
        get_le32(value.data + CRC_AT) !=
            crc32c_extend(0, value.data + BODY_AT, value.len - BODY_AT))
        return fail(why, ST_CORRUPT, "dead", "dead letter %llu is damaged",
                    (unsigned long long)sequence);
    decoder in = decoder_of(bytes_of(value.data + BODY_AT, value.len - BODY_AT));
    letter->error_code = (int32_t)take_le32(&in);
    letter->attempts = take_le32(&in);
    letter->first_attempt_ms = (int64_t)take_le64(&in);
    letter->last_attempt_ms = (int64_t)take_le64(&in);
    bytes reason = take_bytes(&in, take_varint(&in));
    if (!in.ok || reason.len >= sizeof letter->reason)
        return fail(why, ST_CORRUPT, "dead", "dead letter %llu is malformed",
                    (unsigned long long)sequence);
    put_bytes((uint8_t *)letter->reason, reason);
    letter->reason[reason.len] = '\0';
    letter->size = EVENT_KEY_SIZE + value.len;
    return record_decode(sequence, take_bytes(&in, in.left), &letter->record, why);
}

outcome store_dead_get(event_store *store, uint32_t route, uint64_t sequence, dead_letter *letter,
                       failure *why) {
    uint8_t key[EVENT_KEY_SIZE];
    char *value;
    size_t len;
    *letter = (dead_letter){0};
    outcome result =
        store_db_get(&store->db, FAMILY_DEAD, event_key(key, route, sequence), &value, &len, why);
    if (result == ST_NOT_FOUND)
        return fail(why, ST_NOT_FOUND, "sequence", "no dead letter %llu",
                    (unsigned long long)sequence);
    if (result != ST_OK) return result;
    letter->memory = value;
    result = dead_letter_decode(sequence, bytes_of(value, len), letter, why);
    if (result != ST_OK) dead_letter_free(letter);
    return result;
}

void dead_letter_free(dead_letter *letter) {
    if (letter->memory) rocksdb_free(letter->memory);
    letter->memory = NULL;
}

static bytes iterator_value(const rocksdb_iterator_t *all) {
    bytes value;
    value.data = (const uint8_t *)rocksdb_iter_value(all, &value.len);
    return value;
}

static uint64_t iterator_sequence(const rocksdb_iterator_t *all) {
    size_t len;
    return get_be64((const uint8_t *)rocksdb_iter_key(all, &len) + 1);
}

/* No letter is below `first`, nor can one come there: only what is not settled can die. */
static void raise_dead_from(route_state *route, uint64_t first, uint64_t unsettled) {
    if (first > unsettled) first = unsettled;
    uint64_t known = atomic_load(&route->dead_from);
    while (known < first && !atomic_compare_exchange_weak(&route->dead_from, &known, first))
        continue;
}

static outcome visit_all(rocksdb_iterator_t *all, bool (*visit)(void *arg, const dead_letter *),
                         void *arg, failure *why) {
    outcome result = ST_OK;
    for (bool more = true; more && rocksdb_iter_valid(all);) {
        dead_letter letter = {0};
        result = dead_letter_decode(iterator_sequence(all), iterator_value(all), &letter, why);
        if (result != ST_OK) return result;
        more = visit(arg, &letter);
        if (more) rocksdb_iter_next(all);
    }
    char *error = NULL;
    rocksdb_iter_get_error(all, &error);
    return store_db_outcome(error, "read the dead letters", why);
}

outcome store_dead_scan(event_store *store, uint32_t number, uint64_t from,
                        bool (*visit)(void *arg, const dead_letter *letter), void *arg,
                        failure *why) {
    route_state *route = &store->routes[number];
    uint64_t unsettled = atomic_load(&route->position) + 1; /* before the iterator's snapshot */
    uint64_t known = atomic_load(&route->dead_from);
    bool whole = from <= known;
    uint8_t low[EVENT_KEY_SIZE];
    uint8_t high[EVENT_KEY_SIZE];
    bytes lower = event_key(low, number, whole ? known : from);
    bytes upper = event_key(high, number, UINT64_MAX);
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(read, 0);
    rocksdb_readoptions_set_iterate_upper_bound(read, (const char *)upper.data, upper.len);
    rocksdb_iterator_t *all =
        rocksdb_create_iterator_cf(store->db.handle, read, store->db.families[FAMILY_DEAD]);
    rocksdb_iter_seek(all, (const char *)lower.data, lower.len);
    uint64_t first = rocksdb_iter_valid(all) ? iterator_sequence(all) : UINT64_MAX;
    outcome result = visit_all(all, visit, arg, why);
    if (result == ST_OK && whole) raise_dead_from(route, first, unsettled);
    rocksdb_iter_destroy(all);
    rocksdb_readoptions_destroy(read);
    return result;
}

/* ---- bury -------------------------------------------------------------------------------- */

static bool is_moved(const route_state *route, uint64_t sequence) {
    for (size_t i = route->moved_count; i-- > 0;)
        if (route->moved[i] == sequence) return true;
    return false;
}

/* ST_OK: to be moved now; ST_DEAD_LETTER: has been already. */
static outcome check_bury(event_store *store, uint32_t number, uint64_t sequence, failure *why) {
    route_state *route = &store->routes[number];
    (void)pthread_mutex_lock(&route->lock);
    uint64_t last = route->synced.last;
    uint64_t position = route->position;
    bool moved = is_moved(route, sequence);
    (void)pthread_mutex_unlock(&route->lock);
    if (moved) return ST_DEAD_LETTER;
    if (sequence == 0 || sequence > last)
        return fail(why, ST_NOT_FOUND, "sequence", "route %s: no record %llu", route->name,
                    (unsigned long long)sequence);
    if (sequence > position) return ST_OK;
    dead_letter letter;
    if (store_dead_get(store, number, sequence, &letter, NULL) == ST_OK) {
        dead_letter_free(&letter);
        return ST_DEAD_LETTER;
    }
    return fail(why, ST_PRECONDITION, "sequence", "route %s: record %llu is settled already",
                route->name, (unsigned long long)sequence);
}

/* The id entry with its mark, when the id was remembered; otherwise both stay empty. */
static outcome mark_id(event_store *store, uint32_t route, const event_record *record, uint8_t *key,
                       uint8_t value[ID_VALUE_SIZE], command *request, failure *why) {
    id_entry entry;
    bytes id_key = id_key_put(key, record->source, record->id);
    outcome result = ids_get(store, id_key, clock_wall_ms(), &entry, why);
    if (result == ST_NOT_FOUND) return ST_OK;
    if (result != ST_OK) return result;
    if (entry.route != route || entry.sequence != record->sequence) return ST_OK;
    entry.dead = true;
    id_value_put(value, &entry);
    request->id_key = id_key;
    request->id_value = bytes_of(value, ID_VALUE_SIZE);
    return ST_OK;
}

static outcome bury_record(event_store *store, uint32_t route, const event_record *record,
                           bytes encoded, const bury_reason *reason, failure *why) {
    bytes text = bytes_of_string(reason->reason);
    if (text.len >= sizeof((dead_letter *)0)->reason)
        text.len = sizeof((dead_letter *)0)->reason - 1;
    size_t key_size = id_key_size(record->source, record->id);
    uint8_t *memory = malloc(key_size + FIXED_SIZE + VARINT_MAX_SIZE + text.len + encoded.len);
    if (!memory) return fail(why, ST_NO_MEMORY, "", "no memory for a dead letter");

    event_record moved = {.kind = RECORD_MOVED,
                          .sequence = record->sequence,
                          .cumulative_bytes = record->cumulative_bytes,
                          .accepted_ms = record->accepted_ms};
    uint8_t tombstone[64];
    uint8_t id_value[ID_VALUE_SIZE];
    size_t tombstone_size = record_encoded_size(&moved);
    record_encode(&moved, tombstone);
    command request = {.kind = COMMAND_BURY, .route = route, .sequence = record->sequence};
    request.letter = letter_put(memory + key_size, reason, text, encoded);
    request.tombstone = bytes_of(tombstone, tombstone_size);
    outcome result = mark_id(store, route, record, memory, id_value, &request, why);
    if (result == ST_OK) {
        result = committer_execute(store, &request);
        if (result != ST_OK) (void)fail(why, result, "", "%s", outcome_text(result));
    }
    free(memory);
    return result;
}

static outcome bury_locked(event_store *store, uint32_t route, uint64_t sequence,
                           const bury_reason *reason, failure *why) {
    outcome result = check_bury(store, route, sequence, why);
    if (result != ST_OK) return result == ST_DEAD_LETTER ? ST_OK : result;
    uint8_t key[EVENT_KEY_SIZE];
    char *value;
    size_t len;
    event_record record;
    result =
        store_db_get(&store->db, FAMILY_OUTBOX, event_key(key, route, sequence), &value, &len, why);
    if (result == ST_NOT_FOUND)
        return fail(why, ST_CORRUPT, "outbox", "route %s: record %llu is missing",
                    store->routes[route].name, (unsigned long long)sequence);
    if (result != ST_OK) return result;
    result = record_decode(sequence, bytes_of(value, len), &record, why);
    if (result == ST_OK)
        result = bury_record(store, route, &record, bytes_of(value, len), reason, why);
    rocksdb_free(value);
    return result;
}

outcome committer_bury(event_store *store, uint32_t route, uint64_t sequence,
                       const bury_reason *reason, failure *why) {
    pthread_mutex_t *lock = &store->routes[route].bury_lock;
    (void)pthread_mutex_lock(lock);
    outcome result = bury_locked(store, route, sequence, reason, why);
    (void)pthread_mutex_unlock(lock);
    return result;
}

/* ---- replay and purge -------------------------------------------------------------------- */

static outcome load(event_store *store, letter_request *request, failure *why) {
    append_request *append = &request->append;
    dead_letter letter;
    outcome result = store_dead_get(store, request->route, request->sequence, &letter, why);
    if (result != ST_OK) return result;
    request->memory = letter.memory;
    request->size = letter.size;
    append->route = request->route;
    append->record = letter.record;
    append->sequence = request->sequence;
    append->encoded_size = record_encoded_size(&append->record);
    if (request->sequence > atomic_load(&store->routes[request->route].position))
        return ST_PRECONDITION;
    id_entry entry;
    result = store_lookup(store, append->record.source, append->record.id, &entry, why);
    if (result != ST_OK && result != ST_NOT_FOUND) return result;
    append->remember = result == ST_OK && entry.dead && entry.route == request->route &&
                       entry.sequence == request->sequence;
    if (append->remember)
        memcpy(append->fingerprint, entry.fingerprint, sizeof append->fingerprint);
    return ST_OK;
}

outcome letter_load(event_store *store, letter_request *request) {
    failure why = {0};
    outcome result = load(store, request, &why);
    if (result == ST_CORRUPT || result == ST_IO)
        store_log(store, STORE_LOG_ERROR, "%s", why.reason);
    return result;
}

/* What recover_moved builds on: no letter leaves from above the hint. */
static void pass_hint(event_store *store, rocksdb_writebatch_t *batch, uint32_t number,
                      uint64_t sequence) {
    route_state *route = &store->routes[number];
    route_durable *staged = &route->staged;
    if (sequence <= staged->anchor.sequence) return;
    (void)pthread_mutex_lock(&route->lock);
    /* Where its record lies in Kafka is not known here; an older one only costs time to settle. */
    staged->anchor.sequence = route->position;
    staged->anchor_cumulative = route->position_cumulative;
    (void)pthread_mutex_unlock(&route->lock);
    meta_put_anchor(&store->db, batch, number, &staged->anchor, staged->anchor_cumulative);
}

void stage_letter(event_store *store, rocksdb_writebatch_t *batch, const letter_request *request) {
    pass_hint(store, batch, request->route, request->sequence);
    route_ledger *ledger = &store->routes[request->route].staged.ledger;
    ledger->dead--;
    ledger->dead_bytes -= request->size;
    if (request->move == LETTER_REPLAY)
        ledger->replayed++;
    else
        ledger->purged++;
    meta_put_ledger(&store->db, batch, request->route, ledger);
    uint8_t buffer[EVENT_KEY_SIZE];
    bytes key = event_key(buffer, request->route, request->sequence);
    rocksdb_writebatch_delete_cf(batch, store->db.families[FAMILY_DEAD], (const char *)key.data,
                                 key.len);
}
