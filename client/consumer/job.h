/*
 * job: an event under way, from its record (or from the store of failed events) until its end is
 * recorded. Made and freed by the driver's thread; a worker reads it while it runs an effect of it.
 */
#ifndef INGEST_CLIENT_JOB_H
#define INGEST_CLIENT_JOB_H

#include "client/consumer/effects.h"
#include "client/consumer/keys.h"

struct partition;

/* Where a job stands; it is in the driver's list of that state, but for the later parts of a group
 * that is whole. See running.c for what moves it. */
typedef enum job_state {
    JOB_NEW,       /* just made, or a part of a group that is not whole */
    JOB_QUEUED,    /* behind others of its key */
    JOB_RUNNING,   /* a worker has it, or it is on its way there */
    JOB_BLOCKED,   /* could begin, but for want of room in the text of progress */
    JOB_RECORDING, /* goes on when what was done is committed */
    JOB_STORING,   /* goes on when it is on the disk */
    JOB_MOVING,    /* it is, and goes on when there is room among the partition's moves */
    JOB_BACKOFF,   /* until due_ms */
    JOB_HELD,      /* given up; it keeps its place until somebody decides */
    JOB_FAILING,   /* has to go to the store, which had no room */
    JOB_STATES
} job_state;

typedef struct job_operation {
    const operation_effects *effects;
    const char *entity_id;
    bytes data, raw; /* google.protobuf.Struct, or anything; as `has_…` says */
    bool has_data, has_raw;
} job_operation;

typedef struct job_link {
    struct job_link *before, *behind;
} job_link;

typedef struct job {
    job_link link; /* in the list of its state; first, so that a link is its job */
    key_place key; /* from when it is whole to its end */
    job_state state;
    bool orphan; /* its partition went while a worker had it */
    bool final;  /* what is being recorded is its end */

    /* the event; texts end with NUL */
    const char *source, *id, *type, *key_text;
    size_t key_len;
    int64_t time_ms;
    job_operation *operations;
    uint32_t operation_count;
    struct job **parts; /* owned: of a split transaction, this one first; NULL: a whole event */
    uint32_t part_count;
    bytes wire;       /* ingest.v1.Event; the value as it came of what is none */
    const char *code; /* what is wrong with what is no event; else NULL */
    char reason[160];

    /* where its record stands; parts have each their own */
    struct partition *partition; /* NULL: it came from the store */
    uint64_t number;             /* in the partition's window */
    uint64_t stored;             /* its number in the store; 0: it is not there */
    const char *topic;
    int32_t partition_number;
    int64_t offset;
    size_t bytes; /* of memory, about */

    /* progress */
    uint32_t effects, done;
    uint32_t attempts; /* at the effect that is next */
    int64_t due_ms;
    int64_t first_failed_ms;
    uint64_t commit; /* the one that makes it durable */

    /* while a worker has it */
    uint32_t operation_at, effect_at; /* the effect that is run */
    ingest_verdict verdict;
    ingest_trouble *trouble; /* owned; NULL: none was told */
    struct job *next;        /* in the queues from and to the workers */
} job;

/* The record of one split transaction's operation has such headers. */
typedef struct group_headers {
    bool present;
    bytes store, sequence, index, size, group;
} group_headers;

/* What a record is made of, borrowed. */
typedef struct job_record {
    bytes value, key;
    bool json;                /* by its content-type */
    const char *unknown_type; /* a content-type that we do not know, else NULL */
    int64_t time_ms;
    const char *topic;
    int32_t partition;
    int64_t offset;
} job_record;

/* Never fails but for memory (NULL): what is no event of ours becomes a job with a `code`. */
job *job_new(const effects *all, const job_record *record);
/* With its parts and trouble. NULL is fine. */
void job_free(job *it);
/* Makes the first part the event; takes the array. Counts effects. */
void job_join(job *first, job **parts, uint32_t count);
/* The whole event in protobuf: of a group a new one, to be freed. NULL: no memory. */
uint8_t *job_event(const job *it, size_t *len);

/* Operation `index` of the event. */
const job_operation *job_operation_at(const job *it, uint32_t index);
/* Sets operation_at and effect_at to the effect that is next. */
const effect *job_next_effect(job *it);

/* ---- lists ----------------------------------------------------------------------------------- */

typedef struct job_list {
    job_link head;
    size_t count;
} job_list;

void job_list_init(job_list *it);
void job_list_add(job_list *it, job *one);
void job_list_remove(job_list *it, job *one);
job *job_list_first(const job_list *it); /* NULL: it is empty */
/* The one behind it; NULL: it was the last. */
job *job_list_next(const job_list *it, const job *one);

#endif
