/*
 * Errors as clients like to read them: a gRPC status with google.rpc details. Every refusal goes
 * through here, whether it ends a call or is one result among many (PublishResult.error).
 */
#ifndef INGEST_SERVER_STATUS_DETAILS_H
#define INGEST_SERVER_STATUS_DETAILS_H

#include "google/rpc/status.pb-c.h"
#include "server/rpc.h"
#include "storage/status.h"

/*
 * Code, "field: reason", and as details: ErrorInfo (the outcome's name, domain "ingest.v1"),
 * BadRequest when `why` names a field and waiting does not help, RetryInfo when `retry_ms` is not
 * 0. From `allocator` (NULL: malloc); google__rpc__status__free_unpacked frees it.
 * NULL only when the allocator gives none.
 */
Google__Rpc__Status *status_details_make(const failure *why, uint32_t retry_ms,
                                         ProtobufCAllocator *allocator);

/* Ends the call with it, details in the trailer. Under the rules of rpc_fail. */
void rpc_fail_with(rpc_call *call, const failure *why, uint32_t retry_ms);

#endif
