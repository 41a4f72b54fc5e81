"""Publishes events from Python:  publish.py TARGET unary|batch|stream|status ID...

Each ID is a user who signs up: an event whose two operations belong together. It is sent by one call each, by one
call for all, or by a stream; `status` tells where it is. Needs grpcio and grpcio-status (which brings google.rpc), and
the modules that script/clients puts beside this file.

An event has an id of its own, and is sent again with it until the server has answered, for a minute: so it is neither
lost nor doubled. Events are sent again together: where the order of a key matters, wait for one before sending the next.
"""

import sys
import time

import grpc
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from ingest.v1.events_pb2 import Event
from ingest.v1.ingest_service_pb2 import (
    EventState,
    GetEventStatusRequest,
    PublishBatchRequest,
    PublishRequest,
    PublishResult,
)
from ingest.v1.ingest_service_pb2_grpc import IngestServiceStub

SOURCE = "shop"
AGAIN = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED}
TRY_S, GIVE_UP_S = 10, 60


def sign_up(user):
    event = Event(source=SOURCE, id=user, key=user)
    event.transaction.name = "create_user"
    create = event.transaction.operations.add(name="create_user", entity_id=user)
    create.data.update({"name": f"User {user}", "roles": ["learner"]})
    event.transaction.operations.add(name="add_user_to_org", entity_id=user).data.update({"org": "everyone"})
    return event


# The three ways to send. Each yields a result for each event, in their order.


def unary(stub, events):
    for event in events:
        try:
            yield PublishResult(response=stub.Publish(PublishRequest(event=event), timeout=TRY_S))
        except grpc.RpcError as error:
            yield PublishResult(error=status_of(error))


def batch(stub, events):
    yield from stub.PublishBatch(PublishBatchRequest(events=events), timeout=TRY_S).results


def stream(stub, events):
    for answer in stub.PublishStream((PublishRequest(event=event) for event in events), timeout=TRY_S):
        yield from answer.results


def attempt(send, stub, events):
    """A result for each event. Where the call broke, its status stands for those that were not answered."""
    results, broken = [], Status(code=Code.UNAVAILABLE, message="the call ended early")
    try:
        for result in send(stub, events):
            results.append(result)
    except grpc.RpcError as error:
        broken = status_of(error)
    return results + [PublishResult(error=broken)] * (len(events) - len(results))


def publish(send, stub, events):
    """Sends the events until each is answered; how many were refused."""
    refused, pause, give_up = 0, 0.1, time.monotonic() + GIVE_UP_S
    while events:
        left, told = [], 0
        late = time.monotonic() > give_up
        for event, result in zip(events, attempt(send, stub, events)):
            if result.HasField("response"):
                stored = "duplicate of" if result.response.duplicate else "stored as"
                print(f"{event.id}: {stored} {result.response.route} {result.response.sequence}")
            elif result.error.code in AGAIN and not late:
                left.append(event)
                told = max([told] + [hint.retry_delay.ToTimedelta().total_seconds() for hint in details(result.error, RetryInfo)])
            else:
                refused += 1
                print(f"{event.id}: {Code.Name(result.error.code)} {reason(result.error)}")
        events = left
        if events:
            time.sleep(max(pause, told))
            pause = min(2 * pause, 5)
    return refused


def status_of(error):
    """The google.rpc.Status of a failed call; the server's has details, that of a broken connection has none."""
    return rpc_status.from_call(error) or Status(code=error.code().value[0], message=error.details())


def details(status, kind):
    """Those of one kind: BadRequest names the fields that are wrong, RetryInfo says when to come again."""
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            yield detail


def reason(status):
    wrong = [f"{each.field}: {each.description}" for bad in details(status, BadRequest) for each in bad.field_violations]
    return "; ".join(wrong) or status.message


def tell_status(stub, ids):
    for id in ids:
        answer = stub.GetEventStatus(GetEventStatusRequest(source=SOURCE, id=id), timeout=TRY_S)
        print(f"{id}: {EventState.Name(answer.state).removeprefix('EVENT_STATE_')}")


def main(target, what, *ids):
    with grpc.insecure_channel(target) as channel:  # with TLS: grpc.secure_channel
        stub = IngestServiceStub(channel)
        if what == "status":
            return tell_status(stub, ids)
        return publish({"unary": unary, "batch": batch, "stream": stream}[what], stub, [sign_up(id) for id in ids]) > 0


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] not in ("unary", "batch", "stream", "status"):
        sys.exit("usage: publish.py TARGET unary|batch|stream|status ID...")
    sys.exit(main(*sys.argv[1:]))
