/**
 * @file
 * Reads events from Kafka and runs their effects: all of an event's, in order, each once.
 *
 * @code
 * static ingest_verdict put(void *arg, const ingest_effect *effect, ingest_trouble *trouble) {
 *     size_t len;
 *     const char *json = ingest_effect_json(effect, &len);
 *     return my_table_put(arg, effect->name, effect->idempotency_key, json, len) ? INGEST_DONE
 *                                                                                : INGEST_RETRY;
 * }
 * ...
 * ingest_consumer_options options;
 * ingest_consumer_options_init(&options);
 * options.brokers = "kafka:9092";
 * options.group = "profiles";
 * options.topics = (const char *const[]){"ingest.transactions", NULL};
 * options.data_dir = "/var/lib/profiles";
 * ingest_consumer *consumer = ingest_consumer_open(&options, &error);
 * ingest_consumer_handle(consumer, INGEST_TABLE, "user", put, users);
 * ingest_consumer_handle(consumer, INGEST_INDEX, NULL, put, indexes);
 * ingest_consumer_handle(consumer, INGEST_ANY, NULL, put, rest);
 * ingest_status ended = ingest_consumer_run(consumer, &error);
 * ingest_consumer_close(consumer);
 * @endcode
 *
 * An *effect* is an index or a table that the catalogue names for an operation, in the catalogue's
 * order, indexes first; an operation without any, and an informative event, is one effect itself.
 * The event is the unit: either every effect of every operation is done, or the event stands in the
 * failed-event store with what was done and why it stopped.
 *
 * **Once.** That an effect is done is durable in Kafka before the next effect of its event, or of
 * its key, begins: it goes with the group's committed offset, in its metadata. So whoever has the
 * partition next, after a crash or a rebalance, goes on behind the last effect that was done. Only
 * an effect whose handler had been called, and whose end was not recorded, is run again, with the
 * same `idempotency_key`: a handler that puts it into its own transaction runs exactly once.
 * An event that arrives a second time (one id, one source) within the window is skipped.
 *
 * **Order.** Events of one key run one after the other, those of different keys side by side.
 *
 * **Failure.** A handler says whether another attempt may help. `order` says what becomes of the
 * later events of the same key meanwhile; see ::ingest_key_order.
 *
 * Threads: `run` drives everything on the caller's thread; handlers run on `workers` threads of the
 * consumer's own, never two at once for one key. All functions may be called from any thread,
 * unless said otherwise. A data folder belongs to one consumer at a time.
 */
#ifndef INGEST_CONSUMER_H
#define INGEST_CONSUMER_H

#include "ingest/event.h"
#include "ingest/publisher.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A member of a consumer group, with its handlers and its failed-event store. */
typedef struct ingest_consumer ingest_consumer;

/** What an effect is on. */
typedef enum ingest_effect_kind {
    INGEST_INDEX,     /**< an index of a search engine; `name` is the index */
    INGEST_TABLE,     /**< a table; `name` is the table */
    INGEST_OPERATION, /**< the catalogue names neither: the operation itself; `name` is its name */
    INGEST_NOTICE,    /**< an informative event; `name` is its name */
    INGEST_ANY        /**< for ingest_consumer_handle only */
} ingest_effect_kind;

/** One effect to be run. All of it lasts for the call of the handler. Texts end with NUL. */
typedef struct ingest_effect {
    ingest_effect_kind kind; /**< decides what `name` is */
    const char *name;        /**< of the index, table, operation or notice */
    /** The same for every attempt at this effect, and for no other: source, id, operation index,
     * kind and name, joined by '/', with what is not safe in a path written as %XX. */
    const char *idempotency_key;
    uint32_t attempt; /**< from 1; attempts before a crash are not counted */

    const char *source;       /**< the event's */
    const char *event_id;     /**< the event's */
    const char *event_type;   /**< name of the transaction or of the informative event */
    const char *key;          /**< the event's; orders it */
    const char *operation;    /**< name of the operation, or of the informative event */
    const char *entity_id;    /**< of the operation; "" when none was given */
    uint32_t operation_index; /**< of the operation in the event, from 0 */
    uint32_t operation_count; /**< in the event */
    uint32_t effect_index;    /**< of the effect in its operation, from 0 */
    uint32_t effect_count;    /**< in the operation */
    int64_t time_ms;          /**< the event's, since 1970 */

    const char *topic; /**< where the (first) record stands in Kafka */
    int32_t partition; /**< of that record */
    int64_t offset;    /**< of that record */

    const void *internal; /**< for ingest_effect_json and ingest_effect_raw */
} ingest_effect;

/** The operation's `data` as JSON (RFC 8259), "null" when it has none or holds `raw`. Made at the
 * first call, kept until the handler returns. NUL-terminated; `len` may be NULL. */
INGEST_API const char *ingest_effect_json(const ingest_effect *effect, size_t *len);
/** The operation's `raw`; NULL when it has none. */
INGEST_API const void *ingest_effect_raw(const ingest_effect *effect, size_t *len);

/** What a handler says of its effect. */
typedef enum ingest_verdict {
    INGEST_DONE,  /**< done, and durable wherever it belongs */
    INGEST_RETRY, /**< not done, or not known; another attempt may help */
    INGEST_FINAL  /**< no attempt will help: to the failed-event store */
} ingest_verdict;

/** What a handler tells of a failure; all optional, cut to size. */
typedef struct ingest_trouble {
    char code[64];    /**< short and stable, such as "timeout": policies and lists go by it */
    char reason[512]; /**< for people */
} ingest_trouble;

/** Runs one effect, on a worker's thread; may block. Must not call ingest_consumer_close. */
typedef ingest_verdict (*ingest_handler)(void *arg, const ingest_effect *effect,
                                         ingest_trouble *trouble);

/** What happens to later events of a key while an earlier one has failed. */
typedef enum ingest_key_order {
    /** They pass. A failed event goes to the failed-event store at its first failure, synced to
     * this member's disk, and is retried from there; the partition goes on. Default. */
    INGEST_KEY_PASSES,
    /** They wait, for as long as it takes: through the retries, and then until somebody retries or
     * discards the event. It is shown in the failed-event store but keeps its place in Kafka, and
     * goes with the partition to another member, where its attempts begin anew. Other keys go on
     * until `window` events of the partition stand behind it; then the partition waits, and the
     * alarm tells. */
    INGEST_KEY_WAITS
} ingest_key_order;

/** How often one operation is tried. */
typedef struct ingest_retry_policy {
    const char *operation;    /**< its name; NULL: all that have no policy of their own */
    uint32_t attempts;        /**< in all, from 1; default 10 */
    uint32_t backoff_ms;      /**< before the second attempt, doubling, with jitter; default 500 */
    uint32_t backoff_last_ms; /**< the longest; default 60,000 */
    const char *const *final_codes; /**< of ingest_trouble; ends with NULL; NULL: none */
} ingest_retry_policy;

/** Something that somebody should look at. */
typedef enum ingest_alarm {
    INGEST_ALARM_FAILED,  /**< an event will not be retried by itself any more */
    INGEST_ALARM_STORE,   /**< the failed-event store is full: the partitions wait */
    INGEST_ALARM_STALLED, /**< a partition waits behind a failed event (INGEST_KEY_WAITS) */
    INGEST_ALARM_OFFSETS, /**< committed offsets are gone, or behind what was done: see the text */
    INGEST_ALARM_KAFKA    /**< Kafka refuses, with an error that does not go away by itself */
} ingest_alarm;

/** How to consume. To be filled by ingest_consumer_options_init first. Texts are copied. */
typedef struct ingest_consumer_options {
    const char *brokers;       /**< "host:port,host:port". Required. */
    const char *group;         /**< the consumer group. Required. */
    const char *const *topics; /**< ends with NULL. Required. */
    /** Topics whose split groups share their events: needs partition counts that are alike, and
     * uses the range assignor, which gives partitions of one number to one member. With one topic,
     * or whole groups, leave it false: cooperative-sticky. */
    bool groups_span_topics;
    const char *data_dir;  /**< holds the failed-event store. Required. Made when missing. */
    const char *catalogue; /**< file; NULL: the one that the servers have by default */
    /** More for librdkafka (security.protocol …): name, value, …, NULL. Those that the promise
     * rests on are refused: group.id, enable.auto.commit, isolation.level, auto.offset.reset,
     * partition.assignment.strategy, enable.auto.offset.store, enable.partition.eof, and debug
     * and log.queue, as it listens to librdkafka's log.
     *
     * With group.instance.id (a static member, KIP-345) a member that comes back within its
     * session.timeout.ms gets what it had, without a rebalance. librdkafka does not ask whether
     * that is still all: a topic or a partition that was made while it was away waits for the next
     * rebalance. So its topics should be there when such a member is first started. */
    const char *const *properties;

    uint32_t workers;       /**< threads that run handlers; default 4, at most 256 */
    uint32_t window;        /**< events of a partition under way at once; default and most 700 */
    uint64_t buffer_bytes;  /**< of all events under way; default 64 MiB */
    ingest_key_order order; /**< default INGEST_KEY_PASSES */
    const ingest_retry_policy *policies; /**< `policy_count` of them */
    size_t policy_count;                 /**< of `policies` */
    /** How long an event's identity is remembered, by the time of its record; read back from Kafka
     * when a partition is taken over. Default 1 h; 0: not at all. */
    uint64_t identity_window_ms;
    uint64_t identity_window_events; /**< at most so many, of 40 bytes; default 1,000,000 */
    bool from_latest; /**< a group without offsets begins at the end, not at the beginning */

    uint64_t failed_max_events; /**< bounds of the failed-event store; default 1,000,000 */
    uint64_t failed_max_bytes;  /**< default 1 GiB */

    /** A line for the log, at most a few a second; any thread; must not block. */
    void (*log)(void *arg, const char *line);
    /** Any thread; must not block. `text` names the thing and the way out. */
    void (*alarm)(void *arg, ingest_alarm what, const char *text);
    void *arg; /**< for `log` and `alarm` */
} ingest_consumer_options;

/** Sets the defaults. */
INGEST_API void ingest_consumer_options_init(ingest_consumer_options *options);

/** Checks the options, opens the failed-event store, makes the Kafka client; joins nothing yet.
 * NULL, and `error` says why, when an option is bad or the folder is in use or damaged. */
INGEST_API ingest_consumer *ingest_consumer_open(const ingest_consumer_options *options,
                                                 ingest_error *error);

/** Names the handler of an effect. With NULL as name: of all effects of the kind that have none of
 * their own; with INGEST_ANY and NULL: of all that have none at all. Only before `run`. False:
 * there is one already. */
INGEST_API bool ingest_consumer_handle(ingest_consumer *consumer, ingest_effect_kind kind,
                                       const char *name, ingest_handler handler, void *arg);

/**
 * Joins the group and consumes until ingest_consumer_stop (INGEST_OK), or until it cannot go on
 * (INGEST_FAILED and `error`): the failed-event store cannot be written, the group's metadata limit
 * is too small, an effect of the catalogue has no handler. Once.
 */
INGEST_API ingest_status ingest_consumer_run(ingest_consumer *consumer, ingest_error *error);

/** Lets effects that run come to their end, for at most `grace_ms`, records them, leaves the group;
 * if that is being rebalanced, some seconds later. `run` returns when all handlers have. This
 * returns at once; async-signal-safe. */
INGEST_API void ingest_consumer_stop(ingest_consumer *consumer, uint32_t grace_ms);

/** Frees all. Not while `run` is going on. NULL is fine. */
INGEST_API void ingest_consumer_close(ingest_consumer *consumer);

/** Counts since the start, and how things stand. */
typedef struct ingest_consumer_stats {
    uint64_t events_done;    /**< with all their effects */
    uint64_t events_skipped; /**< seen before */
    uint64_t effects_done;   /**< calls that ended with INGEST_DONE */
    uint64_t effects_failed; /**< attempts that did not succeed */
    uint64_t commits;        /**< of progress, each for all that was done meanwhile */
    uint64_t rebalances;     /**< partitions given or taken */
    uint64_t failed_events;  /**< in the store */
    uint64_t failed_bytes;   /**< in the store */
    uint64_t lag;            /**< records behind the ends of the partitions held here */
    uint32_t partitions;     /**< held here */
    uint32_t paused;         /**< of these, not read just now */
    uint32_t in_flight;      /**< events under way */
} ingest_consumer_stats;

/** What is counted by the second (lag) may be that old. Does not block. */
INGEST_API void ingest_consumer_stats_get(ingest_consumer *consumer, ingest_consumer_stats *stats);

/** The same, and more, in Prometheus' text format 0.0.4 through `write`. */
INGEST_API void ingest_consumer_metrics(ingest_consumer *consumer,
                                        void (*write)(void *arg, const char *text, size_t len),
                                        void *arg);

/* ---- failed events -------------------------------------------------------------------------- */

/** Where a failed event stands. */
typedef enum ingest_failed_state {
    INGEST_FAILED_WAITING,  /**< will be tried again by itself */
    INGEST_FAILED_GIVEN_UP, /**< final, or out of attempts: for somebody to decide */
    INGEST_FAILED_HELD      /**< given up, and its key waits behind it in Kafka */
} ingest_failed_state;

/** One failed event. Lasts for the call. Texts that are not UTF-8 show '?' there. */
typedef struct ingest_failed_event {
    uint64_t number;           /**< in the store, never used again */
    ingest_failed_state state; /**< where it stands */
    const char *source;        /**< the event's */
    const char *event_id;      /**< the event's; "" of a value that is no event */
    const char *event_type;    /**< name of the transaction or of the informative event */
    const char *key;           /**< the event's */
    const char *operation;     /**< where it stopped */
    const char *effect;        /**< where it stopped */
    uint32_t effects_done;     /**< of the whole event, in order */
    uint32_t effects;          /**< of the whole event */
    uint32_t attempts;         /**< at the effect where it stopped */
    const char *code;          /**< of the last attempt */
    const char *reason;        /**< of the last attempt */
    int64_t first_failed_ms;   /**< since 1970 */
    int64_t last_failed_ms;    /**< since 1970 */
    int64_t next_attempt_ms;   /**< since 1970; 0 unless it is waiting */
    const char *topic;         /**< where its (first) record stands in Kafka */
    int32_t partition;         /**< of that record */
    int64_t offset;            /**< of that record */
    /** The whole event, canonical protobuf JSON; of a value that is no event {"opaque":"BASE64"}.
     * NULL in lists without events. */
    const char *json;
} ingest_failed_event;

/** Which ones. All that is set must hold. */
typedef struct ingest_failed_filter {
    uint64_t number;       /**< 0: any */
    const char *event_id;  /**< NULL: any */
    const char *operation; /**< where it stopped; NULL: any */
    const char *code;      /**< NULL: any */
} ingest_failed_filter;

/**
 * A failed-event store: of a consumer that runs, through the socket in its data folder, or of one
 * that does not, with its folder locked until it is closed. For one thread at a time.
 */
typedef struct ingest_failed_store ingest_failed_store;
/**
 * NULL, and `error` says why, as for all functions here: INGEST_INVALID, there is no such store;
 * INGEST_UNSUPPORTED, it is of another version; INGEST_CLOSED, not now: the folder is in use and
 * nobody answers (waits 5 s for that), or the consumer is ending; INGEST_FAILED, damage, or reading
 * or writing failed.
 */
INGEST_API ingest_failed_store *ingest_failed_store_open(const char *data_dir, ingest_error *error);
/** Unlocks the folder. NULL is fine. */
INGEST_API void ingest_failed_store_close(ingest_failed_store *store);

/** Calls `each` in the order of numbers from behind `after`, until it returns false or `limit` (0:
 * none) were told; in bounded memory. False: `error` says why. */
INGEST_API bool ingest_failed_list(ingest_failed_store *store, const ingest_failed_filter *filter,
                                   uint64_t after, uint64_t limit, bool with_events,
                                   bool (*each)(void *arg, const ingest_failed_event *event),
                                   void *arg, ingest_error *error);
/** They go on at the effect where they stopped, with their attempts counted anew. Where no consumer
 * runs: at its next start. `count`: how many, also when it fails on the way. */
INGEST_API bool ingest_failed_retry(ingest_failed_store *store, const ingest_failed_filter *filter,
                                    uint64_t *count, ingest_error *error);
/** They are deleted, as if they had been done; the rest of their effects never runs. One that is
 * INGEST_FAILED_HELD still stands in Kafka, and only a consumer that runs can discard it: without,
 * the others are discarded, and the error names how many were not. */
INGEST_API bool ingest_failed_discard(ingest_failed_store *store,
                                      const ingest_failed_filter *filter, uint64_t *count,
                                      ingest_error *error);

#ifdef __cplusplus
}
#endif

#endif
