/*
 * Looking at failed events. Any thread, beside the one that changes: all that is read in one call
 * is of one RocksDB snapshot. Memory: a block or two, and one record. Fails with ST_CORRUPT or
 * ST_IO, and has told the records before until then.
 */
#include "storage/failed_internal.h"
#include "storage/failed_record.h"
#include "storage/store_db.h"

#include <stdio.h>

/* ---- one after the other -------------------------------------------------------------------- */

typedef struct reading {
    failed_scan scan;
    rocksdb_iterator_t *figures;
    rocksdb_iterator_t *events; /* NULL: without */
    uint64_t last;              /* the number that was read last */
    uint64_t count;
} reading;

static outcome iterator_outcome(const rocksdb_iterator_t *all, uint64_t behind, failure *why) {
    char doing[64];
    char *error = NULL;
    (void)snprintf(doing, sizeof doing, "read behind failed event %llu",
                   (unsigned long long)behind);
    rocksdb_iter_get_error(all, &error);
    return store_db_outcome(error, doing, why);
}

/* Both families have the same keys: the iterators go side by side. */
static outcome read_event(const reading *it, failed_record *record, uint64_t event_size,
                          failure *why) {
    unsigned long long number = record->number;
    uint64_t found = 0;
    if (rocksdb_iter_valid(it->events)) (void)key_number(iterator_key(it->events), &found);
    if (found != record->number) {
        outcome result = iterator_outcome(it->events, it->last, why);
        return result != ST_OK ? result
                               : fail(why, ST_CORRUPT, "bytes",
                                      "failed event %llu: its bytes are missing", number);
    }
    bytes value = iterator_value(it->events);
    if (value.len != event_size)
        return fail(why, ST_CORRUPT, "bytes", "failed event %llu has %zu bytes instead of %llu",
                    number, value.len, (unsigned long long)event_size);
    return failed_event_decode(record->number, value, &record->event, why);
}

static outcome read_record(reading *it, failed_record *record, failure *why) {
    uint64_t number;
    uint64_t event_size;
    if (!key_number(iterator_key(it->figures), &number))
        return fail(why, ST_CORRUPT, "figures", "behind failed event %llu: a key is no number",
                    (unsigned long long)it->last);
    outcome result =
        failed_record_decode(number, iterator_value(it->figures), record, &event_size, why);
    if (result == ST_OK && it->events) result = read_event(it, record, event_size, why);
    it->last = number;
    it->count++;
    return result;
}

static void reading_next(const reading *it) {
    rocksdb_iter_next(it->figures);
    if (it->events && rocksdb_iter_valid(it->events)) rocksdb_iter_next(it->events);
}

/* Nothing but the count tells that a record is gone with its key. */
static outcome check_count(const failed_store *store, const reading *it, failure *why) {
    char *value;
    size_t len;
    failed_counters counters;
    outcome result = failed_scan_get(&it->scan, FAILED_META, COUNTERS_KEY, &value, &len, why);
    if (result == ST_NOT_FOUND)
        return fail(why, ST_CORRUPT, "counters", "%s: the counters are missing", store->directory);
    if (result != ST_OK) return result;
    result = failed_counters_decode(store->directory, bytes_of(value, len), &counters, why);
    rocksdb_free(value);
    if (result == ST_OK && counters.events != it->count)
        result = fail(why, ST_CORRUPT, "figures",
                      "%s: %llu failed events are here, and there had been %llu", store->directory,
                      (unsigned long long)it->count, (unsigned long long)counters.events);
    return result;
}

static outcome visit_all(reading *it, bool *ended,
                         bool (*each)(void *arg, const failed_record *record), void *arg,
                         failure *why) {
    for (; rocksdb_iter_valid(it->figures); reading_next(it)) {
        failed_record record;
        outcome result = read_record(it, &record, why);
        if (result != ST_OK) return result;
        if (!each(arg, &record)) return ST_OK;
    }
    *ended = true;
    return iterator_outcome(it->figures, it->last, why);
}

outcome failed_store_each(const failed_store *store, uint64_t after, bool with_events,
                          bool (*each)(void *arg, const failed_record *record), void *arg,
                          failure *why) {
    failed_store *self = (failed_store *)store; /* for the lock */
    (void)pthread_mutex_lock(&self->lock);
    uint64_t lowest = store->lowest;
    (void)pthread_mutex_unlock(&self->lock);
    if (after == UINT64_MAX) return ST_OK;
    uint8_t buffer[NUMBER_KEY_SIZE];
    bytes from = number_key(buffer, after < lowest ? lowest : after + 1);
    reading it = {.last = after};
    bool ended = false;
    failed_scan_begin(&it.scan, &store->db);
    it.figures = failed_scan_iterator(&it.scan, FAILED_FIGURES);
    rocksdb_iter_seek(it.figures, (const char *)from.data, from.len);
    if (with_events) {
        it.events = failed_scan_iterator(&it.scan, FAILED_EVENTS);
        rocksdb_iter_seek(it.events, (const char *)from.data, from.len);
    }
    outcome result = visit_all(&it, &ended, each, arg, why);
    if (result == ST_OK && ended && after < lowest) result = check_count(store, &it, why);
    rocksdb_iter_destroy(it.figures);
    if (it.events) rocksdb_iter_destroy(it.events);
    failed_scan_end(&it.scan);
    return result;
}

/* ---- one ------------------------------------------------------------------------------------ */

/* The bytes of a record whose figures are there. */
static outcome get_event(const failed_scan *scan, failed_record *record, char **value,
                         failure *why) {
    uint8_t key[NUMBER_KEY_SIZE];
    size_t len;
    outcome result =
        failed_scan_get(scan, FAILED_EVENTS, number_key(key, record->number), value, &len, why);
    if (result == ST_NOT_FOUND)
        return fail(why, ST_CORRUPT, "bytes", "failed event %llu: its bytes are missing",
                    (unsigned long long)record->number);
    if (result != ST_OK) return result;
    return failed_event_decode(record->number, bytes_of(*value, len), &record->event, why);
}

outcome failed_store_get(const failed_store *store, uint64_t number,
                         void (*got)(void *arg, const failed_record *record), void *arg,
                         failure *why) {
    uint8_t key[NUMBER_KEY_SIZE];
    char *figures = NULL;
    char *event = NULL;
    size_t len;
    uint64_t event_size;
    failed_record record;
    failed_scan scan;
    failed_scan_begin(&scan, &store->db);
    outcome result =
        failed_scan_get(&scan, FAILED_FIGURES, number_key(key, number), &figures, &len, why);
    if (result == ST_NOT_FOUND)
        (void)fail(why, result, "number", "there is no failed event %llu",
                   (unsigned long long)number);
    if (result == ST_OK)
        result = failed_record_decode(number, bytes_of(figures, len), &record, &event_size, why);
    if (result == ST_OK) result = get_event(&scan, &record, &event, why);
    if (result == ST_OK) got(arg, &record);
    rocksdb_free(figures);
    rocksdb_free(event);
    failed_scan_end(&scan);
    return result;
}

/* ---- how the store stands ------------------------------------------------------------------- */

outcome failed_store_next(const failed_store *store, uint64_t *number, int64_t *next_attempt_ms,
                          failure *why) {
    failed_store *self = (failed_store *)store; /* for the lock */
    (void)pthread_mutex_lock(&self->lock);
    outcome result = store->next_result;
    *number = store->next;
    *next_attempt_ms = store->next_ms;
    if (result != ST_OK && why) *why = store->next_why;
    (void)pthread_mutex_unlock(&self->lock);
    return result;
}

uint64_t failed_store_id(const failed_store *store) { return store->staged.store; }

void failed_store_figures(const failed_store *store, failed_figures *out) {
    failed_store *self = (failed_store *)store; /* for the lock */
    (void)pthread_mutex_lock(&self->lock);
    *out = (failed_figures){.events = store->written.events,
                            .bytes = store->written.bytes,
                            .waiting = store->written.states[FAILED_WAITING],
                            .given_up = store->written.states[FAILED_GIVEN_UP],
                            .held = store->written.states[FAILED_HELD],
                            .oldest_ms = store->lowest_ms};
    (void)pthread_mutex_unlock(&self->lock);
}

/* ---- after a change ------------------------------------------------------------------------- */

/* What cannot be read is told by whoever reads it: the bound stays right. */
void failed_refresh_lowest(failed_store *store) {
    uint8_t key[NUMBER_KEY_SIZE];
    uint64_t number = store->written.next_number;
    failed_record record = {0};
    uint64_t event_size;
    bytes from = number_key(key, store->lowest);
    rocksdb_iterator_t *all = rocksdb_create_iterator_cf(store->db.handle, store->db.read,
                                                         store->db.families[FAILED_FIGURES]);
    rocksdb_iter_seek(all, (const char *)from.data, from.len);
    if (rocksdb_iter_valid(all) && key_number(iterator_key(all), &number) &&
        failed_record_decode(number, iterator_value(all), &record, &event_size, NULL) != ST_OK)
        record = (failed_record){0};
    if (iterator_outcome(all, 0, NULL) != ST_OK) number = store->lowest;
    rocksdb_iter_destroy(all);
    (void)pthread_mutex_lock(&store->lock);
    store->lowest = number;
    store->lowest_ms = record.first_failed_ms;
    (void)pthread_mutex_unlock(&store->lock);
}

void failed_refresh_next(failed_store *store) {
    failure why = {0};
    uint64_t number = 0;
    int64_t due_ms = 0;
    rocksdb_iterator_t *all = rocksdb_create_iterator_cf(store->db.handle, store->db.read,
                                                         store->db.families[FAILED_DUE]);
    rocksdb_iter_seek(all, (const char *)store->due_floor, DUE_KEY_SIZE);
    memset(store->due_floor, 0xff, DUE_KEY_SIZE);
    outcome result = iterator_outcome(all, 0, &why);
    if (result == ST_OK && rocksdb_iter_valid(all)) {
        bytes key = iterator_key(all);
        if (key.len != DUE_KEY_SIZE)
            result = fail(&why, ST_CORRUPT, "due", "a time of the next attempt is malformed");
        else
            memcpy(store->due_floor, key.data, DUE_KEY_SIZE);
        number = get_be64(store->due_floor + 8);
        due_ms = (int64_t)(get_be64(store->due_floor) ^ (uint64_t)1 << 63);
    }
    rocksdb_iter_destroy(all);
    (void)pthread_mutex_lock(&store->lock);
    store->next = result == ST_OK ? number : 0;
    store->next_ms = result == ST_OK ? due_ms : 0;
    store->next_result = result;
    store->next_why = why;
    (void)pthread_mutex_unlock(&store->lock);
}
