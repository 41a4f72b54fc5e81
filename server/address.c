#include "server/address.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

static bool parse_port(const char *text, uint16_t *port) {
    size_t len = strlen(text);
    if (len == 0 || len > 5 || strspn(text, "0123456789") != len) return false;
    uint32_t value = 0;
    for (; *text; text++)
        value = value * 10 + (uint32_t)(*text - '0');
    *port = (uint16_t)value;
    return value <= UINT16_MAX;
}

static bool copy(char *to, size_t capacity, const char *from, size_t len) {
    if (len == 0 || len >= capacity) return false;
    memcpy(to, from, len);
    to[len] = '\0';
    return true;
}

bool address_parse(const char *text, net_address *out) {
    *out = (net_address){0};
    if (strncmp(text, "unix:", 5) == 0) {
        out->is_unix = true;
        return copy(out->host, sizeof out->host, text + 5, strlen(text + 5));
    }
    const char *colon = strrchr(text, ':');
    if (!colon || !parse_port(colon + 1, &out->port)) return false;
    size_t len = (size_t)(colon - text);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        struct in6_addr v6;
        return copy(out->host, sizeof out->host, text + 1, len - 2) &&
               inet_pton(AF_INET6, out->host, &v6) == 1;
    }
    return copy(out->host, sizeof out->host, text, len) && strcspn(out->host, " \t\r\n[]:/") == len;
}

bool address_is_local(const net_address *it) {
    struct in_addr v4;
    struct in6_addr v6;
    if (it->is_unix || strcmp(it->host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, it->host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, it->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}
