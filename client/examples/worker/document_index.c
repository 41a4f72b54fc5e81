/* A curl handle a thread, which keeps its connection. */
#include "document_index.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 10000, ANSWER_MAX = 400 };

struct document_index {
    char url[512];
    pthread_key_t handle; /* CURL */
};

typedef struct answer {
    char text[ANSWER_MAX + 1]; /* its beginning */
    size_t len;
} answer;

static void close_handle(void *handle) { curl_easy_cleanup(handle); }

document_index *document_index_new(const char *url) {
    document_index *it = calloc(1, sizeof *it);
    if (!it || pthread_key_create(&it->handle, close_handle)) abort();
    (void)snprintf(it->url, sizeof it->url, "%s", url);
    return it;
}

void document_index_free(document_index *it) {
    (void)pthread_key_delete(it->handle);
    free(it);
}

/* ---- the document ------------------------------------------------------------------------------
 */

static void put_text(FILE *out, const char *name, const char *value) {
    (void)fprintf(out, "\"%s\":\"", name);
    for (const unsigned char *at = (const unsigned char *)value; *at; at++)
        if (*at < 0x20 || *at == '"' || *at == '\\')
            (void)fprintf(out, "\\u%04x", *at);
        else
            (void)fputc(*at, out);
    (void)fputs("\",", out);
}

static void put_raw(FILE *out, const ingest_effect *effect) {
    static const char HEX[] = "0123456789abcdef";
    size_t len;
    const unsigned char *raw = ingest_effect_raw(effect, &len);
    if (!raw) return;
    (void)fputs("\"raw_hex\":\"", out);
    for (size_t i = 0; i < len; i++) {
        (void)fputc(HEX[raw[i] >> 4], out);
        (void)fputc(HEX[raw[i] & 15], out);
    }
    (void)fputs("\",", out);
}

/* NULL: no memory. */
static char *make_document(const ingest_effect *effect) {
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (!out) return NULL;
    (void)fputc('{', out);
    put_text(out, "event_id", effect->event_id);
    put_text(out, "operation", effect->operation);
    put_text(out, "effect", effect->idempotency_key);
    put_raw(out, effect);
    (void)fprintf(out, "\"data\":%s}", ingest_effect_json(effect, NULL));
    const bool bad = ferror(out);
    if (fclose(out) == 0 && !bad) return text;
    free(text);
    return NULL;
}

/* ---- the request
 * --------------------------------------------------------------------------------- */

static size_t take(char *data, size_t size, size_t count, void *arg) {
    answer *to = arg;
    const size_t room = ANSWER_MAX - to->len;
    const size_t part = size * count < room ? size * count : room;
    memcpy(to->text + to->len, data, part);
    to->len += part;
    to->text[to->len] = '\0';
    return size * count;
}

static CURL *handle_of(document_index *it) {
    CURL *handle = pthread_getspecific(it->handle);
    if (!handle && (handle = curl_easy_init()) != NULL)
        (void)pthread_setspecific(it->handle, handle);
    return handle;
}

static bool set_url(const document_index *it, CURL *handle, const ingest_effect *effect) {
    char url[4096];
    const char *id = effect->entity_id[0] ? effect->entity_id : effect->key;
    char *index = curl_easy_escape(handle, effect->name, 0);
    char *document = curl_easy_escape(handle, id, 0);
    const int len =
        index && document
            ? snprintf(url, sizeof url, "%s/%s/_doc/%s?version=%lld&version_type=external_gte",
                       it->url, index, document, (long long)effect->time_ms)
            : -1;
    curl_free(index);
    curl_free(document);
    return len > 0 && (size_t)len < sizeof url &&
           curl_easy_setopt(handle, CURLOPT_URL, url) == CURLE_OK;
}

/* 0: there was no answer, and `text` says why. */
static long put(document_index *it, const ingest_effect *effect, const char *document,
                answer *said) {
    CURL *handle = handle_of(it);
    long code = 0;
    if (!handle || !document) return 0;
    curl_easy_reset(handle);
    struct curl_slist *headers = curl_slist_append(NULL, "content-type: application/json");
    CURLcode result = set_url(it, handle, effect) ? CURLE_OK : CURLE_URL_MALFORMAT;
    curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, "PUT");
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, document);
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, said);
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, (long)TIMEOUT_MS);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    if (result == CURLE_OK) result = curl_easy_perform(handle);
    if (result == CURLE_OK)
        curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &code);
    else
        (void)snprintf(said->text, sizeof said->text, "%s", curl_easy_strerror(result));
    curl_slist_free_all(headers);
    return code;
}

ingest_verdict document_index_put(void *arg, const ingest_effect *effect, ingest_trouble *trouble) {
    enum { CONFLICT = 409, TOO_MANY = 429, TIMEOUT = 408 };
    answer said = {.text = ""};
    char *document = make_document(effect);
    const long code = put(arg, effect, document, &said);
    free(document);
    if ((code >= 200 && code < 300) || code == CONFLICT) return INGEST_DONE; /* newer is there */
    (void)snprintf(trouble->code, sizeof trouble->code, code ? "http_%ld" : "unreachable", code);
    (void)snprintf(trouble->reason, sizeof trouble->reason, "%s", said.text);
    const bool again = code < 400 || code >= 500 || code == TOO_MANY || code == TIMEOUT;
    return again ? INGEST_RETRY : INGEST_FINAL;
}
