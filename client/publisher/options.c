#include "client/publisher/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"

void ingest_publisher_options_init(ingest_publisher_options *options) {
    *options = (ingest_publisher_options){
        .timeout_ms = 30000,
        .window = 4096,
        .window_bytes = 64U << 20,
        .max_event_bytes = 768U << 10,
        .failover_ms = 10000,
        .backoff_first_ms = 50,
        .backoff_last_ms = 2000,
    };
}

/* What is wrong, NULL when nothing is. */
static const char *check(const ingest_publisher_options *options, bool tls, bool loopback) {
    const char *token = options->token;
    if (options->ack != INGEST_PERSISTED && options->ack != INGEST_PUBLISHED)
        return "ack: is neither INGEST_PERSISTED nor INGEST_PUBLISHED";
    if (options->timeout_ms < 1 || options->timeout_ms > 24 * 3600 * 1000)
        return "timeout_ms: is outside 1 to a day";
    if (options->window < 1 || options->window > 1 << 20)
        return "window: is outside 1 to 1,048,576";
    if (options->window_bytes < 1) return "window_bytes: is 0";
    if (options->max_event_bytes < 1 || options->max_event_bytes > 64U << 20)
        return "max_event_bytes: is outside 1 to 64 MiB";
    if (options->backoff_first_ms < 1 || options->backoff_last_ms < options->backoff_first_ms ||
        options->backoff_last_ms > 3600 * 1000)
        return "backoff_first_ms, backoff_last_ms: are not 1 <= first <= last <= an hour";
    if (!options->certificate_file != !options->key_file)
        return "certificate_file, key_file: one without the other";
    if (token && (!*token || strpbrk(token, "\r\n"))) return "token: is empty, or has a line break";
    if (token && !tls && !loopback) return "token: would go over the network in the clear; use TLS";
    return NULL;
}

/* The whole file as text, to be freed; NULL: `why` says why not. */
static char *read_file(const char *option, const char *path, char *why, size_t size) {
    enum { MAX_BYTES = 4 << 20 };
    FILE *file = fopen(path, "re");
    char *text = file ? malloc(MAX_BYTES + 1) : NULL;
    const size_t len = text ? fread(text, 1, MAX_BYTES, file) : 0;
    if (text) text[len] = '\0';
    if (file && !ferror(file) && len > 0) {
        (void)fclose(file);
        return text;
    }
    (void)snprintf(why, size, "%s: %s: %s", option, path, file ? "is empty" : strerror(errno));
    if (file) (void)fclose(file);
    free(text);
    return NULL;
}

static grpc_channel_credentials *make_tls(const ingest_publisher_options *options, char *why,
                                          size_t size) {
    grpc_channel_credentials *made = NULL;
    grpc_ssl_pem_key_cert_pair pair = {0};
    char *certificate = NULL, *key = NULL;
    const char *ca_file = options->ca_file ? options->ca_file : SYSTEM_CA_FILE;
    char *ca = read_file("ca_file", ca_file, why, size);
    if (!ca) return NULL;
    if (options->certificate_file) {
        certificate = read_file("certificate_file", options->certificate_file, why, size);
        key = certificate ? read_file("key_file", options->key_file, why, size) : NULL;
        if (!key) goto out;
        pair = (grpc_ssl_pem_key_cert_pair){.private_key = key, .cert_chain = certificate};
    }
    made = grpc_ssl_credentials_create(ca, key ? &pair : NULL, NULL, NULL);
    if (!made) (void)snprintf(why, size, "ca_file, certificate_file, key_file: are not PEM");
out:
    free(ca);
    free(certificate);
    free(key);
    return made;
}

bool options_open(const ingest_publisher_options *options, opened_options *out, char *why,
                  size_t size) {
    const bool tls = options->tls || options->ca_file || options->certificate_file ||
                     options->key_file || options->server_name;
    *out = (opened_options){0};
    if (!target_parse(options->target, options->server_name, &out->target, why, size)) return false;
    const char *wrong = check(options, tls, out->target.loopback);
    if (wrong) {
        (void)snprintf(why, size, "%s", wrong);
        options_close(out);
        return false;
    }
    out->credentials = tls ? make_tls(options, why, size) : grpc_insecure_credentials_create();
    if (!out->credentials) {
        options_close(out);
        return false;
    }
    if (!options->token) return true;
    const size_t room = strlen("Bearer ") + strlen(options->token) + 1;
    if (!(out->authorization = malloc(room))) abort();
    (void)snprintf(out->authorization, room, "Bearer %s", options->token);
    return true;
}

void options_close(opened_options *it) {
    target_free(&it->target);
    if (it->credentials) grpc_channel_credentials_release(it->credentials);
    free(it->authorization);
    *it = (opened_options){0};
}
