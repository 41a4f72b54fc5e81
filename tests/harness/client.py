"""The project's API from Python: compiles proto/ into build/python at the first import, and wraps the stubs."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import sys
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct
from grpc_tools import protoc

from .paths import BUILD, PROTO


def _compile() -> Path:
    """Generates the Python modules into a folder named after what is in proto/."""
    sources = sorted(PROTO.rglob("*.proto"))
    assert sources, f"no .proto in {PROTO}"
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    out = BUILD / "python" / digest
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=out.parent))
        well_known = importlib.resources.files("grpc_tools") / "_proto"
        flags = [f"-I{PROTO}", f"-I{well_known}", f"--python_out={fresh}", f"--grpc_python_out={fresh}"]
        assert protoc.main(["protoc", *flags, *map(str, sources)]) == 0, "protoc failed"
        try:
            os.rename(fresh, out)
        except OSError:  # another process was first
            assert out.exists()
    return out


_generated = _compile()
sys.path.insert(0, str(_generated))
grpc.__path__.append(str(_generated / "grpc"))  # grpc.health and grpc.reflection live inside the library's package

from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from grpc.health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from ingest.v1 import (  # noqa: E402
    admin_service_pb2,
    admin_service_pb2_grpc,
    events_pb2,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
)

Event = events_pb2.Event
PublishRequest = ingest_service_pb2.PublishRequest
PublishResponse = ingest_service_pb2.PublishResponse
PublishResult = ingest_service_pb2.PublishResult
RouteStatus = admin_service_pb2.RouteStatus
PERSISTED = ingest_service_pb2.ACK_PERSISTED
PUBLISHED = ingest_service_pb2.ACK_PUBLISHED
SOURCE = "tests"

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a client of its own, not a share in a neighbour's connection
]


# -- events


def operation(name: str, entity_id: str = "", data: Mapping[str, Any] | bytes | None = None) -> events_pb2.Operation:
    made = events_pb2.Operation(name=name, entity_id=entity_id)
    _set_payload(made, data)
    return made


def transaction(
    *operations: str | events_pb2.Operation,
    name: str = "",
    id: str | None = None,
    key: str = "",
    source: str = SOURCE,
    data: Mapping[str, Any] | bytes | None = None,
    attributes: Mapping[str, str] | None = None,
) -> events_pb2.Event:
    """An event with these operations (default: one "create_user"), named after the first when there are several.
    `data` goes to the operations given by name. Without an id it gets a random one; id="" leaves it to the server."""
    each = [
        operation(given, entity_id=key, data=data) if isinstance(given, str) else given
        for given in operations or ("create_user",)
    ]
    event = _event(id, key, source, attributes)
    event.transaction.name = name or (each[0].name if len(each) > 1 else "")
    event.transaction.operations.extend(each)
    return event


def informative(
    name: str,
    id: str | None = None,
    key: str = "",
    source: str = SOURCE,
    data: Mapping[str, Any] | bytes | None = None,
    attributes: Mapping[str, str] | None = None,
) -> events_pb2.Event:
    event = _event(id, key, source, attributes)
    event.informative.name = name
    event.informative.entity_id = key
    _set_payload(event.informative, data)
    return event


def _event(id: str | None, key: str, source: str, attributes: Mapping[str, str] | None) -> events_pb2.Event:
    identity = str(uuid.uuid4()) if id is None else id
    return Event(id=identity, key=key, source=source, attributes=attributes or {})


def _set_payload(into: Any, data: Mapping[str, Any] | bytes | None) -> None:
    if isinstance(data, bytes):
        into.raw = data
    elif data is not None:
        struct = Struct()
        struct.update(data)
        into.data.CopyFrom(struct)


# -- calls


class IngestClient:
    """One connection. Each method sends and waits; a refusal is raised as grpc.RpcError, see violations()."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None):
        if credentials:
            self.channel = grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
        else:
            self.channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        self.ingest = ingest_service_pb2_grpc.IngestServiceStub(self.channel)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def publish(self, event: events_pb2.Event, ack: int = PERSISTED, timeout: float = 20) -> PublishResponse:
        return self.ingest.Publish(PublishRequest(event=event, ack=ack), timeout=timeout)

    def publish_batch(
        self, events: Iterable[events_pb2.Event], ack: int = PERSISTED, timeout: float = 60
    ) -> list[PublishResult]:
        request = ingest_service_pb2.PublishBatchRequest(events=events, ack=ack)
        return list(self.ingest.PublishBatch(request, timeout=timeout).results)

    def stream(
        self, events: Iterable[events_pb2.Event], ack: int = PERSISTED, timeout: float = 60
    ) -> list[PublishResult]:
        """Sends all in one stream; the results in the order sent."""
        requests = (PublishRequest(event=event, ack=ack) for event in events)
        answers = self.ingest.PublishStream(requests, timeout=timeout)
        return [result for answer in answers for result in answer.results]

    def event_status(self, id: str, source: str = SOURCE, timeout: float = 20) -> Any:
        request = ingest_service_pb2.GetEventStatusRequest(source=source, id=id)
        return self.ingest.GetEventStatus(request, timeout=timeout)

    def state(self, id: str, source: str = SOURCE) -> str:
        """UNKNOWN, PENDING, PUBLISHED or DEAD."""
        number = self.event_status(id, source).state
        return ingest_service_pb2.EventState.Name(number).removeprefix("EVENT_STATE_")

    def status(self, timeout: float = 20) -> Any:
        return self.admin.GetStatus(admin_service_pb2.GetStatusRequest(), timeout=timeout)

    def route(self, name: str) -> Any:
        """The status of one route."""
        return next(route for route in self.status().routes if route.route == name)

    def serving(self, service: str = "", timeout: float = 20) -> bool:
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> IngestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- refusals


def details(refusal: grpc.RpcError | status_pb2.Status) -> list[Any]:
    """The google.rpc messages (BadRequest, RetryInfo, ErrorInfo...) that came with a refusal."""
    if isinstance(refusal, grpc.RpcError):
        metadata = dict(refusal.trailing_metadata() or ())
        refusal = status_pb2.Status.FromString(metadata.get("grpc-status-details-bin", b""))
    found = []
    for packed in refusal.details:
        message = getattr(error_details_pb2, packed.TypeName().removeprefix("google.rpc."))()
        assert packed.Unpack(message)
        found.append(message)
    return found


def violations(refusal: grpc.RpcError | status_pb2.Status) -> dict[str, str]:
    """Field path -> what is wrong with it."""
    return {
        violation.field: violation.description
        for detail in details(refusal)
        if isinstance(detail, error_details_pb2.BadRequest)
        for violation in detail.field_violations
    }
