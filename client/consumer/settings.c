#include "client/consumer/settings.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW_MOST = 700, WORKERS_MOST = 256, TOPICS_MOST = 1000 };

void ingest_consumer_options_init(ingest_consumer_options *options) {
    *options = (ingest_consumer_options){
        .workers = 4,
        .window = WINDOW_MOST,
        .buffer_bytes = 64 << 20,
        .order = INGEST_KEY_PASSES,
        .identity_window_ms = 3600 * 1000,
        .identity_window_events = 1000000,
        .failed_max_events = 1000000,
        .failed_max_bytes = 1 << 30,
    };
}

/* ---- checks ---------------------------------------------------------------------------------- */

static outcome check_text(const char *name, const char *text, failure *why) {
    return text && *text ? ST_OK : fail(why, ST_INVALID, name, "is required");
}

static outcome check_range(const char *name, uint64_t value, uint64_t least, uint64_t most,
                           failure *why) {
    if (value >= least && value <= most) return ST_OK;
    return fail(why, ST_INVALID, name, "%llu is outside %llu to %llu", (unsigned long long)value,
                (unsigned long long)least, (unsigned long long)most);
}

static size_t length_of(const char *const *list) {
    size_t count = 0;
    while (list && list[count])
        count++;
    return count;
}

/* What the promise rests on is not for the caller to set. */
static outcome check_properties(const char *const *list, failure *why) {
    static const char *const OURS[] = {"bootstrap.servers",
                                       "metadata.broker.list",
                                       "group.id",
                                       "enable.auto.commit",
                                       "isolation.level",
                                       "auto.offset.reset",
                                       "partition.assignment.strategy",
                                       "enable.auto.offset.store",
                                       "enable.partition.eof",
                                       "debug",
                                       "log.queue"};
    if (length_of(list) % 2)
        return fail(why, ST_INVALID, "properties", "\"%s\" has no value",
                    list[length_of(list) - 1]);
    for (size_t i = 0; list && list[i]; i += 2)
        for (size_t k = 0; k < sizeof OURS / sizeof *OURS; k++)
            if (strcmp(list[i], OURS[k]) == 0)
                return fail(why, ST_INVALID, "properties",
                            "%s is not to be set: what is promised depends on it", list[i]);
    return ST_OK;
}

static outcome check(const ingest_consumer_options *it, failure *why) {
    outcome result = check_text("brokers", it->brokers, why);
    if (result == ST_OK) result = check_text("group", it->group, why);
    if (result == ST_OK) result = check_text("data_dir", it->data_dir, why);
    if (result == ST_OK) result = check_range("topics", length_of(it->topics), 1, TOPICS_MOST, why);
    if (result == ST_OK) result = check_range("workers", it->workers, 1, WORKERS_MOST, why);
    if (result == ST_OK) result = check_range("window", it->window, 1, WINDOW_MOST, why);
    if (result == ST_OK)
        result = check_range("buffer_bytes", it->buffer_bytes, 1 << 20, UINT64_MAX, why);
    if (result == ST_OK)
        result = check_range("identity_window_ms", it->identity_window_ms, 0, INT64_MAX / 2, why);
    if (result == ST_OK)
        result = check_range("identity_window_events", it->identity_window_events, 0, 1 << 30, why);
    if (result == ST_OK)
        result = check_range("failed_max_events", it->failed_max_events, 1, UINT64_MAX, why);
    if (result == ST_OK)
        result = check_range("failed_max_bytes", it->failed_max_bytes, 1 << 20, UINT64_MAX, why);
    if (result == ST_OK && it->order != INGEST_KEY_PASSES && it->order != INGEST_KEY_WAITS)
        result = fail(why, ST_INVALID, "order", "is no ingest_key_order");
    if (result == ST_OK && it->policy_count && !it->policies)
        result =
            fail(why, ST_INVALID, "policies", "is NULL, but policy_count is %zu", it->policy_count);
    for (size_t i = 0; i < it->policy_count && result == ST_OK; i++)
        if (it->policies[i].backoff_last_ms &&
            it->policies[i].backoff_last_ms < it->policies[i].backoff_ms)
            result = fail(why, ST_INVALID, "policies", "backoff_last_ms is below backoff_ms");
    return result == ST_OK ? check_properties(it->properties, why) : result;
}

/* ---- copies ---------------------------------------------------------------------------------- */

static void free_list(const char *const *list) {
    for (size_t i = 0; list && list[i]; i++)
        free((char *)(uintptr_t)list[i]);
    free((void *)(uintptr_t)list);
}

static bool copy_text(const char *from, const char **to) {
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

static bool copy_list(const char *const *from, const char *const **to) {
    char **copy = calloc(length_of(from) + 1, sizeof(*copy));
    *to = (const char *const *)copy;
    for (size_t i = 0; copy && i < length_of(from); i++)
        if (!(copy[i] = strdup(from[i]))) return false;
    return copy != NULL;
}

outcome settings_copy(const ingest_consumer_options *from, settings *to, failure *why) {
    ingest_consumer_options *copy = &to->options;
    *to = (settings){0};
    outcome result = check(from, why);
    if (result != ST_OK) return result;
    *copy = *from;
    copy->brokers = copy->group = copy->data_dir = copy->catalogue = NULL;
    copy->topics = copy->properties = NULL;
    copy->policies = NULL; /* retries.h has them */
    copy->policy_count = 0;
    if (copy_text(from->brokers, &copy->brokers) && copy_text(from->group, &copy->group) &&
        copy_text(from->data_dir, &copy->data_dir) &&
        copy_text(from->catalogue, &copy->catalogue) && copy_list(from->topics, &copy->topics) &&
        copy_list(from->properties, &copy->properties))
        return ST_OK;
    settings_free(to);
    return fail(why, ST_NO_MEMORY, "", "no memory");
}

void settings_free(settings *it) {
    free((char *)(uintptr_t)it->options.brokers);
    free((char *)(uintptr_t)it->options.group);
    free((char *)(uintptr_t)it->options.data_dir);
    free((char *)(uintptr_t)it->options.catalogue);
    free_list(it->options.topics);
    free_list(it->options.properties);
    *it = (settings){0};
}
