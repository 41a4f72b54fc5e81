#include "server/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MIN_BYTES 4096
#define MICROSECONDS 1e6

/* ---- text ------------------------------------------------------------------------------ */

/* Makes room for `len` more bytes. */
static bool reserve(text_buffer *to, size_t len) {
    if (to->failed) return false;
    if (len <= to->capacity - to->len) return true;
    size_t capacity = to->capacity ? to->capacity : TEXT_MIN_BYTES;
    while (capacity - to->len < len && capacity <= SIZE_MAX / 2)
        capacity *= 2;
    char *grown = realloc(to->data, capacity);
    if (!grown) {
        to->failed = true;
        return false;
    }
    to->data = grown;
    to->capacity = capacity;
    return true;
}

void text_add(text_buffer *to, const char *data, size_t len) {
    if (len == 0 || !reserve(to, len)) return;
    memcpy(to->data + to->len, data, len);
    to->len += len;
}

void text_format(text_buffer *to, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    if (len >= 0 && reserve(to, (size_t)len + 1)) {
        (void)vsnprintf(to->data + to->len, (size_t)len + 1, format, again);
        to->len += (size_t)len;
    }
    va_end(again);
    va_end(args);
}

void text_free(text_buffer *to) {
    free(to->data);
    *to = (text_buffer){0};
}

static void add_string(text_buffer *to, const char *text) { text_add(to, text, strlen(text)); }

/* ---- histogram ------------------------------------------------------------------------- */

void histogram_observe(histogram *it, uint64_t duration_us) {
    size_t bucket = duration_us ? 64 - (size_t)__builtin_clzll(duration_us) : 0;
    if (bucket >= HISTOGRAM_BUCKETS) bucket = HISTOGRAM_BUCKETS - 1;
    atomic_fetch_add_explicit(&it->buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&it->sum_us, duration_us, memory_order_relaxed);
}

/* ---- the writer ------------------------------------------------------------------------ */

/* Backslash and line break are escaped, and in label values the quote. */
static void add_escaped(text_buffer *to, const char *text, bool quoted) {
    for (; *text; text++) {
        if (*text == '\n')
            add_string(to, "\\n");
        else if (*text == '\\' || (*text == '"' && quoted))
            text_add(to, (char[]){'\\', *text}, 2);
        else
            text_add(to, text, 1);
    }
}

static bool ends_in_total(const char *name) {
    size_t len = strlen(name);
    return len > 6 && strcmp(name + len - 6, "_total") == 0;
}

void metrics_family(metrics_writer *to, metrics_type type, const char *name, const char *help) {
    static const char *const TYPES[] = {"counter", "gauge", "histogram"};
    bool total = ends_in_total(name);
    assert(total == (type == METRICS_COUNTER));
    (void)total;
    to->family = name;
    to->type = type;
    text_format(to->text, "# HELP %s ", name);
    add_escaped(to->text, help, false);
    text_format(to->text, "\n# TYPE %s %s\n", name, TYPES[type]);
}

/* `le` is a histogram's bucket bound, NULL for none. */
static void add_sample(metrics_writer *to, const char *suffix, const metrics_label *labels,
                       const char *le) {
    assert(to->family);
    add_string(to->text, to->family);
    add_string(to->text, suffix);
    const char *separator = "{";
    for (; labels->name; labels++, separator = ",") {
        text_format(to->text, "%s%s=\"", separator, labels->name);
        add_escaped(to->text, labels->value ? labels->value : "", true);
        add_string(to->text, "\"");
    }
    if (le) {
        text_format(to->text, "%sle=\"%s\"", separator, le);
        separator = ",";
    }
    add_string(to->text, *separator == ',' ? "} " : " ");
}

static void add_integer(metrics_writer *to, const char *suffix, const metrics_label *labels,
                        const char *le, uint64_t value) {
    add_sample(to, suffix, labels, le);
    text_format(to->text, "%" PRIu64 "\n", value);
}

static void add_real(metrics_writer *to, const char *suffix, const metrics_label *labels,
                     double value) {
    add_sample(to, suffix, labels, NULL);
    if (isnan(value))
        add_string(to->text, "NaN\n");
    else if (isinf(value))
        add_string(to->text, value > 0 ? "+Inf\n" : "-Inf\n");
    else
        text_format(to->text, "%.15g\n", value);
}

void metrics_integer(metrics_writer *to, const metrics_label *labels, uint64_t value) {
    assert(to->type != METRICS_HISTOGRAM);
    add_integer(to, "", labels, NULL, value);
}

void metrics_real(metrics_writer *to, const metrics_label *labels, double value) {
    assert(to->type != METRICS_HISTOGRAM);
    add_real(to, "", labels, value);
}

void metrics_buckets(metrics_writer *to, const metrics_label *labels,
                     const uint64_t buckets[HISTOGRAM_BUCKETS], uint64_t sum_us) {
    assert(to->type == METRICS_HISTOGRAM);
    uint64_t count = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        char bound[32] = "+Inf"; /* the last bucket has no bound */
        if (i < HISTOGRAM_BUCKETS - 1)
            (void)snprintf(bound, sizeof bound, "%.7g", (double)(UINT64_C(1) << i) / MICROSECONDS);
        count += buckets[i];
        add_integer(to, "_bucket", labels, bound, count);
    }
    add_real(to, "_sum", labels, (double)sum_us / MICROSECONDS);
    add_integer(to, "_count", labels, NULL, count);
}

void metrics_histogram(metrics_writer *to, const metrics_label *labels, const histogram *it) {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        buckets[i] = atomic_load_explicit(&it->buckets[i], memory_order_relaxed);
    metrics_buckets(to, labels, buckets, atomic_load_explicit(&it->sum_us, memory_order_relaxed));
}
