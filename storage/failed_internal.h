/* failed_internal: what the parts of the store of failed events share: failed_store.c changes it,
 * failed_look.c looks. Private to storage/. */
#ifndef INGEST_STORAGE_FAILED_INTERNAL_H
#define INGEST_STORAGE_FAILED_INTERNAL_H

#include "storage/encoding.h"
#include "storage/failed_db.h"
#include "storage/failed_store.h"

#include <pthread.h>

enum { NUMBER_KEY_SIZE = 8, DUE_KEY_SIZE = 16 };

/* Kept in one value of FAILED_META, written with each batch. */
typedef struct failed_counters {
    uint64_t store; /* failed_store_id; never 0 */
    uint64_t next_number;
    uint64_t events;
    uint64_t bytes;
    uint64_t states[FAILED_HELD + 1]; /* by failed_state; the first is not used */
} failed_counters;

struct failed_store {
    char *directory; /* owned */
    int lock_file;   /* -1: none */
    failed_limits limits;
    failed_db db;
    /* Of the thread that changes. */
    rocksdb_writebatch_wi_t *batch;
    failed_counters staged;
    bool lowest_touched; /* by what is staged */
    bool due_touched;
    bool broken;                     /* a write has failed */
    uint8_t due_floor[DUE_KEY_SIZE]; /* nothing is due before: an iterator that began earlier would
                                        pass all that was ever deleted */
    /* As of the last write, for every thread. */
    pthread_mutex_t lock;
    failed_counters written;
    uint64_t lowest; /* no number is below */
    int64_t lowest_ms;
    uint64_t next; /* the number that is due first; 0: none */
    int64_t next_ms;
    outcome next_result;
    failure next_why;
};

static inline bytes number_key(uint8_t key[NUMBER_KEY_SIZE], uint64_t number) {
    put_be64(key, number);
    return bytes_of(key, NUMBER_KEY_SIZE);
}

/* False: the key is none of a number. */
static inline bool key_number(bytes key, uint64_t *number) {
    *number = key.len == NUMBER_KEY_SIZE ? get_be64(key.data) : 0;
    return *number > 0;
}

static inline bytes iterator_key(const rocksdb_iterator_t *all) {
    bytes key;
    key.data = (const uint8_t *)rocksdb_iter_key(all, &key.len);
    return key;
}

static inline bytes iterator_value(const rocksdb_iterator_t *all) {
    bytes value;
    value.data = (const uint8_t *)rocksdb_iter_value(all, &value.len);
    return value;
}

#define COUNTERS_KEY bytes_of_string("counters")

/* ST_PRECONDITION: written by a newer version. */
MUST_CHECK outcome failed_counters_decode(const char *directory, bytes value,
                                          failed_counters *counters, failure *why);

/* After a write, and at the opening: what is lowest, and what is due next. */
void failed_refresh_lowest(failed_store *store);
void failed_refresh_next(failed_store *store);

#endif
