/*
 * refusal: a google.rpc.Status that a server answered with, with what its details say. Pure.
 */
#ifndef INGEST_CLIENT_REFUSAL_H
#define INGEST_CLIENT_REFUSAL_H

#include <stdint.h>

#include "google/rpc/status.pb-c.h"
#include "storage/bytes.h"

enum { REFUSAL_CANCELLED = 1, REFUSAL_INTERNAL = 13, REFUSAL_UNAVAILABLE = 14 };

typedef struct refusal {
    int code;          /* gRPC's */
    uint32_t retry_ms; /* RetryInfo; 0: none */
    char reason[64];   /* ErrorInfo: "STORAGE_FULL"; "": none */
    char message[512]; /* for people; with the field's path where BadRequest has one */
} refusal;

void refusal_from_status(const Google__Rpc__Status *status, refusal *out);
/* From the end of a call; `details` is an encoded google.rpc.Status, or empty. */
void refusal_from_call(int code, bytes message, bytes details, refusal *out);
/* Of our own making: what went wrong on this side. */
void refusal_of(int code, const char *message, refusal *out);

/* As much of the text as fits, cut between two characters, with NUL. */
void copy_text(char *out, size_t size, bytes text);

#endif
