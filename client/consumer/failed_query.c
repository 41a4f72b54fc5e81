#include "client/consumer/failed_query.h"

typedef struct reading {
    const failed_query *query;
    failed_page *page;
    uint64_t left; /* to be read */
    bool (*each)(void *arg, const failed_record *record);
    void *arg;
} reading;

static bool matches_text(bytes wanted, bytes text) {
    return !wanted.data || bytes_equal(wanted, text);
}

static bool matches(const failed_query *query, const failed_record *record) {
    return (!query->number || query->number == record->number) &&
           matches_text(query->id, record->id) &&
           matches_text(query->operation, record->operation) &&
           matches_text(query->code, record->code);
}

static bool read_one(void *arg, const failed_record *record) {
    reading *it = arg;
    const failed_query *query = it->query;
    it->page->last = record->number;
    bool go_on = --it->left > 0;
    if (matches(query, record)) {
        it->page->count++;
        if (!it->each(it->arg, record)) go_on = false;
        if (it->page->count == query->limit) go_on = false;
    }
    it->page->more = !go_on;
    return go_on && (!query->number || record->number < query->number);
}

outcome failed_query_page(const failed_store *store, const failed_query *query, uint64_t read_max,
                          bool (*each)(void *arg, const failed_record *record), void *arg,
                          failed_page *page, failure *why) {
    uint64_t after = query->after;
    if (query->number > after) after = query->number - 1; /* the others are not even read */
    *page = (failed_page){.last = after};
    if (query->number && query->number <= query->after) return ST_OK;
    reading it = {.query = query, .page = page, .left = read_max, .each = each, .arg = arg};
    outcome result = failed_store_each(store, after, query->with_events, read_one, &it, why);
    if (query->number || (query->limit && page->count == query->limit)) page->more = false;
    return result;
}

typedef struct gathering {
    uint64_t *numbers;
    size_t count;
    size_t most;
} gathering;

static bool gather(void *arg, const failed_record *record) {
    gathering *it = arg;
    it->numbers[it->count++] = record->number;
    return it->count < it->most;
}

outcome failed_query_numbers(const failed_store *store, const failed_query *query,
                             uint64_t *numbers, size_t most, failed_page *page, failure *why) {
    gathering it = {.numbers = numbers, .most = most};
    return failed_query_page(store, query, FAILED_READ_MAX, gather, &it, page, why);
}
