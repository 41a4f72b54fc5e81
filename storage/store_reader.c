/*
 * Reading one route in order. Runs on the publisher's thread. One RocksDB iterator serves many
 * records; it is bounded to the route's live part, and dropped when it is at its end or has served
 * long enough, because it pins the memtables and files that were there when it was made. Fails with
 * ST_CORRUPT and stays where it is.
 */
#include "storage/store_internal.h"

#include "storage/encoding.h"

#include <stdlib.h>

enum { RECORDS_PER_ITERATOR = 8192 };

struct store_reader {
    event_store *store;
    uint32_t route;
    uint64_t next;                /* sequence to deliver next */
    rocksdb_readoptions_t *read;  /* owned; points to the two keys below */
    rocksdb_iterator_t *iterator; /* owned; NULL: to be made */
    uint32_t served;              /* by this iterator */
    uint8_t lower[EVENT_KEY_SIZE];
    uint8_t upper[EVENT_KEY_SIZE];
};

store_reader *store_reader_open(event_store *store, uint32_t route, uint64_t from) {
    store_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return NULL;
    reader->store = store;
    reader->route = route;
    reader->next = from;
    reader->read = rocksdb_readoptions_create();
    /* Each record is read once: it would only push the ids out of the cache. */
    rocksdb_readoptions_set_fill_cache(reader->read, 0);
    return reader;
}

void store_reader_rest(store_reader *reader) {
    if (reader->iterator) rocksdb_iter_destroy(reader->iterator);
    reader->iterator = NULL;
}

void store_reader_close(store_reader *reader) {
    if (!reader) return;
    store_reader_rest(reader);
    rocksdb_readoptions_destroy(reader->read);
    free(reader);
}

void store_reader_seek(store_reader *reader, uint64_t from) {
    store_reader_rest(reader);
    reader->next = from;
}

/* Begins at `next`: what is before it may be deleted, and must not be walked over. */
static void make_iterator(store_reader *reader) {
    bytes lower = event_key(reader->lower, reader->route, reader->next);
    bytes upper = event_key(reader->upper, reader->route, UINT64_MAX);
    rocksdb_readoptions_set_iterate_lower_bound(reader->read, (const char *)lower.data, lower.len);
    rocksdb_readoptions_set_iterate_upper_bound(reader->read, (const char *)upper.data, upper.len);
    event_store *store = reader->store;
    reader->iterator = rocksdb_create_iterator_cf(store->db.handle, reader->read,
                                                  store->db.families[FAMILY_OUTBOX]);
    rocksdb_iter_seek(reader->iterator, (const char *)lower.data, lower.len);
    reader->served = 0;
}

/* The iterator has to stand on `next`, because that is synced and not settled. */
static outcome read_current(store_reader *reader, event_record *record, failure *why) {
    const char *name = reader->store->routes[reader->route].name;
    unsigned long long wanted = reader->next;
    if (!rocksdb_iter_valid(reader->iterator)) {
        char *error = NULL;
        rocksdb_iter_get_error(reader->iterator, &error);
        if (error) return store_db_outcome(error, "read the outbox", why);
        return fail(why, ST_CORRUPT, "outbox",
                    "route %s: record %llu and all behind it are missing", name, wanted);
    }
    bytes key;
    bytes value;
    key.data = (const uint8_t *)rocksdb_iter_key(reader->iterator, &key.len);
    value.data = (const uint8_t *)rocksdb_iter_value(reader->iterator, &value.len);
    uint64_t found = get_be64(key.data + 1);
    if (found != reader->next)
        return fail(why, ST_CORRUPT, "outbox", "route %s: records %llu to %llu are missing", name,
                    wanted, (unsigned long long)found - 1);
    return record_decode(found, value, record, why);
}

outcome store_reader_next(store_reader *reader, event_record *record, failure *why) {
    const route_state *route = &reader->store->routes[reader->route];
    if (reader->next > atomic_load_explicit(&route->visible, memory_order_acquire)) {
        store_reader_rest(reader);
        return ST_NOT_FOUND;
    }
    uint64_t hint = atomic_load_explicit(&route->hint, memory_order_relaxed);
    if (reader->next <= hint)
        return fail(why, ST_PRECONDITION, "outbox",
                    "route %s: record %llu is settled and may be deleted; the first to read is "
                    "%llu",
                    route->name, (unsigned long long)reader->next, (unsigned long long)hint + 1);
    if (reader->iterator) {
        rocksdb_iter_next(reader->iterator);
        /* At its end, but more is visible by now: a new iterator sees it. */
        if (!rocksdb_iter_valid(reader->iterator) || reader->served >= RECORDS_PER_ITERATOR)
            store_reader_rest(reader);
    }
    if (!reader->iterator) make_iterator(reader);
    outcome result = read_current(reader, record, why);
    if (result != ST_OK) {
        store_reader_rest(reader);
        return result;
    }
    reader->next++;
    reader->served++;
    return ST_OK;
}
