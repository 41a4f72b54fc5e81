/*
 * document_index: documents in OpenSearch or Elasticsearch, over HTTP. An entity is one document in
 * each index that the catalogue names; its version is the event's time, so a repeat changes
 * nothing, and what is older never hides what is newer.
 */
#ifndef WORKER_DOCUMENT_INDEX_H
#define WORKER_DOCUMENT_INDEX_H

#include <ingest/consumer.h>

typedef struct document_index document_index;

/* `url` such as "http://localhost:9200"; curl_global_init was called. */
document_index *document_index_new(const char *url);
void document_index_free(document_index *it);

/* A handler for INGEST_INDEX; `arg` is the index. Any thread. */
ingest_verdict document_index_put(void *arg, const ingest_effect *effect, ingest_trouble *trouble);

#endif
