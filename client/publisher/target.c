#include "client/publisher/target.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copy(const char *text) {
    char *made = text ? strdup(text) : NULL;
    if (text && !made) abort();
    return made;
}

static char *joined(const char *a, const char *b, const char *c) {
    const size_t size = strlen(a) + strlen(b) + strlen(c) + 1;
    char *made = malloc(size);
    if (!made) abort();
    (void)snprintf(made, size, "%s%s%s", a, b, c);
    return made;
}

endpoint endpoint_copy(const endpoint *from) {
    return (endpoint){.address = copy(from->address), .authority = copy(from->authority)};
}

void endpoint_free(endpoint *it) {
    free(it->address);
    free(it->authority);
}

static int compare(const void *a, const void *b) {
    return strcmp(((const endpoint *)a)->address, ((const endpoint *)b)->address);
}

size_t endpoints_tidy(endpoint *all, size_t count) {
    size_t kept = 0;
    if (count) qsort(all, count, sizeof *all, compare);
    for (size_t i = 0; i < count; i++)
        if (kept && strcmp(all[kept - 1].address, all[i].address) == 0)
            endpoint_free(&all[i]);
        else
            all[kept++] = all[i];
    return kept;
}

void endpoints_free(endpoint *all, size_t count) {
    for (size_t i = 0; i < count; i++)
        endpoint_free(&all[i]);
    free(all);
}

/* ---- parsing ------------------------------------------------------------------------------- */

static bool is_port(const char *text) {
    char *end = NULL;
    const unsigned long port = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && port >= 1 && port <= 65535;
}

/* Cuts "host:port" or "[v6]:port" in place. */
static bool split(char *text, char **host, char **port) {
    char *colon = strrchr(text, ':');
    if (!colon || colon == text || !is_port(colon + 1)) return false;
    *colon = '\0';
    *port = colon + 1;
    *host = text;
    if (*text != '[') return !strchr(text, ':');
    const size_t len = strlen(text);
    if (len < 3 || text[len - 1] != ']') return false;
    text[len - 1] = '\0';
    *host = text + 1;
    return true;
}

static bool is_loopback(const char *host) {
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           strncmp(host, "127.", 4) == 0;
}

static bool parse_host(target *out, target_part *part, char *text, bool every) {
    unsigned char octets[sizeof(struct in6_addr)];
    char *host = NULL, *port = NULL, *written = copy(text);
    const bool ok = split(text, &host, &port);
    if (!ok) {
        free(written);
        return false;
    }
    if (!is_loopback(host)) out->loopback = false;
    if (inet_pton(AF_INET, host, octets) == 1)
        part->fixed.address = joined("ipv4:", written, "");
    else if (inet_pton(AF_INET6, host, octets) == 1)
        part->fixed.address = joined("ipv6:", written, "");
    else {
        part->host = copy(host);
        part->port = copy(port);
        part->every = every;
        part->fixed.authority = written;
        out->lookup = true;
        return true;
    }
    free(written);
    return true;
}

static bool parse_part(target *out, target_part *part, char *text) {
    static const char DNS[] = "dns:///";
    if (strncmp(text, "unix:", 5) == 0 || strncmp(text, "unix-abstract:", 14) == 0) {
        part->fixed.address = copy(text);
        return strchr(text, ':')[1] != '\0';
    }
    if (strncmp(text, DNS, sizeof DNS - 1) == 0)
        return parse_host(out, part, text + sizeof DNS - 1, true);
    if (strncmp(text, "ipv4:", 5) == 0 || strncmp(text, "ipv6:", 5) == 0) text += 5;
    return parse_host(out, part, text, false);
}

bool target_parse(const char *text, const char *authority, target *out, char *why, size_t size) {
    char *whole = copy(text ? text : ""), *next = whole;
    *out = (target){.loopback = true};
    out->parts = calloc(strlen(whole) + 1, sizeof *out->parts);
    if (!out->parts) abort();
    bool ok = true;
    for (char *at; ok && (at = strsep(&next, ","));) {
        target_part *part = &out->parts[out->count++];
        char *shown = copy(at);
        ok = parse_part(out, part, at);
        if (!ok)
            (void)snprintf(why, size,
                           "target: \"%s\" is none of dns:///NAME:PORT, HOST:PORT, unix:/PATH",
                           shown);
        free(shown);
        if (!authority) continue;
        free(part->fixed.authority);
        part->fixed.authority = copy(authority);
    }
    free(whole);
    if (!ok) target_free(out);
    return ok;
}

void target_free(target *it) {
    for (size_t i = 0; i < it->count; i++) {
        endpoint_free(&it->parts[i].fixed);
        free(it->parts[i].host);
        free(it->parts[i].port);
    }
    free(it->parts);
    *it = (target){0};
}
