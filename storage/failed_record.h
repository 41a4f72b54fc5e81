/*
 * failed_record: the bytes on disk of a failed event, in two values: its figures, which lists read,
 * and the event, which they do not. This file and failed_record.c are that format; FORMAT_VERSION
 * says how to change it. The control socket of the consumer carries the figures as they are. Pure;
 * any thread.
 */
#ifndef INGEST_STORAGE_FAILED_RECORD_H
#define INGEST_STORAGE_FAILED_RECORD_H

#include "storage/failed_store.h"

/* Longest encoding of the figures; see FAILED_TEXT_MAX. */
#define FAILED_RECORD_MAX ((size_t)40 * 1024)

/* Writes the figures, without the event but with its size `event_size`; texts are cut. */
bytes failed_record_encode(const failed_record *record, uint64_t event_size,
                           uint8_t out[FAILED_RECORD_MAX]);
/* The fields borrow from `value`; `event` stays empty. ST_CORRUPT names the record. */
MUST_CHECK outcome failed_record_decode(uint64_t number, bytes value, failed_record *record,
                                        uint64_t *event_size, failure *why);

enum { FAILED_EVENT_HEAD = 5 };

/* What stands before the event's bytes. */
void failed_event_encode(uint64_t number, bytes event, uint8_t head[FAILED_EVENT_HEAD]);
MUST_CHECK outcome failed_event_decode(uint64_t number, bytes value, bytes *event, failure *why);

#endif
