/* GetStatus: a picture of the store and the publishers, taken route by route. */
#include "server/admin_service.h"

#include "ingest/v1/admin_service.pb-c.h"
#include "server/proto_time.h"
#include "storage/clock.h"

typedef struct route_picture {
    Ingest__V1__RouteStatus message;
    Google__Protobuf__Duration oldest_age;
    Google__Protobuf__Timestamp last_error_at;
    publisher_status publisher;
} route_picture;

static Ingest__V1__PublisherState state_of(publisher_state state) {
    switch (state) {
    case PUBLISHER_SETTLING:
        return INGEST__V1__PUBLISHER_STATE__PUBLISHER_STATE_SETTLING;
    case PUBLISHER_RUNNING:
        return INGEST__V1__PUBLISHER_STATE__PUBLISHER_STATE_RUNNING;
    case PUBLISHER_BLOCKED:
        return INGEST__V1__PUBLISHER_STATE__PUBLISHER_STATE_BLOCKED;
    case PUBLISHER_HALTED:
        return INGEST__V1__PUBLISHER_STATE__PUBLISHER_STATE_HALTED;
    case PUBLISHER_STOPPED:
        return INGEST__V1__PUBLISHER_STATE__PUBLISHER_STATE_STOPPED;
    }
    return INGEST__V1__PUBLISHER_STATE__PUBLISHER_STATE_UNSPECIFIED;
}

static void picture_route(ingestd *server, size_t index, route_picture *out) {
    route_stats stats;
    store_stats(server->store, server->store_routes[index], &stats);
    publisher_status_get(server->publishers[index], &out->publisher);
    Ingest__V1__RouteStatus *message = &out->message;
    ingest__v1__route_status__init(message);
    message->route = server->config.routes[index].name;
    message->state = state_of(out->publisher.state);
    message->last_sequence = stats.last_sequence;
    message->position = stats.position;
    message->accepted = stats.accepted;
    message->published = stats.published;
    message->pending = stats.pending;
    message->dead = stats.dead;
    message->purged = stats.purged;
    message->lost = stats.lost;
    message->backlog_bytes = stats.backlog_bytes;
    if (stats.oldest_accepted_ms > 0) {
        proto_duration(&out->oldest_age, clock_wall_ms() - stats.oldest_accepted_ms);
        message->oldest_age = &out->oldest_age;
    }
    if (out->publisher.last_error[0]) {
        proto_timestamp(&out->last_error_at, out->publisher.last_error_ms);
        message->last_error = out->publisher.last_error;
        message->last_error_at = &out->last_error_at;
    }
}

static void get_status(rpc_call *call, bytes request) {
    (void)request; /* has no fields */
    ingestd *server = rpc_service(call);
    char version[] = INGEST_VERSION, store_text[UUID_TEXT_SIZE], incarnation_text[UUID_TEXT_SIZE];
    const uuid store = store_id(server->store), incarnation = store_incarnation(server->store);
    uuid_format(&store, store_text);
    uuid_format(&incarnation, incarnation_text);
    Google__Protobuf__Timestamp started_at;
    proto_timestamp(&started_at, server->started_ms);

    Ingest__V1__GetStatusResponse response = INGEST__V1__GET_STATUS_RESPONSE__INIT;
    response.version = version;
    response.store = store_text;
    response.incarnation = incarnation_text;
    response.started_at = &started_at;
    response.n_routes = server->config.route_count;
    response.routes = rpc_alloc(call, response.n_routes * sizeof(Ingest__V1__RouteStatus *));
    route_picture *pictures = rpc_alloc(call, response.n_routes * sizeof *pictures);
    for (size_t i = 0; i < response.n_routes; i++) {
        picture_route(server, i, &pictures[i]);
        response.routes[i] = &pictures[i].message;
    }
    rpc_reply(call, &response.base);
}

void admin_methods(ingestd *server, rpc_method out[ADMIN_METHOD_COUNT]) {
    out[0] = (rpc_method){.path = "/ingest.v1.AdminService/GetStatus",
                          .kind = RPC_UNARY,
                          .on_message = get_status,
                          .service = server};
}
