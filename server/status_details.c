/* Builds google.rpc.Status from a failure. Pure but for the allocator; any thread. */
#include "server/status_details.h"

#include <stdio.h>
#include <stdlib.h>

#include "google/rpc/error_details.pb-c.h"
#include "storage/utf8.h"

static const char DOMAIN[] = "ingest.v1";
#define TYPE_URL "type.googleapis.com/"

enum { DETAILS_MAX = 3 };

static void *take(ProtobufCAllocator *allocator, size_t size) {
    return allocator ? allocator->alloc(allocator->allocator_data, size) : malloc(size);
}

/* A copy that is UTF-8 for certain: a reason may quote a value that was cut in a character. */
static char *take_text(ProtobufCAllocator *allocator, const char *text) {
    size_t len = strlen(text);
    char *copy = take(allocator, len + 1);
    if (!copy) return NULL;
    memcpy(copy, text, len + 1);
    for (size_t at = 0; (at += utf8_prefix(bytes_of(copy + at, len - at))) < len;)
        copy[at] = '?';
    return copy;
}

static bool add_detail(Google__Rpc__Status *status, const char *type_url,
                       const ProtobufCMessage *detail, ProtobufCAllocator *allocator) {
    Google__Protobuf__Any *any = take(allocator, sizeof *any);
    if (!any) return false;
    google__protobuf__any__init(any);
    status->details[status->n_details++] = any; /* owned from here on */
    any->type_url = take_text(allocator, type_url);
    size_t size = protobuf_c_message_get_packed_size(detail);
    any->value.data = take(allocator, size ? size : 1);
    if (!any->type_url || !any->value.data) return false;
    any->value.len = protobuf_c_message_pack(detail, any->value.data);
    return true;
}

static bool add_error_info(Google__Rpc__Status *status, const failure *why,
                           ProtobufCAllocator *allocator) {
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    info.reason = (char *)outcome_name(why->code);
    info.domain = (char *)DOMAIN;
    return add_detail(status, TYPE_URL "google.rpc.ErrorInfo", &info.base, allocator);
}

static bool add_bad_request(Google__Rpc__Status *status, const failure *why,
                            ProtobufCAllocator *allocator) {
    Google__Rpc__BadRequest__FieldViolation violation =
        GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
    Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};
    char *field = take_text(NULL, why->field);
    char *description = take_text(NULL, why->reason);
    bool ok = field && description;
    if (ok) {
        violation.field = field;
        violation.description = description;
        Google__Rpc__BadRequest request = GOOGLE__RPC__BAD_REQUEST__INIT;
        request.n_field_violations = 1;
        request.field_violations = violations;
        ok = add_detail(status, TYPE_URL "google.rpc.BadRequest", &request.base, allocator);
    }
    free(field);
    free(description);
    return ok;
}

static bool add_retry_info(Google__Rpc__Status *status, uint32_t retry_ms,
                           ProtobufCAllocator *allocator) {
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
    delay.seconds = retry_ms / 1000;
    delay.nanos = (int32_t)(retry_ms % 1000) * 1000000;
    Google__Rpc__RetryInfo info = GOOGLE__RPC__RETRY_INFO__INIT;
    info.retry_delay = &delay;
    return add_detail(status, TYPE_URL "google.rpc.RetryInfo", &info.base, allocator);
}

static char *take_message(const failure *why, ProtobufCAllocator *allocator) {
    char text[sizeof why->field + sizeof why->reason + 4];
    const char *reason = why->reason[0] ? why->reason : outcome_text(why->code);
    (void)snprintf(text, sizeof text, "%s%s%s", why->field, why->field[0] ? ": " : "", reason);
    return take_text(allocator, text);
}

Google__Rpc__Status *status_details_make(const failure *why, uint32_t retry_ms,
                                         ProtobufCAllocator *allocator) {
    Google__Rpc__Status *status = take(allocator, sizeof *status);
    if (!status) return NULL;
    google__rpc__status__init(status);
    status->code = outcome_grpc_code(why->code);
    status->message = take_message(why, allocator);
    status->details = take(allocator, DETAILS_MAX * sizeof *status->details);
    bool bad_request = why->field[0] && !outcome_retry(why->code);
    if (status->message && status->details && add_error_info(status, why, allocator) &&
        (!bad_request || add_bad_request(status, why, allocator)) &&
        (!retry_ms || add_retry_info(status, retry_ms, allocator)))
        return status;
    google__rpc__status__free_unpacked(status, allocator);
    return NULL;
}

void rpc_fail_with(rpc_call *call, const failure *why, uint32_t retry_ms) {
    const Google__Rpc__Status *status =
        status_details_make(why, retry_ms, &rpc_arena(call)->allocator);
    size_t size = google__rpc__status__get_packed_size(status); /* an arena never gives none */
    uint8_t *packed = rpc_alloc(call, size);
    size = google__rpc__status__pack(status, packed);
    rpc_fail(call, status->code, status->message, bytes_of(packed, size));
}
