/*
 * A line is built in one buffer on the stack and written at once. The format of the fields is
 * parsed, not their output: each value is formatted on its own, then escaped, so that no content
 * can forge a field or a line. What does not fit is left out whole and the line says
 * truncated=true.
 */
#include "server/log.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/rfc3339.h"
#include "storage/bytes.h"
#include "storage/clock.h"

#define LINE_MAX_BYTES 8192
#define LINE_RESERVE 64 /* always left for truncated=true and the end of the line */
#define VALUE_MAX_BYTES 2048

static _Atomic int log_least = LOG_INFO;
static _Atomic int log_form = LOG_LOGFMT;
static _Thread_local uint64_t suppressed_before; /* for the next line of this thread */

void log_setup(log_level level, log_format format) {
    atomic_store_explicit(&log_least, level, memory_order_relaxed);
    atomic_store_explicit(&log_form, format, memory_order_relaxed);
}

bool log_enabled(log_level level) {
    return (int)level >= atomic_load_explicit(&log_least, memory_order_relaxed);
}

bool log_allowed(log_limit *limit, int64_t period_ms) {
    int64_t now = clock_monotonic_ms();
    int64_t next = atomic_load_explicit(&limit->next_ms, memory_order_relaxed);
    if (now < next || !atomic_compare_exchange_strong(&limit->next_ms, &next, now + period_ms)) {
        atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
        return false;
    }
    suppressed_before = atomic_exchange_explicit(&limit->suppressed, 0, memory_order_relaxed);
    return true;
}

/* ---- the line -------------------------------------------------------------------------- */

typedef struct line {
    char text[LINE_MAX_BYTES];
    size_t len;
    bool json;
    bool full; /* something did not fit */
} line;

static void put(line *it, const char *text, size_t len) {
    if (it->full || len > sizeof it->text - LINE_RESERVE - it->len) {
        it->full = true;
        return;
    }
    memcpy(it->text + it->len, text, len);
    it->len += len;
}

static void put_string(line *it, const char *text) { put(it, text, strlen(text)); }

/* Length of the valid UTF-8 sequence at `at`, 0 when there is none. */
static size_t utf8_length(const uint8_t *at, size_t left) {
    if (at[0] < 0x80) return 1;
    size_t len = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc2 || at[0] > 0xf4 || len > left) return 0;
    for (size_t i = 1; i < len; i++)
        if ((at[i] & 0xc0) != 0x80) return 0;
    bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool surrogate = at[0] == 0xed && at[1] > 0x9f;
    bool beyond = at[0] == 0xf4 && at[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : len;
}

/* The code of the control character at `at`, those of Latin-1 included (a terminal obeys them);
 * -1 when it is none. */
static int control_code(const uint8_t *at, size_t len) {
    if (len == 1 && (at[0] < 0x20 || at[0] == 0x7f)) return at[0];
    if (len == 2 && at[0] == 0xc2 && at[1] < 0xa0) return at[1];
    return -1;
}

static void put_escaped(line *it, bytes value) {
    for (size_t i = 0; i < value.len;) {
        const uint8_t *at = value.data + i;
        size_t len = utf8_length(at, value.len - i);
        int control = control_code(at, len);
        char escape[8];
        if (len == 0)
            put_string(it, "\xef\xbf\xbd"); /* U+FFFD, the replacement character */
        else if (*at == '"' || *at == '\\')
            put(it, (char[]){'\\', (char)*at}, 2);
        else if (*at == '\n')
            put_string(it, "\\n");
        else if (*at == '\t')
            put_string(it, "\\t");
        else if (control >= 0)
            put(it, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)control));
        else
            put(it, (const char *)at, len);
        i += len ? len : 1;
    }
}

static bool needs_quotes(bytes value) {
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.data[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\') return true;
    }
    return value.len == 0;
}

static void put_field(line *it, bytes name, bytes value, bool number) {
    size_t before = it->len;
    if (it->len > (it->json ? 1 : 0)) put_string(it, it->json ? "," : " ");
    if (it->json) put_string(it, "\"");
    put(it, (const char *)name.data, name.len);
    put_string(it, it->json ? "\":" : "=");
    bool quotes = it->json ? !number : needs_quotes(value);
    if (quotes) put_string(it, "\"");
    put_escaped(it, value);
    if (quotes) put_string(it, "\"");
    if (it->full) it->len = before;
}

static void put_named(line *it, const char *name, const char *value) {
    put_field(it, bytes_of_string(name), bytes_of_string(value), false);
}

/* ---- the fields ------------------------------------------------------------------------ */

typedef struct value {
    char text[VALUE_MAX_BYTES];
    size_t len;
    bool number; /* one number and nothing else */
} value;

static void value_add(value *it, const char *format, ...) PRINTF_LIKE(2, 3);
static void value_add(value *it, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(it->text + it->len, sizeof it->text - it->len, format, args);
    va_end(args);
    if (wrote < 0) return;
    size_t room = sizeof it->text - 1 - it->len;
    it->len += (size_t)wrote < room ? (size_t)wrote : room;
}

static int read_number(const char **at) {
    int number = 0;
    for (; **at >= '0' && **at <= '9'; ++*at)
        if (number < VALUE_MAX_BYTES) number = number * 10 + (**at - '0');
    return number;
}

typedef struct conversion {
    bool zero;     /* pad with zeros */
    int width;     /* 0: none */
    int precision; /* -1: none */
    char length;   /* 0, 'l', 'L' for ll, 'z', 'j' */
    char type;
} conversion;

/* Reads the conversion that follows a '%'. */
static conversion read_conversion(const char **at, va_list *args) {
    conversion it = {.precision = -1};
    if (**at == '0') it.zero = true;
    it.width = read_number(at);
    if (**at == '.') {
        ++*at;
        if (**at == '*') {
            ++*at;
            it.precision = va_arg(*args, int);
        } else {
            it.precision = read_number(at);
        }
    }
    if (**at == 'l' || **at == 'z' || **at == 'j') it.length = *(*at)++;
    if (it.length == 'l' && **at == 'l') {
        it.length = 'L';
        ++*at;
    }
    if (**at) it.type = *(*at)++;
    return it;
}

static intmax_t signed_argument(char length, va_list *args) {
    switch (length) {
    case 'l':
        return va_arg(*args, long);
    case 'L':
        return va_arg(*args, long long);
    case 'z':
        return va_arg(*args, ssize_t);
    case 'j':
        return va_arg(*args, intmax_t);
    default:
        return va_arg(*args, int);
    }
}

static uintmax_t unsigned_argument(char length, va_list *args) {
    switch (length) {
    case 'l':
        return va_arg(*args, unsigned long);
    case 'L':
        return va_arg(*args, unsigned long long);
    case 'z':
        return va_arg(*args, size_t);
    case 'j':
        return va_arg(*args, uintmax_t);
    default:
        return va_arg(*args, unsigned);
    }
}

/* False when the conversion is not one of ours: no later argument can be found then. */
static bool value_convert(value *it, const conversion *how, va_list *args) {
    double real;
    it->number = it->len == 0 && how->width == 0;
    switch (how->type) {
    case 'd':
    case 'i':
        value_add(it, how->zero ? "%0*jd" : "%*jd", how->width, signed_argument(how->length, args));
        return true;
    case 'u':
        value_add(it, how->zero ? "%0*ju" : "%*ju", how->width,
                  unsigned_argument(how->length, args));
        return true;
    case 'x':
        it->number = false;
        value_add(it, how->zero ? "%0*jx" : "%*jx", how->width,
                  unsigned_argument(how->length, args));
        return true;
    case 'X':
        it->number = false;
        value_add(it, how->zero ? "%0*jX" : "%*jX", how->width,
                  unsigned_argument(how->length, args));
        return true;
    case 'f':
    case 'g':
        if (how->length != 0 && how->length != 'l') return false;
        real = va_arg(*args, double);
        it->number = it->number && isfinite(real);
        value_add(it, how->type == 'f' ? "%*.*f" : "%*.*g", how->width, how->precision, real);
        return true;
    case 'c':
        it->number = false;
        value_add(it, "%c", va_arg(*args, int));
        return how->length == 0;
    case 's': {
        it->number = false;
        if (how->length != 0) return false;
        const char *text = va_arg(*args, const char *);
        value_add(it, "%*.*s", how->width, how->precision, text ? text : "(null)");
        return true;
    }
    case '%':
        it->number = false;
        value_add(it, "%%");
        return true;
    default:
        return false;
    }
}

static void put_fields(line *it, const char *fields, va_list *args) {
    const char *at = fields;
    while (*at) {
        size_t name_len = strcspn(at, "= ");
        bytes name = bytes_of(at, name_len);
        at += name_len;
        char stop = *at;
        if (stop) at++;
        if (stop != '=') continue; /* several spaces, or a name without a value */

        value content;
        content.len = 0;
        content.number = false;
        bool known = true;
        while (known && *at && *at != ' ') {
            if (*at == '%') {
                at++;
                conversion how = read_conversion(&at, args);
                known = value_convert(&content, &how, args);
            } else {
                content.number = false;
                value_add(&content, "%c", *at++);
            }
        }
        if (!known) {
            put_named(it, "bad_format", "true");
            return;
        }
        put_field(it, name, bytes_of(content.text, content.len), content.number);
    }
}

/* ---- log_line -------------------------------------------------------------------------- */

static void put_time(line *it) {
    char text[RFC3339_SIZE];
    int64_t now = clock_wall_ms();
    rfc3339_write(now / 1000, (int32_t)(now % 1000) * 1000000, RFC3339_MILLIS, text);
    put_named(it, "ts", text);
}

static void put_end(line *it) {
    if (it->full) {
        const char *mark = it->json ? ",\"truncated\":true" : " truncated=true";
        memcpy(it->text + it->len, mark, strlen(mark));
        it->len += strlen(mark);
    }
    if (it->json) it->text[it->len++] = '}';
    it->text[it->len++] = '\n';
}

void log_line(log_level level, const char *message, const char *fields, ...) {
    static const char *const LEVELS[] = {"debug", "info", "warning", "error"};
    uint64_t left_out = suppressed_before;
    suppressed_before = 0;
    if (!log_enabled(level)) return;

    int kept_errno = errno;
    line it;
    it.len = 0;
    it.full = false;
    it.json = atomic_load_explicit(&log_form, memory_order_relaxed) == LOG_JSON;
    if (it.json) put_string(&it, "{");
    put_time(&it);
    put_named(&it, "level", LEVELS[level]);
    put_named(&it, "msg", message);
    if (left_out) {
        char count[24];
        int len = snprintf(count, sizeof count, "%" PRIu64, left_out);
        put_field(&it, bytes_of_string("suppressed"), bytes_of(count, (size_t)len), true);
    }
    va_list args;
    va_start(args, fields);
    put_fields(&it, fields, &args);
    va_end(args);
    put_end(&it);

    while (write(STDERR_FILENO, it.text, it.len) < 0 && errno == EINTR)
        continue;
    errno = kept_errno;
}
