/*
 * A record's value is copied, and read in place: protobuf is not unpacked but walked, so that an
 * event costs one allocation. JSON becomes protobuf first. What a handler wants to see of the data
 * is decoded when it asks.
 */
#include "client/consumer/job.h"

#include <stdio.h>
#include <stdlib.h>

#include "client/publisher/event.h"
#include "server/codec.h"
#include "server/validate.h"

enum {
    OPERATIONS_MAX = 1000,
    IDENTITY_BYTES_MAX = 1024, /* more than any server takes, less than the store does */
    /* numbers of fields, see proto/ingest/v1/events.proto */
    EVENT_ID = 1,
    EVENT_SOURCE = 2,
    EVENT_KEY = 3,
    EVENT_TIME = 4,
    EVENT_TRANSACTION = 10,
    EVENT_INFORMATIVE = 11,
    NAME = 1,
    OPERATIONS = 2,
    ENTITY_ID = 2,
    DATA = 3,
    RAW = 4
};

/* ---- memory ---------------------------------------------------------------------------------- */

/* The job, its operations, its value, and room for its texts: each is a part of the value. */
static job *allocate(bytes value, const job_record *record, size_t operations) {
    const size_t room = sizeof(job) + operations * sizeof(job_operation) + 2 * value.len +
                        record->key.len + operations + 8;
    job *it = malloc(room);
    if (!it) return NULL;
    memset(it, 0, sizeof *it + operations * sizeof(job_operation));
    it->operations = (job_operation *)(it + 1);
    uint8_t *copy = (uint8_t *)(it->operations + operations);
    if (value.len) memcpy(copy, value.data, value.len);
    it->wire = bytes_of(copy, value.len);
    it->bytes = room;
    it->source = it->id = it->type = it->key_text = "";
    it->time_ms = record->time_ms;
    it->topic = record->topic;
    it->partition_number = record->partition;
    it->offset = record->offset;
    return it;
}

static const char *put_text(char **at, bytes text) {
    char *begin = *at;
    if (text.len) memcpy(begin, text.data, text.len);
    begin[text.len] = '\0';
    *at = begin + text.len + 1;
    return begin;
}

void job_free(job *it) {
    if (!it) return;
    if (it->parts)
        for (uint32_t i = 1; i < it->part_count; i++)
            job_free(it->parts[i]);
    free(it->parts);
    free(it->trouble);
    free(it);
}

/* ---- walking --------------------------------------------------------------------------------- */

typedef struct event_fields {
    bytes id, source, key, time, body;
    bool transaction;
} event_fields;

typedef struct body_fields {
    bytes name, entity_id, data, raw;
    bool has_data, has_raw;
    size_t operations;
} body_fields;

static bool walk_event(bytes wire, event_fields *out) {
    codec_field field;
    unsigned bodies = 0;
    *out = (event_fields){0};
    while (codec_next(&wire, &field)) {
        switch (field.number) {
        case EVENT_ID:
            out->id = field.body;
            break;
        case EVENT_SOURCE:
            out->source = field.body;
            break;
        case EVENT_KEY:
            out->key = field.body;
            break;
        case EVENT_TIME:
            out->time = field.body;
            break;
        case EVENT_TRANSACTION:
        case EVENT_INFORMATIVE:
            out->body = field.body;
            out->transaction = field.number == EVENT_TRANSACTION;
            bodies++;
            break;
        default:
            break;
        }
    }
    return bodies == 1;
}

/* Of an operation or an informative; of a transaction its name, and how many operations it has. */
static void walk_body(bytes wire, bool transaction, body_fields *out) {
    codec_field field;
    *out = (body_fields){0};
    while (codec_next(&wire, &field)) {
        if (field.number == NAME) out->name = field.body;
        if (transaction) {
            out->operations += field.number == OPERATIONS;
        } else if (field.number == ENTITY_ID) {
            out->entity_id = field.body;
        } else if (field.number == DATA) {
            out->data = field.body;
            out->has_data = true;
            out->has_raw = false;
        } else if (field.number == RAW) {
            out->raw = field.body;
            out->has_raw = true;
            out->has_data = false;
        }
    }
}

static int64_t time_of(bytes wire, int64_t otherwise_ms) {
    codec_field field;
    int64_t seconds = 0, nanos = 0;
    if (!wire.data) return otherwise_ms;
    while (codec_next(&wire, &field))
        *(field.number == 1 ? &seconds : &nanos) = (int64_t)field.value;
    return seconds * 1000 + nanos / 1000000;
}

/* ---- what is no event ------------------------------------------------------------------------ */

static job *make_bad(const job_record *record, const char *code, const char *reason) {
    job *it = allocate(record->value, record, 0);
    if (!it) return NULL;
    char *texts = (char *)(uintptr_t)(it->wire.data + it->wire.len);
    it->key_len = record->key.len;
    it->key_text = put_text(&texts, record->key);
    it->code = code;
    it->effects = 1;
    (void)snprintf(it->reason, sizeof it->reason, "%s", reason);
    return it;
}

/* ---- an event -------------------------------------------------------------------------------- */

static bool put_operation(job *it, const effects *all, bytes wire, bool transaction, char **texts) {
    body_fields fields;
    job_operation *to = &it->operations[it->operation_count++];
    walk_body(wire, false, &fields);
    to->effects = effects_of(all, fields.name);
    to->entity_id = put_text(texts, fields.entity_id);
    to->data = fields.data;
    to->raw = fields.raw;
    to->has_data = fields.has_data;
    to->has_raw = fields.has_raw;
    if (!to->effects || to->effects->transaction != transaction) {
        (void)snprintf(it->reason, sizeof it->reason, "%s \"%.*s\" is not in the catalogue",
                       transaction ? "the operation" : "the notice", (int)fields.name.len,
                       (const char *)fields.name.data);
        it->code = "unknown_operation";
        return false;
    }
    it->effects += to->effects->count;
    return true;
}

static void put_operations(job *it, const effects *all, bytes body, bool transaction,
                           char **texts) {
    codec_field field;
    if (!transaction) {
        put_operation(it, all, body, false, texts);
        return;
    }
    while (codec_next(&body, &field))
        if (field.number == OPERATIONS && !put_operation(it, all, field.body, true, texts)) return;
}

/* `wire` has passed codec_check. */
static job *make_event(const effects *all, const job_record *record, bytes wire) {
    event_fields event;
    body_fields body;
    if (!walk_event(wire, &event))
        return make_bad(record, "malformed", "the event is neither a transaction nor informative");
    walk_body(event.body, event.transaction, &body);
    const size_t operations = event.transaction ? body.operations : 1;
    if (operations == 0 || operations > OPERATIONS_MAX || !event.id.len || !event.source.len)
        return make_bad(record, "malformed",
                        "the event has no id, no source, or not 1 to 1,000 operations");
    if (event.id.len > IDENTITY_BYTES_MAX || event.source.len > IDENTITY_BYTES_MAX)
        return make_bad(record, "malformed", "the event's id or source exceeds 1,024 bytes");
    job *it = allocate(wire, record, operations);
    if (!it) return NULL;
    (void)walk_event(it->wire, &event); /* now of our copy */
    walk_body(event.body, event.transaction, &body);
    char *texts = (char *)(uintptr_t)(it->wire.data + it->wire.len);
    it->id = put_text(&texts, event.id);
    it->source = put_text(&texts, event.source);
    it->key_len = event.key.len ? event.key.len : event.id.len;
    it->key_text = event.key.len ? put_text(&texts, event.key) : it->id;
    it->time_ms = time_of(event.time, record->time_ms);
    put_operations(it, all, event.body, event.transaction, &texts);
    if (body.name.len)
        it->type = put_text(&texts, body.name);
    else if (it->operations[0].effects)
        it->type = it->operations[0].effects->operation;
    if (!it->effects) it->effects = 1;
    return it;
}

/* Canonical protobuf JSON, by the parser that the publishing library has. */
static job *make_from_json(const effects *all, const job_record *record) {
    job *it = NULL;
    ingest_event *event =
        ingest_event_from_json((const char *)record->value.data, record->value.len);
    const char *wrong = ingest_event_error(event);
    if (wrong) {
        it = make_bad(record, "malformed", wrong);
    } else {
        const Ingest__V1__Event *message = event_message(event);
        uint8_t *wire = malloc(ingest__v1__event__get_packed_size(message) + 1);
        if (wire)
            it = make_event(all, record, bytes_of(wire, ingest__v1__event__pack(message, wire)));
        free(wire);
    }
    ingest_event_free(event);
    return it;
}

job *job_new(const effects *all, const job_record *record) {
    const codec_limits limits = {.max_depth = EVENT_MESSAGE_DEPTH_MAX, .max_fields = 1000000};
    failure why;
    if (record->unknown_type) return make_bad(record, "malformed", record->unknown_type);
    if (record->json) return make_from_json(all, record);
    if (!record->value.data) return make_bad(record, "malformed", "the record has no value");
    if (codec_check(&ingest__v1__event__descriptor, record->value, limits, &why) == ST_OK)
        return make_event(all, record, record->value);
    char text[sizeof((job *)0)->reason];
    (void)snprintf(text, sizeof text, "%.60s: %.90s", why.field, why.reason);
    return make_bad(record, "malformed", text);
}

/* ---- groups ---------------------------------------------------------------------------------- */

void job_join(job *first, job **parts, uint32_t count) {
    first->parts = parts;
    first->part_count = count;
    first->effects = 0;
    for (uint32_t i = 0; i < count; i++)
        first->effects += parts[i]->operations[0].effects->count;
}

const job_operation *job_operation_at(const job *it, uint32_t index) {
    return it->parts ? &it->parts[index]->operations[0] : &it->operations[index];
}

static uint32_t operation_count(const job *it) {
    return it->parts ? it->part_count : it->operation_count;
}

static uint8_t *copy_of(bytes from, size_t *len) {
    uint8_t *copy = malloc(from.len + 1);
    if (copy && from.len) memcpy(copy, from.data, from.len);
    *len = from.len;
    return copy;
}

/* The first part's event with the operations of all. */
static uint8_t *join_events(const job *it, size_t *len) {
    Ingest__V1__Event **events = calloc(it->part_count, sizeof(*events));
    Ingest__V1__Operation **all = calloc(it->part_count, sizeof(*all));
    uint8_t *made = NULL;
    bool good = events && all;
    for (uint32_t i = 0; i < it->part_count && good; i++) {
        const bytes wire = it->parts[i]->wire;
        events[i] = ingest__v1__event__unpack(NULL, wire.len, wire.data);
        good = events[i] != NULL;
        if (good) all[i] = events[i]->transaction->operations[0];
    }
    if (good) {
        Ingest__V1__Event whole = *events[0];
        Ingest__V1__Transaction transaction = *events[0]->transaction;
        transaction.operations = all;
        transaction.n_operations = it->part_count;
        whole.transaction = &transaction;
        made = malloc(ingest__v1__event__get_packed_size(&whole) + 1);
        if (made) *len = ingest__v1__event__pack(&whole, made);
    }
    for (uint32_t i = 0; events && i < it->part_count; i++)
        if (events[i]) ingest__v1__event__free_unpacked(events[i], NULL);
    free(events);
    free(all);
    return made;
}

uint8_t *job_event(const job *it, size_t *len) {
    return it->parts && it->part_count > 1 ? join_events(it, len) : copy_of(it->wire, len);
}

/* ---- effects --------------------------------------------------------------------------------- */

const effect *job_next_effect(job *it) {
    uint32_t left = it->done;
    for (uint32_t i = 0; i < operation_count(it); i++) {
        const operation_effects *of = job_operation_at(it, i)->effects;
        if (left < of->count) {
            it->operation_at = i;
            it->effect_at = left;
            return &of->items[left];
        }
        left -= of->count;
    }
    return NULL;
}

/* ---- lists ----------------------------------------------------------------------------------- */

void job_list_init(job_list *it) {
    it->head.before = it->head.behind = &it->head;
    it->count = 0;
}

void job_list_add(job_list *it, job *one) {
    one->link = (job_link){.before = it->head.before, .behind = &it->head};
    one->link.before->behind = one->link.behind->before = &one->link;
    it->count++;
}

void job_list_remove(job_list *it, job *one) {
    one->link.before->behind = one->link.behind;
    one->link.behind->before = one->link.before;
    it->count--;
}

job *job_list_next(const job_list *it, const job *one) {
    job_link *behind = one->link.behind;
    return behind == &it->head ? NULL : (job *)behind;
}

job *job_list_first(const job_list *it) {
    return it->head.behind == &it->head ? NULL : (job *)it->head.behind;
}
