/*
 * table_store: rows in Cassandra. Every table that the catalogue names has the same columns here,
 * and is made when it is first needed; a service has its own.
 *
 * Writes are idempotent: an effect's row has the entity as its key and the event's time as its
 * timestamp, so a repeat writes the same, and what is older never hides what is newer.
 */
#ifndef WORKER_TABLE_STORE_H
#define WORKER_TABLE_STORE_H

#include <ingest/consumer.h>

typedef struct table_store table_store;

/* `place` is "host:port"; connects when it is first needed. */
table_store *table_store_new(const char *place, const char *keyspace);
void table_store_free(table_store *it);

/* A handler for INGEST_TABLE; `arg` is the store. Any thread. */
ingest_verdict table_store_put(void *arg, const ingest_effect *effect, ingest_trouble *trouble);

#endif
