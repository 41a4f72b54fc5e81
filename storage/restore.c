/*
 * store_restore. The store is opened as the server opens it, so all that the server checks is
 * checked; the new identity is one batch of the committer.
 */
#include "storage/offline.h"
#include "storage/salvage.h"

#include <stdio.h>

static void describe(event_store *store, store_restored *restored) {
    restored->before = store_id(store);
    restored->route_count = store_route_count(store);
    for (uint32_t i = 0; i < restored->route_count; i++) {
        route_restored *route = &restored->routes[i];
        route_stats stats;
        store_stats(store, i, &stats);
        (void)snprintf(route->name, sizeof route->name, "%s", store_route_name(store, i));
        route->published = stats.position;
        route->last = stats.last_sequence;
        route->events = stats.pending;
    }
}

outcome store_restore(const char *directory, store_restored *restored, failure *why) {
    event_store *store;
    store_options options;
    store_options_init(&options);
    options.directory = directory;
    *restored = (store_restored){.now = uuid_random()};
    if (!salvage_is_store(directory))
        return fail(why, ST_NOT_FOUND, "", "%s is not the folder of a store", directory);
    outcome result = store_open(&options, &store, why);
    if (result != ST_OK) return result;
    describe(store, restored);
    command request = {.kind = COMMAND_RESTORE, .id = &restored->now};
    result = committer_execute(store, &request);
    store_close(store);
    return result == ST_OK ? ST_OK : fail(why, result, "", "%s", outcome_text(result));
}
