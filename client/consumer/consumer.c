/*
 * The public face: options, handlers, opening and closing. What runs is driver.c.
 *
 * From its opening on a consumer owns its data folder and answers on the control socket there; what
 * is to be changed in the store of failed events waits for ingest_consumer_run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/consumer/driver.h"
#include "server/default_catalogue.h"

/* ---- handlers -------------------------------------------------------------------------------- */

typedef struct named_handler {
    ingest_effect_kind kind;
    char *name; /* owned; NULL: all of the kind that have none of their own */
    ingest_handler handler;
    void *arg;
} named_handler;

struct handlers {
    named_handler *items; /* owned */
    size_t count;
};

static const named_handler *find_handler(const struct handlers *all, ingest_effect_kind kind,
                                         const char *name) {
    for (size_t i = 0; i < all->count; i++) {
        const named_handler *one = &all->items[i];
        const bool named = one->name && name;
        if (one->kind == kind && (named ? strcmp(one->name, name) == 0 : one->name == name))
            return one;
    }
    return NULL;
}

bool ingest_consumer_handle(ingest_consumer *it, ingest_effect_kind kind, const char *name,
                            ingest_handler handler, void *arg) {
    struct handlers *all = it->handlers;
    if ((kind == INGEST_ANY && name) || find_handler(all, kind, name)) return false;
    named_handler *moved = realloc(all->items, (all->count + 1) * sizeof *moved);
    char *copy = name ? strdup(name) : NULL;
    if (moved) all->items = moved;
    if (!moved || (name && !copy)) abort(); /* as librdkafka does */
    all->items[all->count++] = (named_handler){kind, copy, handler, arg};
    return true;
}

static bool bind_one(const void *arg, effect *one) {
    const struct handlers *all = arg;
    const named_handler *found = find_handler(all, one->kind, one->name);
    if (!found) found = find_handler(all, one->kind, NULL);
    if (!found) found = find_handler(all, INGEST_ANY, NULL);
    if (!found) return false;
    one->handler = found->handler;
    one->arg = found->arg;
    return true;
}

static void free_handlers(struct handlers *all) {
    for (size_t i = 0; all && i < all->count; i++)
        free(all->items[i].name);
    if (all) free(all->items);
    free(all);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static ingest_status tell(ingest_error *error, ingest_status status, const failure *why) {
    if (!error) return status;
    error->status = status;
    (void)snprintf(error->reason, sizeof error->reason, "%.120s%s%s", why->field,
                   why->field[0] ? ": " : "", why->reason);
    return status;
}

static ingest_status opening_status(outcome code) {
    if (code == ST_INVALID) return INGEST_INVALID;
    if (code == ST_UNAVAILABLE) return INGEST_CLOSED;
    return code == ST_PRECONDITION ? INGEST_UNSUPPORTED : INGEST_FAILED;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static outcome load_effects(ingest_consumer *it, failure *why) {
    const char *path = it->settings.options.catalogue;
    catalogue *all;
    const outcome result =
        path ? catalogue_load(path, &all, why)
             : catalogue_parse(bytes_of(ingest_default_catalogue, ingest_default_catalogue_size),
                               &all, why);
    return result == ST_OK ? effects_new(all, &it->effects, why) : result;
}

static outcome open_parts(ingest_consumer *it, const ingest_consumer_options *options,
                          failure *why) {
    const control_hooks hooks = {.change = mailbox_ask, .arg = &it->mailbox};
    outcome result = settings_copy(options, &it->settings, why);
    if (result != ST_OK) return result;
    it->handlers = calloc(1, sizeof *it->handlers);
    if (!it->handlers || !retries_init(&it->retries, options->policies, options->policy_count))
        return fail(why, ST_NO_MEMORY, "", "no memory");
    if (it->wake < 0) return fail(why, ST_INTERNAL, "", "no file descriptor is free");
    result = load_effects(it, why);
    if (result == ST_OK) result = failures_open(it, why);
    if (result == ST_OK) result = kafka_open(it, why);
    if (result == ST_OK)
        result = control_start(it->settings.options.data_dir, it->store, &hooks, &it->control, why);
    return result;
}

ingest_consumer *ingest_consumer_open(const ingest_consumer_options *options, ingest_error *error) {
    failure why = {0};
    ingest_consumer *it = calloc(1, sizeof *it);
    if (!it) {
        (void)fail(&why, ST_NO_MEMORY, "", "no memory");
        (void)tell(error, INGEST_FAILED, &why);
        return NULL;
    }
    it->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    mailbox_init(&it->mailbox, it->wake);
    joining_init(&it->joining, it->wake);
    pthread_mutex_init(&it->log_lock, NULL);
    const outcome result = open_parts(it, options, &why);
    if (result == ST_OK) return it;
    (void)tell(error, opening_status(result), &why);
    ingest_consumer_close(it);
    return NULL;
}

ingest_status ingest_consumer_run(ingest_consumer *it, ingest_error *error) {
    failure why = {0};
    if (atomic_exchange(&it->ran, true)) {
        (void)fail(&why, ST_INVALID, "", "a consumer runs once: open another one");
        return tell(error, INGEST_INVALID, &why);
    }
    outcome result = effects_bind(it->effects, bind_one, it->handlers, &why);
    if (result == ST_OK) result = driver_run(it, &why);
    return result == ST_OK ? INGEST_OK : tell(error, INGEST_FAILED, &why);
}

void ingest_consumer_stop(ingest_consumer *it, uint32_t grace_ms) {
    const uint64_t one = 1;
    atomic_store(&it->grace_ms, grace_ms);
    atomic_store(&it->stopping, true);
    if (write(it->wake, &one, sizeof one) < 0) return; /* full: it is awake */
}

void ingest_consumer_close(ingest_consumer *it) {
    if (!it) return;
    control_stop(it->control);
    failed_store_close(it->store);
    if (it->stuck) return; /* librdkafka's threads still look at the rest */
    if (it->rk) rd_kafka_destroy(it->rk);
    free_handlers(it->handlers);
    effects_free(it->effects);
    retries_free(&it->retries);
    settings_free(&it->settings);
    for (size_t i = 0; i < it->topic_count; i++)
        free(it->topics[i]);
    free(it->topics);
    pthread_mutex_destroy(&it->log_lock);
    mailbox_destroy(&it->mailbox);
    joining_destroy(&it->joining);
    if (it->wake >= 0) (void)close(it->wake);
    free(it);
}
