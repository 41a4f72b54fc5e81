#include "client/publisher/delivery.h"

#include <stdlib.h>

delivery *delivery_new(const char *key, const char *id, grpc_slice request,
                       ingest_callback callback, void *arg) {
    const size_t key_size = strlen(key) + 1, id_size = strlen(id) + 1;
    delivery *it = calloc(1, sizeof *it + key_size + id_size);
    if (!it) abort();
    it->key = memcpy(it + 1, key, key_size);
    it->id = memcpy(it->key + key_size, id, id_size);
    it->request = request;
    it->callback = callback;
    it->arg = arg;
    return it;
}

void delivery_free(delivery *it) {
    grpc_slice_unref(it->request);
    free(it->last_trouble);
    free(it);
}

size_t delivery_size(const delivery *it) { return GRPC_SLICE_LENGTH(it->request); }

void delivery_trouble(delivery *it, const char *text) {
    free(it->last_trouble);
    it->last_trouble = strdup(text);
}

void deadlines_insert(delivery_queue *queue, delivery *it) {
    delivery *before = TAILQ_LAST(queue, delivery_queue);
    while (before && before->deadline_ms > it->deadline_ms)
        before = TAILQ_PREV(before, delivery_queue, in_deadline);
    if (before)
        TAILQ_INSERT_AFTER(queue, before, it, in_deadline);
    else
        TAILQ_INSERT_HEAD(queue, it, in_deadline);
}

void paused_insert(delivery_queue *queue, delivery *it) {
    delivery *before = TAILQ_LAST(queue, delivery_queue);
    while (before && before->resume_ms > it->resume_ms)
        before = TAILQ_PREV(before, delivery_queue, in_queue);
    if (before)
        TAILQ_INSERT_AFTER(queue, before, it, in_queue);
    else
        TAILQ_INSERT_HEAD(queue, it, in_queue);
}
