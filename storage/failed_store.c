/*
 * Failed events: opening, and changes. Each change reads what is there through the batch that is
 * being staged, so it sees those before it, and puts into the batch: figures, event, identity, time
 * of the next attempt. The counters go with it when it is written.
 *
 * One thread at a time. Fails before anything of the change is staged; after a failed write for
 * good.
 */
#include "storage/crc32c.h"
#include "storage/failed_internal.h"
#include "storage/failed_record.h"
#include "storage/folder.h"
#include "storage/store_db.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- counters ------------------------------------------------------------------------------- */

/* To change the layout of anything here or in a record: raise it, and convert at the opening. */
#define STORE_FORMAT 1

enum { CRC_AT = 1, BODY_AT = 5, COUNTERS_SIZE = BODY_AT + 7 * 8 };

static void counters_encode(const failed_counters *counters, uint8_t out[COUNTERS_SIZE]) {
    uint8_t *at = put_le64(out + BODY_AT, counters->store);
    at = put_le64(at, counters->next_number);
    at = put_le64(at, counters->events);
    at = put_le64(at, counters->bytes);
    for (int i = FAILED_WAITING; i <= FAILED_HELD; i++)
        at = put_le64(at, counters->states[i]);
    out[0] = STORE_FORMAT;
    put_le32(out + CRC_AT, crc32c_extend(0, out + BODY_AT, COUNTERS_SIZE - BODY_AT));
}

outcome failed_counters_decode(const char *directory, bytes value, failed_counters *counters,
                               failure *why) {
    if (value.len > 0 && value.data[0] > STORE_FORMAT)
        return fail(why, ST_PRECONDITION, "format",
                    "%s: written by a newer version: its format is %u, this one knows up to %d",
                    directory, value.data[0], STORE_FORMAT);
    if (value.len != COUNTERS_SIZE || value.data[0] != STORE_FORMAT ||
        get_le32(value.data + CRC_AT) !=
            crc32c_extend(0, value.data + BODY_AT, COUNTERS_SIZE - BODY_AT))
        return fail(why, ST_CORRUPT, "counters", "%s: the counters are damaged", directory);
    decoder in = decoder_of(bytes_of(value.data + BODY_AT, COUNTERS_SIZE - BODY_AT));
    counters->store = take_le64(&in);
    counters->next_number = take_le64(&in);
    counters->events = take_le64(&in);
    counters->bytes = take_le64(&in);
    for (int i = FAILED_WAITING; i <= FAILED_HELD; i++)
        counters->states[i] = take_le64(&in);
    return ST_OK;
}

static void count_in(failed_counters *counters, failed_state state, uint64_t size) {
    counters->events++;
    counters->bytes += size;
    counters->states[state]++;
}

static void count_out(failed_counters *counters, failed_state state, uint64_t size) {
    counters->events--;
    counters->bytes -= size;
    counters->states[state]--;
}

/* ---- open and close ------------------------------------------------------------------------- */

static outcome check_empty(const failed_store *store, failure *why) {
    char *error = NULL;
    rocksdb_iterator_t *all = rocksdb_create_iterator_cf(store->db.handle, store->db.read,
                                                         store->db.families[FAILED_FIGURES]);
    rocksdb_iter_seek_to_first(all);
    bool empty = !rocksdb_iter_valid(all);
    rocksdb_iter_get_error(all, &error);
    rocksdb_iter_destroy(all);
    outcome result = store_db_outcome(error, "read the failed events", why);
    if (result != ST_OK || empty) return result;
    return fail(why, ST_CORRUPT, "counters", "%s: the counters are missing", store->directory);
}

static void stage(failed_store *store, failed_family family, bytes key, bytes value) {
    rocksdb_writebatch_wi_put_cf(store->batch, store->db.families[family], (const char *)key.data,
                                 key.len, (const char *)value.data, value.len);
}

static void unstage(failed_store *store, failed_family family, bytes key) {
    rocksdb_writebatch_wi_delete_cf(store->batch, store->db.families[family],
                                    (const char *)key.data, key.len);
}

/* Through the batch; otherwise as failed_scan_get. */
static outcome staged_get(const failed_store *store, failed_family family, bytes key, char **value,
                          size_t *len, failure *why) {
    char *error = NULL;
    *value = rocksdb_writebatch_wi_get_from_batch_and_db_cf(
        store->batch, store->db.handle, store->db.read, store->db.families[family],
        (const char *)key.data, key.len, len, &error);
    if (error) return store_db_outcome(error, "read", why);
    return *value ? ST_OK : ST_NOT_FOUND;
}

static outcome write_staged(failed_store *store, failure *why) {
    uint8_t counters[COUNTERS_SIZE];
    counters_encode(&store->staged, counters);
    stage(store, FAILED_META, COUNTERS_KEY, bytes_of(counters, sizeof counters));
    outcome result = failed_db_write(&store->db, store->batch, why);
    rocksdb_writebatch_wi_clear(store->batch);
    store->broken = result != ST_OK;
    return result;
}

static outcome make_id(failed_store *store, failure *why) {
    while (store->staged.store == 0)
        if (getrandom(&store->staged.store, sizeof store->staged.store, 0) < 0)
            return fail(why, ST_IO, "", "no random numbers: %s", strerror(errno));
    return ST_OK;
}

static outcome load(failed_store *store, failure *why) {
    char *value;
    size_t len;
    outcome result = staged_get(store, FAILED_META, COUNTERS_KEY, &value, &len, why);
    if (result == ST_NOT_FOUND) {
        store->staged.next_number = 1;
        result = check_empty(store, why);
        if (result == ST_OK) result = make_id(store, why);
        return result == ST_OK ? write_staged(store, why) : result;
    }
    if (result != ST_OK) return result;
    result = failed_counters_decode(store->directory, bytes_of(value, len), &store->staged, why);
    rocksdb_free(value);
    return result;
}

outcome failed_store_open(const char *directory, const failed_limits *limits, failed_store **out,
                          failure *why) {
    failed_store *store = calloc(1, sizeof *store);
    if (!store) return fail(why, ST_NO_MEMORY, "", "no memory for the store of failed events");
    store->limits = *limits;
    store->lock_file = -1;
    store->db.witness.file = -1;
    (void)pthread_mutex_init(&store->lock, NULL);
    store->directory = strdup(directory);
    outcome result = store->directory
                         ? folder_make(directory, why)
                         : fail(why, ST_NO_MEMORY, "", "no memory for the name of the folder");
    if (result == ST_OK) result = folder_lock(directory, &store->lock_file, why);
    if (result == ST_OK) result = failed_db_open(&store->db, directory, why);
    if (result == ST_OK) {
        store->batch = rocksdb_writebatch_wi_create(0, 1);
        result = load(store, why);
    }
    if (result != ST_OK) {
        failed_store_close(store);
        return result;
    }
    store->written = store->staged;
    failed_refresh_lowest(store);
    failed_refresh_next(store);
    *out = store;
    return ST_OK;
}

void failed_store_close(failed_store *store) {
    if (!store) return;
    if (store->batch) rocksdb_writebatch_wi_destroy(store->batch);
    if (store->broken)
        failed_db_abandon(&store->db);
    else
        failed_db_close(&store->db);
    (void)pthread_mutex_destroy(&store->lock);
    free(store->directory);
    /* Last: from here on another process may have the folder. */
    if (store->lock_file >= 0) (void)close(store->lock_file);
    free(store);
}

/* ---- keys ----------------------------------------------------------------------------------- */

enum { IDENTITY_MAX = 1 + VARINT_MAX_SIZE + 2 * FAILED_TEXT_MAX };

/* 1, varint length of the source, source, id; without an id 2, partition, offset, topic. */
static bytes identity_key(uint8_t key[IDENTITY_MAX], const failed_record *record) {
    uint8_t *at = key;
    if (record->id.len > 0) {
        *at++ = 1;
        at = put_bytes(put_varint(at, record->source.len), record->source);
        at = put_bytes(at, record->id);
    } else {
        bytes topic = record->topic;
        if (topic.len > FAILED_TEXT_MAX) topic.len = FAILED_TEXT_MAX;
        *at++ = 2;
        at = put_le64(put_le32(at, (uint32_t)record->partition), (uint64_t)record->offset);
        at = put_bytes(at, topic);
    }
    return bytes_of(key, (size_t)(at - key));
}

static bytes due_key(uint8_t key[DUE_KEY_SIZE], const failed_record *record) {
    put_be64(key, (uint64_t)record->next_attempt_ms ^ (uint64_t)1 << 63); /* negative ones first */
    put_be64(key + 8, record->number);
    return bytes_of(key, DUE_KEY_SIZE);
}

static void stage_due(failed_store *store, const failed_record *record) {
    uint8_t key[DUE_KEY_SIZE];
    if (record->state != FAILED_WAITING) return;
    stage(store, FAILED_DUE, due_key(key, record), bytes_of("", 0));
    if (memcmp(key, store->due_floor, sizeof key) < 0) memcpy(store->due_floor, key, sizeof key);
    store->due_touched = true;
}

static void unstage_due(failed_store *store, const failed_record *record) {
    uint8_t key[DUE_KEY_SIZE];
    if (record->state != FAILED_WAITING) return;
    unstage(store, FAILED_DUE, due_key(key, record));
    store->due_touched = true;
}

/* ---- changes -------------------------------------------------------------------------------- */

/* A record as it is, with what is staged. */
typedef struct present {
    char *memory; /* the record borrows from it */
    failed_record record;
    uint64_t event_size;
    uint64_t size;
} present;

static outcome present_get(const failed_store *store, uint64_t number, present *out, failure *why) {
    uint8_t key[NUMBER_KEY_SIZE];
    size_t len;
    outcome result =
        staged_get(store, FAILED_FIGURES, number_key(key, number), &out->memory, &len, why);
    if (result == ST_NOT_FOUND)
        return fail(why, result, "number", "there is no failed event %llu",
                    (unsigned long long)number);
    if (result != ST_OK) return result;
    result = failed_record_decode(number, bytes_of(out->memory, len), &out->record,
                                  &out->event_size, why);
    out->size = len + out->event_size;
    if (result == ST_OK) return ST_OK;
    rocksdb_free(out->memory);
    out->memory = NULL;
    return result;
}

/* The one with the same identity; number 0: there is none. */
static outcome present_find(const failed_store *store, const failed_record *record, present *out,
                            failure *why) {
    uint8_t key[IDENTITY_MAX];
    char *value;
    size_t len;
    uint64_t number;
    *out = (present){0};
    outcome result =
        staged_get(store, FAILED_IDENTITIES, identity_key(key, record), &value, &len, why);
    if (result != ST_OK) return result == ST_NOT_FOUND ? ST_OK : result;
    bool sound = key_number(bytes_of(value, len), &number);
    rocksdb_free(value);
    if (!sound)
        return fail(why, ST_CORRUPT, "identities", "the number of an identity is malformed");
    result = present_get(store, number, out, why);
    if (result == ST_NOT_FOUND)
        return fail(why, ST_CORRUPT, "figures", "failed event %llu: its figures are missing",
                    (unsigned long long)number);
    return result;
}

static outcome check_usable(const failed_store *store, failure *why) {
    if (!store->broken) return ST_OK;
    return fail(why, ST_IO, "", "%s: a write has failed: nothing is taken before a new opening",
                store->directory);
}

static outcome check_identity(const failed_record *record, failure *why) {
    const size_t longest =
        record->source.len > record->id.len ? record->source.len : record->id.len;
    if (longest <= FAILED_TEXT_MAX) return ST_OK;
    return fail(why, ST_TOO_LARGE, record->id.len == longest ? "id" : "source",
                "%zu bytes; the store of failed events takes at most %d", longest, FAILED_TEXT_MAX);
}

static outcome check_limits(const failed_store *store, const failed_counters *then, failure *why) {
    const failed_limits *limits = &store->limits;
    struct statvfs volume;
    if (then->events > limits->max_events)
        return fail(why, ST_FULL, "max_events",
                    "there are %llu failed events, the limit: retry or discard some",
                    (unsigned long long)store->staged.events);
    if (then->bytes > limits->max_bytes)
        return fail(why, ST_FULL, "max_bytes",
                    "failed events would take %llu bytes, the limit is %llu: retry or discard some",
                    (unsigned long long)then->bytes, (unsigned long long)limits->max_bytes);
    if (statvfs(store->directory, &volume) != 0) return ST_OK; /* the write will tell */
    uint64_t free_bytes = (uint64_t)volume.f_bavail * volume.f_frsize;
    if (free_bytes >= limits->reserve_free_bytes) return ST_OK;
    return fail(why, ST_DISK_FULL, "reserve_free_bytes",
                "the volume of %s has %llu bytes left, and %llu are kept free: make room",
                store->directory, (unsigned long long)free_bytes,
                (unsigned long long)limits->reserve_free_bytes);
}

static bytes encode_event(uint64_t number, bytes event, uint8_t *out) {
    failed_event_encode(number, event, out);
    (void)put_bytes(out + FAILED_EVENT_HEAD, event);
    return bytes_of(out, FAILED_EVENT_HEAD + event.len);
}

static void stage_record(failed_store *store, const failed_record *record, bytes figures,
                         bytes event) {
    uint8_t key[NUMBER_KEY_SIZE];
    uint8_t identity[IDENTITY_MAX];
    (void)number_key(key, record->number);
    stage(store, FAILED_FIGURES, bytes_of(key, sizeof key), figures);
    stage(store, FAILED_EVENTS, bytes_of(key, sizeof key), event);
    stage(store, FAILED_IDENTITIES, identity_key(identity, record), bytes_of(key, sizeof key));
    stage_due(store, record);
}

/* With `old` found, `encoded` has room for the event. */
static outcome put_record(failed_store *store, failed_record *record, const present *old,
                          uint8_t *encoded, failure *why) {
    uint8_t buffer[FAILED_RECORD_MAX];
    const bool fresh = old->record.number == 0;
    failed_counters then = store->staged;
    failed_record placed = *record;
    placed.number = fresh ? then.next_number++ : old->record.number;
    bytes event = encode_event(placed.number, record->event, encoded);
    bytes figures = failed_record_encode(&placed, event.len, buffer);
    if (!fresh) count_out(&then, old->record.state, old->size);
    count_in(&then, placed.state, figures.len + event.len);
    outcome result = check_limits(store, &then, why);
    if (result != ST_OK) return result;
    if (!fresh) unstage_due(store, &old->record);
    stage_record(store, &placed, figures, event);
    store->staged = then;
    if (placed.number <= store->lowest) store->lowest_touched = true;
    record->number = placed.number;
    return ST_OK;
}

outcome failed_store_put(failed_store *store, failed_record *record, failure *why) {
    present old;
    outcome result = check_usable(store, why);
    if (result == ST_OK) result = check_identity(record, why);
    if (result == ST_OK) result = present_find(store, record, &old, why);
    if (result != ST_OK) return result;
    uint8_t *encoded = malloc(FAILED_EVENT_HEAD + record->event.len);
    result = encoded ? put_record(store, record, &old, encoded, why)
                     : fail(why, ST_NO_MEMORY, "", "no memory for a failed event of %zu bytes",
                            record->event.len);
    free(encoded);
    rocksdb_free(old.memory);
    return result;
}

outcome failed_store_update(failed_store *store, const failed_record *record, failure *why) {
    uint8_t buffer[FAILED_RECORD_MAX];
    uint8_t key[NUMBER_KEY_SIZE];
    present old;
    outcome result = check_usable(store, why);
    if (result == ST_OK) result = present_get(store, record->number, &old, why);
    if (result != ST_OK) return result;
    failed_record now = old.record;
    now.state = record->state;
    now.operation = record->operation;
    now.effect = record->effect;
    now.effects_done = record->effects_done;
    now.effects = record->effects;
    now.catalogue_crc = record->catalogue_crc;
    now.attempts = record->attempts;
    now.code = record->code;
    now.reason = record->reason;
    now.last_failed_ms = record->last_failed_ms;
    now.next_attempt_ms = record->next_attempt_ms;
    bytes figures = failed_record_encode(&now, old.event_size, buffer);
    count_out(&store->staged, old.record.state, old.size);
    count_in(&store->staged, now.state, figures.len + old.event_size);
    unstage_due(store, &old.record);
    stage_due(store, &now);
    stage(store, FAILED_FIGURES, number_key(key, now.number), figures);
    rocksdb_free(old.memory);
    return ST_OK;
}

outcome failed_store_remove(failed_store *store, uint64_t number, failure *why) {
    uint8_t buffer[NUMBER_KEY_SIZE];
    uint8_t identity[IDENTITY_MAX];
    bytes key = number_key(buffer, number);
    present old;
    outcome result = check_usable(store, why);
    if (result == ST_OK) result = present_get(store, number, &old, why);
    if (result != ST_OK) return result;
    count_out(&store->staged, old.record.state, old.size);
    unstage_due(store, &old.record);
    unstage(store, FAILED_IDENTITIES, identity_key(identity, &old.record));
    unstage(store, FAILED_EVENTS, key);
    unstage(store, FAILED_FIGURES, key);
    if (number <= store->lowest) store->lowest_touched = true;
    rocksdb_free(old.memory);
    return ST_OK;
}

outcome failed_store_write(failed_store *store, failure *why) {
    outcome result = check_usable(store, why);
    if (result != ST_OK || rocksdb_writebatch_wi_count(store->batch) == 0) return result;
    result = write_staged(store, why);
    if (result != ST_OK) return result;
    (void)pthread_mutex_lock(&store->lock);
    store->written = store->staged;
    (void)pthread_mutex_unlock(&store->lock);
    if (store->lowest_touched) failed_refresh_lowest(store);
    if (store->due_touched) failed_refresh_next(store);
    store->lowest_touched = store->due_touched = false;
    return ST_OK;
}
