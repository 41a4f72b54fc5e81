/**
 * @file
 * Hands events to the ingest servers. Thin: no storage, no Kafka.
 *
 * @code
 * ingest_publisher_options options;
 * ingest_publisher_options_init(&options);
 * options.target = "dns:///ingest:50051";
 * ingest_error error;
 * ingest_publisher *publisher = ingest_publisher_open(&options, &error);
 * ...
 * ingest_result result;
 * if (ingest_publish(publisher, event, &result) != INGEST_OK)
 *     fprintf(stderr, "%s\n", result.reason);
 * @endcode
 *
 * One PublishStream to each replica carries all events, at most `window` of them unanswered. What
 * was sent and not answered when a stream breaks is sent again with its id to the same replica:
 * there it is the same event.
 *
 * Order: of one key a single event is on its way at a time, the next one leaves when it is
 * answered. So a refusal that is worth another try, a broken stream or a restart never lets a later
 * event overtake an earlier one of its key; the price is one round trip for each event of a key
 * (events of different keys, and those without, share the stream and go side by side). An event
 * that ended with `maybe_stored` may still arrive late. Events of one key go to one replica, chosen
 * by rendezvous hashing over the addresses, as long as it is there.
 *
 * An event moves to another replica only when its own is gone for `failover_ms`; `moved` in the
 * result says so, since the two replicas cannot know of each other's ids: if the first had stored
 * it before it went away, consumers will see it twice, with one ce_id. And the two publish side by
 * side, so around a move the order of a key holds at each replica only.
 *
 * Threads: every function may be called from any thread, but none that waits from a callback. One
 * thread of the publisher's own does all input and output and calls the callbacks; a second one
 * looks up names, if there are any. No global state besides the C core's. Not to be used on both
 * sides of a fork.
 */
#ifndef INGEST_PUBLISHER_H
#define INGEST_PUBLISHER_H

#include "ingest/event.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Connections to the replicas of a target, and the events under way to them. */
typedef struct ingest_publisher ingest_publisher;

/** What became of an event. */
typedef enum ingest_status {
    INGEST_OK,          /**< stored, or published, as was asked for */
    INGEST_INVALID,     /**< the event is not valid; refused for good, correct it */
    INGEST_CONFLICT,    /**< its id is known with other content; refused for good */
    INGEST_DENIED,      /**< not allowed: token, certificate or policy */
    INGEST_DEAD,        /**< set aside as a dead letter: stored, an operator will decide */
    INGEST_TIMEOUT,     /**< not answered in time; see maybe_stored */
    INGEST_WINDOW_FULL, /**< too many events are in flight; never sent */
    INGEST_CLOSED,      /**< the publisher is closed; see maybe_stored */
    INGEST_UNSUPPORTED, /**< an older server, or not an ingest one */
    INGEST_FAILED       /**< the server failed, by its own fault; not to be repeated */
} ingest_status;

/** A few words for people. Any value is fine. */
INGEST_API const char *ingest_status_text(ingest_status status);

/** What INGEST_OK is to mean. */
typedef enum ingest_ack {
    INGEST_PERSISTED, /**< on the server's disk, synced */
    INGEST_PUBLISHED  /**< committed to Kafka */
} ingest_ack;

/** What became of an event, in full. */
typedef struct ingest_result {
    ingest_status status; /**< the rest depends on it */
    bool maybe_stored;    /**< with a failure: the event may be there all the same */
    bool retry;        /**< publishing the same event again may succeed; with its id that is safe */
    bool duplicate;    /**< with INGEST_OK: it was there already */
    bool moved;        /**< sent to another replica than one that may have stored it: see above */
    uint32_t attempts; /**< how often it was sent */
    uint64_t sequence; /**< with INGEST_OK: its place in the order of its route */
    char route[64];    /**< with INGEST_OK: its way into Kafka */
    char store[37];    /**< with INGEST_OK: UUID of the replica's store */
    char id[257];      /**< the event's */
    char reason[512];  /**< with a failure, for people: what, where, and what to do */
} ingest_result;

/** Why a publisher was not opened. */
typedef struct ingest_error {
    ingest_status status; /**< INGEST_INVALID */
    char reason[512];     /**< for people; begins with the option's name */
} ingest_error;

/** How to publish. To be filled by ingest_publisher_options_init first. Texts are copied. */
typedef struct ingest_publisher_options {
    /** "host:port", "unix:/path", or "dns:///name:port", where each address of the name is a
     * replica (the IPv4 ones, if it has any) and they are looked up again as they change. Several,
     * separated by commas, are replicas too. */
    const char *target;
    ingest_ack ack;         /**< default INGEST_PERSISTED */
    uint32_t timeout_ms;    /**< of an event, attempts and pauses together; default 30,000 */
    uint32_t window;        /**< events unanswered; publishing blocks above it; default 4,096 */
    size_t window_bytes;    /**< the same in bytes; default 64 MiB */
    size_t max_event_bytes; /**< larger ones are refused unsent; default 768 KiB, as the server's */
    /** How long its replica may be away before an event moves to another; default 10,000; 0: never
     * moves. */
    uint32_t failover_ms;
    /** Pause before an event is sent again, doubling with jitter, unless the server says how long;
     * default 50. Also between attempts to reach a replica. */
    uint32_t backoff_first_ms;
    uint32_t backoff_last_ms; /**< the longest such pause; default 2,000 */

    bool tls; /**< TLS; also when any of the next four is set, which are files in PEM and a name */
    const char *ca_file;          /**< whom to believe; default: the system's */
    const char *certificate_file; /**< ours, with its key, for mutual TLS */
    const char *key_file;         /**< of certificate_file */
    const char *server_name; /**< expected in the server's certificate; default: the target's */
    const char *token; /**< bearer token, sent with each stream; needs TLS or a loopback target */

    /** Events are held against it before sending; borrowed until the publisher is closed. */
    const ingest_catalogue *catalogue;
    /** A line for the log, at most a few a second. The publisher's thread; must not block. */
    void (*log)(void *arg, const char *line);
    void *arg; /**< for `log` */
} ingest_publisher_options;

/** Sets the defaults; `target` is to be set by the caller. */
INGEST_API void ingest_publisher_options_init(ingest_publisher_options *options);

/**
 * Checks the options, copies what they point to, starts the thread. Does not wait for a server:
 * events are taken and wait until one is there. NULL, and `error` says why, when an option is bad.
 */
INGEST_API ingest_publisher *ingest_publisher_open(const ingest_publisher_options *options,
                                                   ingest_error *error);

/** Publishes and waits for the answer, at most timeout_ms. `result` may be NULL. INGEST_INVALID
 * from a callback, where it would wait for itself. */
INGEST_API ingest_status ingest_publish(ingest_publisher *publisher, const ingest_event *event,
                                        ingest_result *result);

/** Called once for each event that was taken, on the publisher's thread, in the order of the
 * answers; must not block, and must not wait for the publisher. `result` lasts for the call. */
typedef void (*ingest_callback)(void *arg, const ingest_result *result);

/**
 * Queues the event (packed at once: it may be freed or changed afterwards) and returns. When the
 * window is full, waits at most `wait_ms` for room (in a callback not at all), then
 * INGEST_WINDOW_FULL. Any other than INGEST_OK: the event was not taken, and the callback, which
 * may be NULL, will not come; `result`, if not NULL, then says why.
 */
INGEST_API ingest_status ingest_publish_async(ingest_publisher *publisher,
                                              const ingest_event *event, uint32_t wait_ms,
                                              ingest_callback callback, void *arg,
                                              ingest_result *result);

/** Waits until every event taken before is answered, callbacks included; false when the time was
 * over earlier, and from a callback. */
INGEST_API bool ingest_flush(ingest_publisher *publisher, uint32_t timeout_ms);

/** Counts of events since the start, and how things stand. */
typedef struct ingest_publisher_stats {
    uint64_t published;      /**< ended with INGEST_OK */
    uint64_t failed;         /**< ended with another status */
    uint64_t retried;        /**< times that an event had to be sent again */
    uint64_t moved;          /**< to another replica than one that may have stored it */
    uint32_t in_flight;      /**< taken, not answered */
    uint32_t replicas;       /**< known now */
    uint32_t replicas_ready; /**< of these, taking events */
} ingest_publisher_stats;

/** As of the last time that nothing was left to do: a callback may be ahead of it. */
INGEST_API void ingest_publisher_stats_get(ingest_publisher *publisher,
                                           ingest_publisher_stats *stats);

/** Takes no more, waits for at most `grace_ms` for what is in flight, answers the rest with
 * INGEST_CLOSED, ends the thread and frees all. No callback comes after it. Nobody may use the
 * publisher any more, but calls that wait in it are answered. Not from a callback. NULL is fine. */
INGEST_API void ingest_publisher_close(ingest_publisher *publisher, uint32_t grace_ms);

#ifdef __cplusplus
}
#endif

#endif
