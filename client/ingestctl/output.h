/* output: what commands print: aligned tables, times and sizes for people, messages as JSON. */
#ifndef INGEST_CLIENT_INGESTCTL_OUTPUT_H
#define INGEST_CLIENT_INGESTCTL_OUTPUT_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>
#include <stdio.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "storage/bytes.h"
#include "storage/status.h"

/* A JSON string with its quotes; what is not UTF-8 becomes U+FFFD. */
void print_json_text(FILE *out, const char *text);
void print_json_bytes(FILE *out, bytes text);
/* Canonical protobuf JSON (https://protobuf.dev/programming-guides/json/), but for this: fields
 * that are not set are printed, so that scripts find them; google.protobuf.Any is left out. */
void print_message_json(FILE *out, const ProtobufCMessage *message);

/* A text from elsewhere, for people: what would steer a terminal, or is not UTF-8, becomes '?'. */
void print_plain(FILE *out, bytes text);
/* "sequence  4711" on a line of its own, by print_plain. */
void print_line(const char *name, const char *format, ...) PRINTF_LIKE(2, 3);

/* A table: rows of cells, printed when all widths are known. The first row is the heading; columns
 * whose name begins with '>' are aligned to the right. */
typedef struct table table;
table *table_new(const char *const *headings, size_t columns);
void table_free(table *it);
void table_add(table *it, const char *format, ...) PRINTF_LIKE(2, 3); /* the next cell */
void table_print(FILE *out, const table *it);

/* For people; the text is good until the fourth call after it. */
const char *time_text(const Google__Protobuf__Timestamp *time); /* "-" for NULL */
const char *age_text(const Google__Protobuf__Duration *age);    /* "1 h 5 min"; "-" for NULL */
const char *size_text(uint64_t bytes);                          /* "1.5 MiB" */

#endif
