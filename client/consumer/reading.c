/*
 * From Kafka's records to events. Each partition has a queue of its own, which is read while there
 * is room for more, and otherwise left alone: what was fetched stays there, and librdkafka fetches
 * no more than that holds.
 */
#include <stdio.h>
#include <stdlib.h>

#include "client/consumer/driver.h"
#include "storage/clock.h"

enum { BATCH = 256 };

typedef struct headers {
    bytes id, source, type;
    group_headers group;
} headers;

/* ---- headers --------------------------------------------------------------------------------- */

static bytes *header_field(headers *to, const char *name) {
    const struct {
        const char *name;
        bytes *value;
    } known[] = {{"ce_id", &to->id},
                 {"ce_source", &to->source},
                 {"content-type", &to->type},
                 {"ce_sequence", &to->group.sequence},
                 {"ce_storeid", &to->group.store},
                 {"ce_groupid", &to->group.group},
                 {"ce_groupindex", &to->group.index},
                 {"ce_groupsize", &to->group.size}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) return known[i].value;
    return NULL;
}

static void read_headers(const rd_kafka_message_t *record, headers *out) {
    rd_kafka_headers_t *all = NULL;
    const char *name;
    const void *value;
    size_t size;
    *out = (headers){0};
    if (rd_kafka_message_headers(record, &all)) return;
    for (size_t i = 0; !rd_kafka_header_get_all(all, i, &name, &value, &size); i++) {
        bytes *field = name[0] == 'c' ? header_field(out, name) : NULL;
        if (field) *field = bytes_of(value, size);
    }
    out->group.present = out->group.group.data != NULL;
}

/* Decimal, below 2^63. */
static bool number_of(bytes text, uint64_t *value) {
    *value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || i > 18) return false;
        *value = *value * 10 + (uint64_t)(text.data[i] - '0');
    }
    return text.len > 0;
}

static bool begins_with(bytes text, const char *prefix) {
    const size_t len = strlen(prefix);
    return text.len >= len && memcmp(text.data, prefix, len) == 0;
}

/* ---- what is done already -------------------------------------------------------------------- */

static int64_t time_of(const rd_kafka_message_t *record) {
    const int64_t ms = rd_kafka_message_timestamp(record, NULL);
    return ms >= 0 ? ms : clock_wall_ms();
}

static void remember(consumer *it, const partition *from, identity one, int64_t time_ms) {
    if (!identities_add(it->identities, one, from->id, time_ms))
        driver_end(it, ST_NO_MEMORY, "", "no memory for identities");
}

/* By its headers alone; of a split transaction once. */
static void remember_record(consumer *it, const partition *from, const rd_kafka_message_t *record) {
    headers found;
    uint64_t index = 0;
    read_headers(record, &found);
    if (found.group.present && (!number_of(found.group.index, &index) || index > 0)) return;
    if (found.group.present) found.id = found.group.group;
    if (found.id.len && found.source.len)
        remember(it, from, identity_of(found.source, found.id), time_of(record));
}

/* ---- whole events ---------------------------------------------------------------------------- */

static bool seen_before(const consumer *it, const job *one) {
    return !one->code &&
           identities_known(it->identities,
                            identity_of(bytes_of_string(one->source), bytes_of_string(one->id)),
                            clock_wall_ms());
}

/* `state` is what was found of it in Kafka. */
static void take_event(consumer *it, job *one, uint32_t state, int64_t record_ms) {
    if (seen_before(it, one)) {
        atomic_fetch_add_explicit(&it->counters.events_skipped, 1, memory_order_relaxed);
        running_finish(it, one);
        return;
    }
    if (!one->code)
        remember(it, one->partition,
                 identity_of(bytes_of_string(one->source), bytes_of_string(one->id)), record_ms);
    if (state > PROGRESS_PARTLY && state - PROGRESS_PARTLY < one->effects)
        one->done = state - PROGRESS_PARTLY;
    running_add(it, one);
}

/* ---- split transactions ---------------------------------------------------------------------- */

static uint32_t state_of(const job *one) {
    return window_at(&one->partition->window, one->number)->state;
}

static void check_spread(consumer *it, const job *first, const job *part) {
    if (first->partition == part->partition || it->settings.options.groups_span_topics) return;
    driver_end(it, ST_PRECONDITION, "groups_span_topics",
               "the split transaction %s has records in %s/%d and in %s/%d: set it, so that both "
               "come to one member",
               first->id, first->topic, first->partition_number, part->topic,
               part->partition_number);
}

/* Makes one event of the parts that there are. NULL: no memory. */
static job *join(consumer *it, const group_view *group) {
    job **parts = calloc(group->have, sizeof(*parts));
    uint32_t count = 0;
    for (uint32_t i = 0; parts && i < group->size; i++)
        if (group->parts[i]) parts[count++] = group->parts[i];
    if (!parts) {
        driver_end(it, ST_NO_MEMORY, "", "no memory for a group");
        return NULL;
    }
    job_join(parts[0], parts, count);
    for (uint32_t i = 0; i < count; i++) {
        window *in = &parts[i]->partition->window;
        window_whole(in, parts[i]->number, i ? 0 : parts[0]->effects);
        if (i) { /* it goes with the first one */
            window_at(in, parts[i]->number)->owner = NULL;
            job_list_remove(&it->lists[JOB_NEW], parts[i]);
        }
        check_spread(it, parts[0], parts[i]);
    }
    return parts[0];
}

static void group_is_whole(void *arg, const group_view *group) {
    consumer *it = arg;
    job *first = join(it, group);
    if (first) take_event(it, first, state_of(first), clock_wall_ms());
}

static void group_is_torn(void *arg, const group_view *group) {
    consumer *it = arg;
    job *first = join(it, group);
    if (!first) return;
    first->code = "incomplete_group";
    (void)snprintf(first->reason, sizeof first->reason,
                   "%u of %u records of a split transaction are there; the others are gone",
                   group->have, group->size);
    running_add(it, first);
}

/* False: its headers make no sense, or it is no single operation; then it is told why. */
static bool add_part(consumer *it, job *one, const group_headers *of, bytes source, bytes key) {
    group_part part = {
        .store = of->store, .source = source, .id = of->group, .key = key, .part = one};
    uint64_t index, size;
    failure why;
    if (!number_of(of->sequence, &part.sequence) || !number_of(of->index, &index) ||
        !number_of(of->size, &size) || index > UINT32_MAX || size > UINT32_MAX) {
        (void)snprintf(one->reason, sizeof one->reason,
                       "ce_sequence, ce_groupindex or ce_groupsize is no number");
        return false;
    }
    if (one->operation_count != 1 || !one->operations[0].effects->transaction) {
        (void)snprintf(one->reason, sizeof one->reason,
                       "a record of a split transaction has not one operation");
        return false;
    }
    part.index = (uint32_t)index;
    part.size = (uint32_t)size;
    window_wait(&one->partition->window, one->number);
    outcome result = groups_add(it->groups, &part, clock_monotonic_ms(), group_is_whole, it, &why);
    if (result == ST_OK) return true;
    window_whole(&one->partition->window, one->number, one->effects);
    (void)snprintf(one->reason, sizeof one->reason, "%.40s: %.110s", why.field, why.reason);
    return false;
}

/* Whether nothing comes any more: all was read, or all that there is room for are parts. */
static bool all_read(const consumer *it) {
    bool only_parts = true;
    for (const partition *one = it->partitions; one; one = one->next)
        only_parts = only_parts && one->window.counted == 0;
    for (const partition *one = it->partitions; one; one = one->next)
        if (!one->at_end && !(one->more && only_parts)) return false;
    return true;
}

void reading_give_up_groups(consumer *it, int64_t now_ms) {
    if (groups_count(it->groups) > 0 && all_read(it))
        groups_give_up(it->groups, now_ms - GROUP_MS, group_is_torn, group_is_whole, it);
    atomic_store_explicit(&it->counters.groups, (uint32_t)groups_count(it->groups),
                          memory_order_relaxed);
}

/* ---- records --------------------------------------------------------------------------------- */

static uint32_t found_state(const consumer *it, const partition *from, int64_t offset) {
    const uint32_t state = progress_state(&from->found, (uint64_t)(offset - from->committed));
    const bool same = from->found.crc == effects_crc(it->effects);
    return state == PROGRESS_DONE || same ? state : PROGRESS_NOT_BEGUN;
}

static job *make_job(consumer *it, partition *from, const rd_kafka_message_t *record,
                     const headers *found) {
    char unknown[96];
    job_record given = {.value = bytes_of(record->payload, record->len),
                        .key = bytes_of(record->key, record->key_len),
                        .json = begins_with(found->type, "application/json"),
                        .time_ms = time_of(record),
                        .topic = from->topic,
                        .partition = from->number,
                        .offset = record->offset};
    if (found->type.len && !given.json && !begins_with(found->type, "application/protobuf")) {
        (void)snprintf(unknown, sizeof unknown, "content-type: \"%.*s\" is not known",
                       found->type.len < 40 ? (int)found->type.len : 40,
                       (const char *)found->type.data);
        given.unknown_type = unknown;
    }
    job *made = job_new(it->effects, &given);
    if (made) made->partition = from;
    return made;
}

static void take_record(consumer *it, partition *from, const rd_kafka_message_t *record) {
    uint64_t number;
    headers found;
    const uint32_t state = found_state(it, from, record->offset);
    if (state == PROGRESS_DONE) {
        remember_record(it, from, record);
        from->dirty = true;
        if (!window_add(&from->window, record->offset, 0, state, NULL, &number))
            driver_end(it, ST_NO_MEMORY, "", "no memory for a window");
        return;
    }
    read_headers(record, &found);
    job *one = make_job(it, from, record, &found);
    if (!one || !window_add(&from->window, record->offset, one->effects, state, one, &number)) {
        job_free(one);
        driver_end(it, ST_NO_MEMORY, "", "no memory for an event");
        return;
    }
    one->number = number;
    running_adopt(it, one);
    if (found.group.present && !one->code) {
        if (add_part(it, one, &found.group, found.source, bytes_of(record->key, record->key_len)))
            return;
        one->code = "malformed";
    }
    take_event(it, one, state, time_of(record));
}

static void take_error(consumer *it, partition *from, const rd_kafka_message_t *record) {
    switch (record->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        from->at_end = true;
        if (record->offset <= from->window.next) return;
        window_passed(&from->window, record->offset);
        from->dirty = true;
        return;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        partitions_rewind(it, from);
        return;
    default:
        driver_log(it, "%s/%d: %s", from->topic, from->number, rd_kafka_message_errstr(record));
    }
}

static void take(consumer *it, partition *from, const rd_kafka_message_t *record) {
    if (record->err) {
        take_error(it, from, record);
        return;
    }
    from->at_end = false;
    atomic_fetch_add_explicit(&it->counters.records, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&it->counters.read_bytes, record->len, memory_order_relaxed);
    if (record->offset < from->committed)
        remember_record(it, from, record);
    else if (record->offset >= from->window.next)
        take_record(it, from, record);
}

/* Parts of groups wait for records that are not read yet, maybe in other partitions: were only they
 * counted, nothing would ever be. So a partition without such parts may read as much again. */
static bool room(const consumer *it, const partition *in) {
    const window *of = &in->window;
    const uint64_t most = it->settings.options.buffer_bytes;
    const bool waits = of->end - of->first > of->counted;
    if (in->ending || of->counted >= it->settings.options.window) return false;
    return it->bytes < (waits ? most : 2 * most);
}

void reading_turn(consumer *it) {
    uint32_t paused = 0;
    for (partition *from = it->partitions; from && !driver_ended(it); from = from->next) {
        rd_kafka_message_t *batch[BATCH];
        ssize_t count = BATCH;
        while (count > 0 && room(it, from) && !driver_ended(it)) {
            const size_t free = it->settings.options.window - from->window.counted;
            count =
                rd_kafka_consume_batch_queue(from->queue, 0, batch, free < BATCH ? free : BATCH);
            for (ssize_t i = 0; i < count; i++) {
                take(it, from, batch[i]);
                rd_kafka_message_destroy(batch[i]);
            }
        }
        from->more = !room(it, from);
        paused += from->more;
    }
    atomic_store_explicit(&it->counters.paused, paused, memory_order_relaxed);
}

bool reading_can_go_on(const consumer *it) {
    for (const partition *from = it->partitions; from; from = from->next)
        if (from->more && room(it, from)) return true;
    return false;
}
