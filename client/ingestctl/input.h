/*
 * input: events from a text: JSON Lines, one event a line; or one JSON document, an event or a list
 * of them. Lines are read one at a time, a document whole. One thread.
 */
#ifndef INGEST_CLIENT_INGESTCTL_INPUT_H
#define INGEST_CLIENT_INGESTCTL_INPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "ingest/event.h"

typedef struct input input;

enum { INPUT_ID_PREFIX_MAX = 200 };

/* "-" is standard input, from where it stands. `id_prefix`: see input_next, at most
 * INPUT_ID_PREFIX_MAX bytes; NULL: none. NULL: errno says why. */
input *input_open(const char *path, const char *id_prefix);
void input_close(input *it);

/*
 * The next event, to be freed by the caller; NULL at the end. One that is no event comes with its
 * error. One without an id gets the prefix and its number, or in place of a prefix a hash of the
 * whole file: the same when the same file is read again, and another when it is not the same. What
 * comes through a pipe, without a prefix, gets random ones.
 */
ingest_event *input_next(input *it);
uint64_t input_number(const input *it); /* of the last: line, or place in the document, from 1 */
/* The text of the last one, as far as it is a line of its own; else NULL. Good until the next. */
const char *input_text(const input *it);
/* What part of the input was read, 0 to 1; negative: not known. */
double input_progress(const input *it);
bool input_failed(const input *it); /* reading went wrong, or the document is too large */

#endif
