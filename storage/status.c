/* Tables and the one constructor behind status.h. Pure; any thread. */
#include "storage/status.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *name;
    const char *text;
    int grpc_code;
    bool retry;
} OUTCOMES[OUTCOME_COUNT] = {
#define X(name, grpc_code, retry, text) {&#name[3], text, grpc_code, retry},
    OUTCOME_LIST(X)
#undef X
};

const char *outcome_name(outcome code) { return OUTCOMES[code].name; }
const char *outcome_text(outcome code) { return OUTCOMES[code].text; }
int outcome_grpc_code(outcome code) { return OUTCOMES[code].grpc_code; }
bool outcome_retry(outcome code) { return OUTCOMES[code].retry; }

outcome fail(failure *why, outcome code, const char *field, const char *format, ...) {
    if (!why) return code;
    why->code = code;
    (void)snprintf(why->field, sizeof why->field, "%s", field ? field : "");
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why->reason, sizeof why->reason, format, args);
    va_end(args);
    return code;
}
