/* address: the places we listen on: "host:port", "[v6]:port" or "unix:/path". Pure; any thread. */
#ifndef INGEST_SERVER_ADDRESS_H
#define INGEST_SERVER_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct net_address {
    bool is_unix;
    char host[256]; /* without brackets; the path of a unix socket */
    uint16_t port;  /* 0: the system picks one */
} net_address;

/* False when `text` is none of the three forms. Names are not looked up. */
bool address_parse(const char *text, net_address *out);
/* Out of reach for other hosts: unix, 127.0.0.0/8, ::1, localhost. */
bool address_is_local(const net_address *it);

#endif
