/* A connection a thread; one that broke is made anew at the next attempt. */
#include "table_store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cql.h"

enum { TIMEOUT_MS = 10000, TABLES_MAX = 256, NAME_MAX_BYTES = 48 };

struct table_store {
    char host[256], port[16], keyspace[NAME_MAX_BYTES + 1];
    pthread_key_t connection; /* cql */
    pthread_mutex_t lock; /* one makes a table at a time: Cassandra wants its schema changed so */
    char made[TABLES_MAX][NAME_MAX_BYTES + 1];
    size_t made_count;
};

static void close_connection(void *connection) { cql_close(connection); }

table_store *table_store_new(const char *place, const char *keyspace) {
    table_store *it = calloc(1, sizeof *it);
    if (!it || pthread_key_create(&it->connection, close_connection)) abort();
    (void)pthread_mutex_init(&it->lock, NULL);
    const char *colon = strrchr(place, ':');
    const size_t host = colon ? (size_t)(colon - place) : strlen(place);
    (void)snprintf(it->host, sizeof it->host, "%.*s", (int)host, place);
    (void)snprintf(it->port, sizeof it->port, "%s", colon ? colon + 1 : "9042");
    (void)snprintf(it->keyspace, sizeof it->keyspace, "%s", keyspace);
    return it;
}

void table_store_free(table_store *it) {
    (void)pthread_key_delete(it->connection);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
}

static cql_outcome execute(table_store *it, const char *statement, const cql_value *values,
                           size_t count, cql_trouble *trouble) {
    cql *connection = pthread_getspecific(it->connection);
    if (connection && cql_broken(connection)) {
        cql_close(connection);
        connection = NULL;
    }
    if (!connection) connection = cql_open(it->host, it->port, TIMEOUT_MS, trouble);
    (void)pthread_setspecific(it->connection, connection);
    return connection ? cql_execute(connection, statement, values, count, trouble) : CQL_AGAIN;
}

/* ---- tables ------------------------------------------------------------------------------------
 */

/* Names go into statements as they are. */
static bool is_name(const char *text) {
    const size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return len > 0 && len <= NAME_MAX_BYTES && !text[len] && text[0] >= 'a';
}

static bool is_made(const table_store *it, const char *table) {
    for (size_t i = 0; i < it->made_count; i++)
        if (strcmp(it->made[i], table) == 0) return true;
    return false;
}

static cql_outcome make(table_store *it, const char *table, cql_trouble *trouble) {
    char statement[512];
    (void)snprintf(statement, sizeof statement,
                   "CREATE KEYSPACE IF NOT EXISTS %s WITH replication = "
                   "{'class': 'SimpleStrategy', 'replication_factor': 1}",
                   it->keyspace);
    cql_outcome result = it->made_count ? CQL_DONE : execute(it, statement, NULL, 0, trouble);
    if (result != CQL_DONE) return result;
    (void)snprintf(statement, sizeof statement,
                   "CREATE TABLE IF NOT EXISTS %s.\"%s\" (entity_id text PRIMARY KEY, "
                   "event_id text, operation text, data text, raw blob, effect text)",
                   it->keyspace, table);
    result = execute(it, statement, NULL, 0, trouble);
    if (result == CQL_DONE && it->made_count < TABLES_MAX)
        (void)snprintf(it->made[it->made_count++], sizeof it->made[0], "%s", table);
    return result;
}

static cql_outcome need(table_store *it, const char *table, cql_trouble *trouble) {
    cql_outcome result = CQL_DONE;
    if (!is_name(table)) {
        (void)snprintf(trouble->code, sizeof trouble->code, "name");
        (void)snprintf(trouble->text, sizeof trouble->text, "no table can be called \"%s\"", table);
        return CQL_WRONG;
    }
    pthread_mutex_lock(&it->lock);
    if (!is_made(it, table)) result = make(it, table, trouble);
    pthread_mutex_unlock(&it->lock);
    return result;
}

/* ---- a row -------------------------------------------------------------------------------------
 */

static cql_value text(const char *value) { return (cql_value){value, strlen(value)}; }

static cql_outcome insert(table_store *it, const ingest_effect *effect, cql_trouble *trouble) {
    char statement[256];
    uint8_t time[8];
    const uint64_t time_us = (uint64_t)effect->time_ms * 1000;
    for (int i = 0; i < 8; i++)
        time[i] = (uint8_t)(time_us >> (56 - 8 * i));
    size_t raw_len;
    const void *raw = ingest_effect_raw(effect, &raw_len);
    const cql_value values[] = {text(effect->entity_id[0] ? effect->entity_id : effect->key),
                                text(effect->event_id),
                                text(effect->operation),
                                text(ingest_effect_json(effect, NULL)),
                                {raw, raw_len},
                                text(effect->idempotency_key),
                                {time, sizeof time}};
    (void)snprintf(statement, sizeof statement,
                   "INSERT INTO %s.\"%s\" (entity_id, event_id, operation, data, raw, effect) "
                   "VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
                   it->keyspace, effect->name);
    return execute(it, statement, values, sizeof values / sizeof *values, trouble);
}

ingest_verdict table_store_put(void *arg, const ingest_effect *effect, ingest_trouble *trouble) {
    table_store *it = arg;
    cql_trouble why = {.code = ""};
    cql_outcome result = need(it, effect->name, &why);
    if (result == CQL_DONE) result = insert(it, effect, &why);
    (void)snprintf(trouble->code, sizeof trouble->code, "%s", why.code);
    (void)snprintf(trouble->reason, sizeof trouble->reason, "%s", why.text);
    return result == CQL_DONE ? INGEST_DONE : result == CQL_AGAIN ? INGEST_RETRY : INGEST_FINAL;
}
