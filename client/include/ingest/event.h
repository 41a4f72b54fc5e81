/**
 * @file
 * Builds an event.
 *
 * @code
 * ingest_event *event = ingest_transaction_new("shop", "create_user");
 * ingest_event_set_key(event, "u-1");
 * ingest_operation *op = ingest_event_add(event, "create_user", "u-1");
 * ingest_operation_set_string(op, "name", "Ada");
 * @endcode
 *
 * An event has its id from the moment it is made, so that a retry is never a second event.
 *
 * Errors are remembered: after the first one every call on the event does nothing, publishing it is
 * refused with INGEST_INVALID, and ingest_event_error tells what was wrong and where. So a builder
 * needs one check, at its end. Texts are UTF-8, end with NUL and are copied. An event belongs to
 * one thread at a time; nothing here blocks.
 */
#ifndef INGEST_EVENT_H
#define INGEST_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What the shared library exports. */
#define INGEST_API __attribute__((visibility("default")))

/** An event under construction. */
typedef struct ingest_event ingest_event;
/** An operation of a transaction, or the payload of an informative event. Owned by its event. */
typedef struct ingest_operation ingest_operation;
/** The operations that the servers know. */
typedef struct ingest_catalogue ingest_catalogue;

/* ---- an event ---------------------------------------------------------------------------- */

/**
 * `source`: the service that sends. `name`: an entry of the catalogue; of a transaction with one
 * operation it may be NULL, and the operation's name counts. Never NULL: when memory is out the
 * library ends the process, as the gRPC C core below it does.
 */
INGEST_API ingest_event *ingest_transaction_new(const char *source, const char *name);
/** An informative event has no operations: its payload is set through ingest_event_notice.
 * `entity_id` may be NULL. */
INGEST_API ingest_event *ingest_informative_new(const char *source, const char *name,
                                                const char *entity_id);
/**
 * An event from its canonical protobuf JSON, as grpcurl takes it and the README shows it: with
 * `source`, either `transaction` or `informative`, and `id`, `key`, `time`, `attributes` where
 * wanted; without an `id` one is made. What is wrong with the text is the event's error. Never
 * NULL.
 */
INGEST_API ingest_event *ingest_event_from_json(const char *json, size_t len);
/** To be called for each event that was made; publishing does not take it. NULL is fine. */
INGEST_API void ingest_event_free(ingest_event *event);

/** Instead of the UUIDv7 that it was made with. With an id of your own (an order number) even a
 * request repeated by another process is not a second event. */
INGEST_API void ingest_event_set_id(ingest_event *event, const char *id);
/** Events of one key keep their order. Default: the id. */
INGEST_API void ingest_event_set_key(ingest_event *event, const char *key);
/** When it happened; default: when the server accepts it. Milliseconds since 1970, UTC. */
INGEST_API void ingest_event_set_time(ingest_event *event, int64_t unix_ms);
/** A free annotation; the same name again replaces the value. */
INGEST_API void ingest_event_set_attribute(ingest_event *event, const char *name,
                                           const char *value);

/** Adds an operation to a transaction; `entity_id` may be NULL. Never NULL. */
INGEST_API ingest_operation *ingest_event_add(ingest_event *event, const char *name,
                                              const char *entity_id);
/** The payload of an informative event, to be filled like an operation's. Never NULL. */
INGEST_API ingest_operation *ingest_event_notice(ingest_event *event);

/* ---- payload ----------------------------------------------------------------------------- */

/** A field of the operation's JSON data; the same name again replaces the value. So it is with the
 * others. */
INGEST_API void ingest_operation_set_string(ingest_operation *op, const char *name,
                                            const char *value);
/** A number, finite. It is a double on the way: integers beyond 2^53 do not survive, use a string
 * for them. */
INGEST_API void ingest_operation_set_number(ingest_operation *op, const char *name, double value);
/** true or false. */
INGEST_API void ingest_operation_set_bool(ingest_operation *op, const char *name, bool value);
/** null. */
INGEST_API void ingest_operation_set_null(ingest_operation *op, const char *name);
/** A field whose value is any JSON text (RFC 8259). Refused: a name given twice in an object, a NUL
 * in a string, half a surrogate pair, an integer that a double would change, and more levels than
 * the server takes (some thirty). */
INGEST_API void ingest_operation_set_json(ingest_operation *op, const char *name, const char *json);
/** All of the data as one JSON object; replaces what was set. */
INGEST_API void ingest_operation_data(ingest_operation *op, const char *json);
/** Bytes instead of JSON, such as a message of your own already packed; replaces what was set. */
INGEST_API void ingest_operation_raw(ingest_operation *op, const void *bytes, size_t len);

/* ---- before sending ---------------------------------------------------------------------- */

/** The id in force. Valid until it is changed or the event is freed. */
INGEST_API const char *ingest_event_id(const ingest_event *event);
/** Bytes of the encoded event, as the server's limits.max_event_bytes counts them. */
INGEST_API size_t ingest_event_size(const ingest_event *event);
/**
 * NULL when all is well so far; otherwise the first thing that was wrong, with its field
 * ("event.transaction.operations[1].data.age: is not a finite number"). Valid while the event
 * lives.
 */
INGEST_API const char *ingest_event_error(const ingest_event *event);

/**
 * The operations that the servers know: the text of a catalogue file (server/default_catalogue.tsv
 * is the default one). NULL, and a reason of at most `size` bytes in `why`, when it is not one.
 * Immutable afterwards: any thread.
 */
INGEST_API ingest_catalogue *ingest_catalogue_parse(const char *text, size_t len, char *why,
                                                    size_t size);
/** No publisher may use it any more. NULL is fine. */
INGEST_API void ingest_catalogue_free(ingest_catalogue *catalogue);
/** Checks the event as the server will, by the same code, and its names against the catalogue if
 * one is given (it may be NULL). What is wrong becomes its error. Publishing does this by itself.
 */
INGEST_API bool ingest_event_check(ingest_event *event, const ingest_catalogue *catalogue);

#ifdef __cplusplus
}
#endif

#endif
