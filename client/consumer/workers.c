/* Handlers run without any lock. What they may ask of an effect is made when they ask. */
#include "client/consumer/workers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "google/protobuf/struct.pb-c.h"
#include "server/event_json.h"

typedef struct queue {
    job *first, *last;
} queue;

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t work;
    queue todo;
    uint32_t idle; /* threads that wait for work */
    bool stopping;
    pthread_mutex_t done_lock;
    queue done;
    int wake;
    pthread_t *threads; /* owned */
    uint32_t count;
};

/* Scratch of one thread, used again for each effect. */
typedef struct scratch {
    char *key; /* owned */
    size_t key_size;
    char *json; /* owned */
    size_t json_size, json_len;
    bool json_made;
    const job_operation *operation;
} scratch;

static void push(queue *to, job *first, job *last) {
    last->next = NULL;
    if (to->first)
        to->last->next = first;
    else
        to->first = first;
    to->last = last;
}

/* ---- what a handler sees --------------------------------------------------------------------- */

static void *grown(void *memory, size_t *size, size_t needed) {
    if (needed <= *size) return memory;
    void *moved = realloc(memory, needed * 2);
    if (!moved) {
        (void)fputs("ingest: out of memory\n", stderr);
        abort();
    }
    *size = needed * 2;
    return moved;
}

static char *put_escaped(char *at, const char *text) {
    static const char HEX[] = "0123456789ABCDEF";
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '~' ||
                          (c == '.' && at[-1] != '/' && at[-1] != '.');
        if (safe) {
            *at++ = (char)c;
        } else {
            *at++ = '%';
            *at++ = HEX[c >> 4];
            *at++ = HEX[c & 15];
        }
    }
    return at;
}

static const char *make_key(scratch *own, const job *of, const effect *one) {
    static const char *const KINDS[] = {"index", "table", "operation", "notice"};
    const size_t needed = 3 * (strlen(of->source) + strlen(of->id) + strlen(one->name)) + 40;
    own->key = grown(own->key, &own->key_size, needed);
    own->key[0] = '/'; /* so that there is one before the first, too */
    char *at = put_escaped(own->key + 1, of->source);
    *at++ = '/';
    at = put_escaped(at, of->id);
    at += snprintf(at, 32, "/%u/%s/", of->operation_at, KINDS[one->kind]);
    at = put_escaped(at, one->name);
    *at = '\0';
    return own->key + 1;
}

static void make_json(scratch *own) {
    Google__Protobuf__Struct *data = NULL;
    const job_operation *from = own->operation;
    if (from->has_data)
        data = google__protobuf__struct__unpack(NULL, from->data.len, from->data.data);
    size_t size = event_json_write_data(data, own->json, own->json_size);
    if (size + 1 > own->json_size) {
        own->json = grown(own->json, &own->json_size, size + 1);
        size = event_json_write_data(data, own->json, own->json_size);
    }
    own->json[size] = '\0';
    own->json_len = size;
    own->json_made = true;
    if (data) google__protobuf__struct__free_unpacked(data, NULL);
}

const char *ingest_effect_json(const ingest_effect *of, size_t *len) {
    scratch *own = (scratch *)(uintptr_t)of->internal;
    if (!own->json_made) make_json(own);
    if (len) *len = own->json_len;
    return own->json;
}

const void *ingest_effect_raw(const ingest_effect *of, size_t *len) {
    const scratch *own = of->internal;
    const bytes raw = own->operation->raw;
    if (len) *len = own->operation->has_raw ? raw.len : 0;
    if (!own->operation->has_raw) return NULL;
    return raw.data ? (const void *)raw.data : "";
}

static void run_effect(scratch *own, job *it) {
    ingest_trouble trouble = {.code = "", .reason = ""};
    const job_operation *operation = job_operation_at(it, it->operation_at);
    const effect *one = &operation->effects->items[it->effect_at];
    own->operation = operation;
    own->json_made = false;
    const ingest_effect shown = {.kind = one->kind,
                                 .name = one->name,
                                 .idempotency_key = make_key(own, it, one),
                                 .attempt = it->attempts + 1,
                                 .source = it->source,
                                 .event_id = it->id,
                                 .event_type = it->type,
                                 .key = it->key_text,
                                 .operation = operation->effects->operation,
                                 .entity_id = operation->entity_id,
                                 .operation_index = it->operation_at,
                                 .operation_count =
                                     it->parts ? it->part_count : it->operation_count,
                                 .effect_index = it->effect_at,
                                 .effect_count = operation->effects->count,
                                 .time_ms = it->time_ms,
                                 .topic = it->topic,
                                 .partition = it->partition_number,
                                 .offset = it->offset,
                                 .internal = own};
    it->verdict = one->handler(one->arg, &shown, &trouble);
    if (it->verdict == INGEST_DONE) return;
    trouble.code[sizeof trouble.code - 1] = trouble.reason[sizeof trouble.reason - 1] = '\0';
    it->trouble = malloc(sizeof trouble);
    if (it->trouble) *it->trouble = trouble;
}

/* ---- threads --------------------------------------------------------------------------------- */

/* Sleeps until there is one; NULL at the end. */
static job *take(workers *it) {
    pthread_mutex_lock(&it->lock);
    while (!it->todo.first && !it->stopping) {
        it->idle++;
        pthread_cond_wait(&it->work, &it->lock);
        it->idle--;
    }
    job *one = it->stopping ? NULL : it->todo.first;
    if (one) it->todo.first = one->next;
    pthread_mutex_unlock(&it->lock);
    return one;
}

static void give_back(workers *it, job *one) {
    const uint64_t count = 1;
    pthread_mutex_lock(&it->done_lock);
    const bool was_empty = !it->done.first;
    push(&it->done, one, one);
    pthread_mutex_unlock(&it->done_lock);
    if (was_empty && write(it->wake, &count, sizeof count) < 0) return; /* full: it is awake */
}

static void *work(void *arg) {
    workers *it = arg;
    scratch own = {0};
    for (job *one; (one = take(it));) {
        run_effect(&own, one);
        give_back(it, one);
    }
    free(own.key);
    free(own.json);
    return NULL;
}

workers *workers_start(uint32_t count, int wake) {
    workers *it = calloc(1, sizeof *it);
    if (!it) return NULL;
    it->threads = calloc(count, sizeof *it->threads);
    it->wake = wake;
    pthread_mutex_init(&it->lock, NULL);
    pthread_mutex_init(&it->done_lock, NULL);
    pthread_cond_init(&it->work, NULL);
    while (it->threads && it->count < count &&
           pthread_create(&it->threads[it->count], NULL, work, it) == 0)
        it->count++;
    if (it->threads && it->count == count) return it;
    workers_stop(it);
    return NULL;
}

void workers_run(workers *it, job *first, job *last) {
    pthread_mutex_lock(&it->lock);
    push(&it->todo, first, last);
    const uint32_t idle = it->idle;
    pthread_mutex_unlock(&it->lock);
    if (idle > 1 && first != last)
        pthread_cond_broadcast(&it->work);
    else if (idle)
        pthread_cond_signal(&it->work);
}

job *workers_recall(workers *it) {
    pthread_mutex_lock(&it->lock);
    job *first = it->todo.first;
    it->todo.first = NULL;
    pthread_mutex_unlock(&it->lock);
    return first;
}

job *workers_done(workers *it) {
    pthread_mutex_lock(&it->done_lock);
    job *first = it->done.first;
    it->done.first = NULL;
    pthread_mutex_unlock(&it->done_lock);
    return first;
}

void workers_stop(workers *it) {
    if (!it) return;
    pthread_mutex_lock(&it->lock);
    it->stopping = true;
    pthread_cond_broadcast(&it->work);
    pthread_mutex_unlock(&it->lock);
    for (uint32_t i = 0; i < it->count; i++)
        pthread_join(it->threads[i], NULL);
    pthread_cond_destroy(&it->work);
    pthread_mutex_destroy(&it->done_lock);
    pthread_mutex_destroy(&it->lock);
    free(it->threads);
    free(it);
}
