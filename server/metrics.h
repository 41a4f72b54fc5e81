/*
 * metrics: the Prometheus text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/), a histogram and a growing text.
 * Which figures there are is the caller's business:
 *
 *   metrics_writer to = {.text = body};
 *   metrics_family(&to, METRICS_COUNTER, "ingest_events_accepted_total", "Events acknowledged.");
 *   metrics_integer(&to, METRICS_LABELS({"route", name}), count);
 */
#ifndef INGEST_SERVER_METRICS_H
#define INGEST_SERVER_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/status.h"

/* ---- text that grows. Zero-initialise; one thread at a time ------------------------------- */

typedef struct text_buffer {
    char *data; /* owned; NULL when empty; not NUL-terminated */
    size_t len;
    size_t capacity;
    bool failed; /* memory ran out: the text is not whole and takes no more */
} text_buffer;

void text_add(text_buffer *to, const char *data, size_t len);
void text_format(text_buffer *to, const char *format, ...) PRINTF_LIKE(2, 3);
void text_free(text_buffer *to);

/* ---- histogram of durations. Zero-initialise; any thread, without locks -------------------- */

#define HISTOGRAM_BUCKETS 24

/* Bucket i counts durations below 2^i microseconds that fit no smaller one; the last counts all
 * that are longer too (from 4.2 s on). */
typedef struct histogram {
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum_us;
} histogram;

void histogram_observe(histogram *it, uint64_t duration_us);

/* ---- the writer -------------------------------------------------------------------------- */

typedef enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM } metrics_type;

typedef struct metrics_label {
    const char *name;
    const char *value; /* any text: it is escaped; NULL counts as "" */
} metrics_label;

/* Labels of a sample: METRICS_LABELS({"route", name}, {"state", state}). */
#define METRICS_LABELS(...) ((const metrics_label[]){__VA_ARGS__, {NULL, NULL}})
#define METRICS_NO_LABELS ((const metrics_label[]){{NULL, NULL}})

/* Initialise with {.text = ...}; one thread at a time. */
typedef struct metrics_writer {
    text_buffer *text;  /* borrowed */
    const char *family; /* that samples belong to now */
    metrics_type type;
} metrics_writer;

/* Begins a family; all its samples follow. Call once for each name, a constant; a counter's ends
 * in _total and no other does (asserted). */
void metrics_family(metrics_writer *to, metrics_type type, const char *name, const char *help);
void metrics_integer(metrics_writer *to, const metrics_label *labels, uint64_t value);
void metrics_real(metrics_writer *to, const metrics_label *labels, double value);
void metrics_histogram(metrics_writer *to, const metrics_label *labels, const histogram *it);
/* The same for buckets that are kept elsewhere in the same manner (store_figures,
 * publisher_status). */
void metrics_buckets(metrics_writer *to, const metrics_label *labels,
                     const uint64_t buckets[HISTOGRAM_BUCKETS], uint64_t sum_us);

#endif
