/*
 * target: the option `target` taken apart. Pure.
 *
 *   dns:///NAME:PORT   every address that the name has is a replica
 *   NAME:PORT          one replica, at the first of its addresses
 *   1.2.3.4:PORT, [::1]:PORT, unix:/PATH, unix-abstract:NAME
 */
#ifndef INGEST_CLIENT_TARGET_H
#define INGEST_CLIENT_TARGET_H

#include <stdbool.h>
#include <stddef.h>

/* A replica: what the C core connects to. */
typedef struct endpoint {
    char *address;   /* owned: "ipv4:10.0.0.7:50051" */
    char *authority; /* owned: the name and port that its certificate is for; NULL: the address's */
} endpoint;

endpoint endpoint_copy(const endpoint *from);
void endpoint_free(endpoint *it);
/* Sorted by address, each once; returns their number. */
size_t endpoints_tidy(endpoint *all, size_t count);
void endpoints_free(endpoint *all, size_t count);

typedef struct target_part {
    endpoint fixed; /* when `host` is NULL */
    char *host;     /* owned; to be looked up */
    char *port;     /* owned */
    bool every;     /* each address is a replica */
} target_part;

typedef struct target {
    target_part *parts; /* owned */
    size_t count;
    bool lookup;   /* some part has to be looked up */
    bool loopback; /* no part leaves this machine */
} target;

/* `authority` overrides all (may be NULL). False: `why` says what is wrong with it. */
bool target_parse(const char *text, const char *authority, target *out, char *why, size_t size);
void target_free(target *it);

#endif
