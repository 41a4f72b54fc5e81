/* Details that are unknown or broken are passed over: code and message still count. */
#include "client/publisher/refusal.h"

#include <stdio.h>

#include "google/rpc/error_details.pb-c.h"
#include "storage/utf8.h"

void copy_text(char *out, size_t size, bytes text) {
    size_t len = text.len < size ? text.len : size - 1;
    len = utf8_prefix(bytes_of(text.data, len));
    if (len) memcpy(out, text.data, len);
    out[len] = '\0';
}

static void read_retry_info(ProtobufCBinaryData value, refusal *out) {
    Google__Rpc__RetryInfo *info = google__rpc__retry_info__unpack(NULL, value.len, value.data);
    if (info && info->retry_delay) {
        const Google__Protobuf__Duration *delay = info->retry_delay;
        const bool sound = delay->seconds >= 0 && delay->seconds <= 24 * 3600 && delay->nanos >= 0;
        if (sound) out->retry_ms = (uint32_t)(delay->seconds * 1000 + delay->nanos / 1000000);
    }
    if (info) google__rpc__retry_info__free_unpacked(info, NULL);
}

static void read_error_info(ProtobufCBinaryData value, refusal *out) {
    Google__Rpc__ErrorInfo *info = google__rpc__error_info__unpack(NULL, value.len, value.data);
    if (!info) return;
    copy_text(out->reason, sizeof out->reason, bytes_of_string(info->reason));
    google__rpc__error_info__free_unpacked(info, NULL);
}

static void read_bad_request(ProtobufCBinaryData value, refusal *out) {
    Google__Rpc__BadRequest *bad = google__rpc__bad_request__unpack(NULL, value.len, value.data);
    if (!bad) return;
    char text[2 * sizeof out->message];
    if (bad->n_field_violations > 0) {
        const Google__Rpc__BadRequest__FieldViolation *first = bad->field_violations[0];
        (void)snprintf(text, sizeof text, "%s: %s", first->field, first->description);
        copy_text(out->message, sizeof out->message, bytes_of_string(text));
    }
    google__rpc__bad_request__free_unpacked(bad, NULL);
}

static const struct {
    const char *type;
    void (*read)(ProtobufCBinaryData value, refusal *out);
} DETAILS[] = {
    {"google.rpc.RetryInfo", read_retry_info},
    {"google.rpc.ErrorInfo", read_error_info},
    {"google.rpc.BadRequest", read_bad_request},
};

void refusal_from_status(const Google__Rpc__Status *status, refusal *out) {
    *out = (refusal){.code = status->code};
    copy_text(out->message, sizeof out->message, bytes_of_string(status->message));
    for (size_t i = 0; i < status->n_details; i++) {
        const Google__Protobuf__Any *any = status->details[i];
        const char *slash = strrchr(any->type_url, '/');
        for (size_t k = 0; slash && k < sizeof DETAILS / sizeof *DETAILS; k++)
            if (strcmp(slash + 1, DETAILS[k].type) == 0) DETAILS[k].read(any->value, out);
    }
}

void refusal_from_call(int code, bytes message, bytes details, refusal *out) {
    Google__Rpc__Status *status =
        details.len ? google__rpc__status__unpack(NULL, details.len, details.data) : NULL;
    if (status) refusal_from_status(status, out);
    if (!status || !out->message[0]) {
        if (!status) *out = (refusal){0};
        copy_text(out->message, sizeof out->message, message);
    }
    out->code = code;
    if (status) google__rpc__status__free_unpacked(status, NULL);
}

void refusal_of(int code, const char *message, refusal *out) {
    *out = (refusal){.code = code};
    copy_text(out->message, sizeof out->message, bytes_of_string(message));
}
