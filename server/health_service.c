/*
 * A table of names and a list of watchers under one mutex. A watcher that is still busy sending
 * is skipped and gets the state of the moment when it is through (on_sent): it never holds more
 * than one message, and never misses the last state.
 */
#include "server/health_service.h"

#include <pthread.h>
#include <stdlib.h>

#include "grpc/health/v1/health.pb-c.h"
#include "server/codec.h"
#include "server/status_details.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;
#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

enum { NOTHING_TOLD = -1 };

typedef struct watcher { /* lives in its call's memory */
    rpc_call *call;
    const char *name;
    int told; /* last state sent */
    struct watcher *next;
    struct watcher **previous;
} watcher;

struct health_service {
    pthread_mutex_t mutex; /* then a call's own; callbacks come without either */
    struct {
        char name[HEALTH_NAME_MAX];
        serving_status status;
    } names[HEALTH_NAMES_MAX];
    uint32_t name_count;
    bool shut;
    watcher *watchers;
    uint32_t watcher_count;
};

health_service *health_new(void) {
    health_service *service = calloc(1, sizeof *service);
    if (service) pthread_mutex_init(&service->mutex, NULL);
    return service;
}

void health_free(health_service *service) {
    if (!service) return;
    pthread_mutex_destroy(&service->mutex);
    free(service);
}

/* ---- states; the mutex is held ------------------------------------------------------------- */

static serving_status status_of(const health_service *service, const char *name) {
    for (uint32_t i = 0; i < service->name_count; i++)
        if (strcmp(service->names[i].name, name) == 0) return service->names[i].status;
    return STATUS(SERVICE_UNKNOWN);
}

static void set_status(health_service *service, const char *name, serving_status status) {
    uint32_t i = 0;
    while (i < service->name_count && strcmp(service->names[i].name, name) != 0)
        i++;
    if (i == service->name_count) {
        if (i == HEALTH_NAMES_MAX || strlen(name) >= HEALTH_NAME_MAX) return;
        memcpy(service->names[i].name, name, strlen(name) + 1);
        service->name_count++;
    }
    service->names[i].status = status;
}

static void tell(health_service *service, watcher *one) {
    serving_status status = status_of(service, one->name);
    if (one->told == (int)status || rpc_send_queue(one->call) > 0) return; /* on_sent comes back */
    one->told = (int)status;
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = status;
    rpc_send(one->call, &response.base);
}

static void tell_all(health_service *service) {
    for (watcher *one = service->watchers; one; one = one->next)
        tell(service, one);
}

void health_set(health_service *service, const char *name, bool serving) {
    pthread_mutex_lock(&service->mutex);
    if (!service->shut) {
        set_status(service, name, serving ? STATUS(SERVING) : STATUS(NOT_SERVING));
        tell_all(service);
    }
    pthread_mutex_unlock(&service->mutex);
}

void health_shutdown(health_service *service) {
    pthread_mutex_lock(&service->mutex);
    service->shut = true;
    for (uint32_t i = 0; i < service->name_count; i++)
        service->names[i].status = STATUS(NOT_SERVING);
    tell_all(service);
    pthread_mutex_unlock(&service->mutex);
}

/* ---- methods ------------------------------------------------------------------------------- */

/* The name asked for, in the call's memory; NULL after ending the call. */
static const char *read_name(rpc_call *call, bytes message) {
    failure why;
    const ProtobufCMessageDescriptor *type = &grpc__health__v1__health_check_request__descriptor;
    if (codec_check(type, message, CODEC_LIMITS_DEFAULT, &why) == ST_OK) {
        Grpc__Health__V1__HealthCheckRequest *request =
            codec_unpack(type, message, &rpc_arena(call)->allocator);
        if (request && strlen(request->service) < HEALTH_NAME_MAX) return request->service;
        (void)fail(&why, ST_INVALID, "service", "longer than %d bytes", HEALTH_NAME_MAX - 1);
    }
    rpc_fail_with(call, &why, 0);
    return NULL;
}

static void check(rpc_call *call, bytes message) {
    health_service *service = rpc_service(call);
    const char *name = read_name(call, message);
    if (!name) return;
    pthread_mutex_lock(&service->mutex);
    serving_status status = status_of(service, name);
    pthread_mutex_unlock(&service->mutex);
    if (status == STATUS(SERVICE_UNKNOWN)) {
        failure why;
        (void)fail(&why, ST_NOT_FOUND, "service", "unknown service");
        rpc_fail_with(call, &why, 0);
        return;
    }
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = status;
    rpc_reply(call, &response.base);
}

/* False when there are too many. */
static bool add_watcher(health_service *service, rpc_call *call, const char *name) {
    watcher *one = rpc_alloc(call, sizeof *one);
    *one = (watcher){.call = call, .name = name, .told = NOTHING_TOLD};
    pthread_mutex_lock(&service->mutex);
    bool room = service->watcher_count < HEALTH_WATCHERS_MAX;
    if (room) {
        rpc_set_state(call, one);
        service->watcher_count++;
        one->next = service->watchers;
        one->previous = &service->watchers;
        if (one->next) one->next->previous = &one->next;
        service->watchers = one;
        tell(service, one);
    }
    pthread_mutex_unlock(&service->mutex);
    return room;
}

static void watch(rpc_call *call, bytes message) {
    const char *name = read_name(call, message);
    if (!name || add_watcher(rpc_service(call), call, name)) return;
    failure why;
    (void)fail(&why, ST_OVERLOADED, "", "too many watchers; the limit is %d", HEALTH_WATCHERS_MAX);
    rpc_fail_with(call, &why, 1000);
}

static void watch_sent(rpc_call *call) {
    health_service *service = rpc_service(call);
    pthread_mutex_lock(&service->mutex);
    tell(service, rpc_state(call));
    pthread_mutex_unlock(&service->mutex);
}

static void watch_cancelled(rpc_call *call) {
    health_service *service = rpc_service(call);
    watcher *one = rpc_state(call);
    pthread_mutex_lock(&service->mutex);
    *one->previous = one->next;
    if (one->next) one->next->previous = one->previous;
    service->watcher_count--;
    pthread_mutex_unlock(&service->mutex);
    failure why;
    (void)fail(&why, ST_STOPPING, "", "the watch ends");
    rpc_fail_with(call, &why, 0);
}

size_t health_methods(health_service *service, rpc_method out[HEALTH_METHODS]) {
    out[0] = (rpc_method){.path = "/grpc.health.v1.Health/Check",
                          .kind = RPC_UNARY,
                          .on_message = check,
                          .service = service};
    out[1] = (rpc_method){.path = "/grpc.health.v1.Health/Watch",
                          .kind = RPC_SERVER_STREAM,
                          .on_message = watch,
                          .on_cancel = watch_cancelled,
                          .on_sent = watch_sent,
                          .service = service};
    return HEALTH_METHODS;
}
