"""A gRPC server that answers as a test wants: what the real one does only in rare moments, or never."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2

from harness.client import PublishResponse, PublishResult, error_details_pb2, health_pb2, ingest_service_pb2, status_pb2

STORE = "00000000-0000-4000-8000-00000000000%d"
Answer = Callable[[Any], "PublishResult | bytes | Exception | None"]


def ok(event: Any, sequence: int = 1, store: int = 0) -> PublishResult:
    return PublishResult(
        response=PublishResponse(id=event.id, sequence=sequence, store=STORE % store, route="transactions")
    )


def refusal(code: grpc.StatusCode, message: str, retry_ms: int = 0, reason: str = "") -> PublishResult:
    status = status_pb2.Status(code=code.value[0], message=message)
    if retry_ms:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(retry_ms)
        _detail(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if reason:
        _detail(status, error_details_pb2.ErrorInfo(reason=reason, domain="ingest.v1"))
    return PublishResult(error=status)


def _detail(status: Any, message: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(message)
    status.details.append(packed)


class End(Exception):
    """Raised or returned by an answer: ends the stream with this status."""

    def __init__(self, code: grpc.StatusCode, message: str = "ended by the script"):
        self.code, self.message = code, message


class ScriptedServer:
    """`answer(event)` gives the result of an event, raw bytes to send in its place, None for no answer at all, or
    raises End. `health` may be changed while it runs. `events` are those that came, `at` when."""

    def __init__(
        self,
        answer: Answer = ok,
        address: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
        with_service: bool = True,
        with_health: bool = True,
    ):
        self.answer, self.events, self.at = answer, [], []
        self.metadata: list[dict[str, str]] = []
        self.streams = 0
        self.health = "SERVING"
        self._changed = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=32), options=[("grpc.so_reuseport", 0)])
        if with_service:
            self._serve("ingest.v1.IngestService", "PublishStream", self._publish)
        if with_health:
            self._serve("grpc.health.v1.Health", "Watch", self._watch)
        if credentials:
            port = self._server.add_secure_port(address, credentials)
        else:
            port = self._server.add_insecure_port(address)
        self.target = f"{address.rpartition(':')[0]}:{port}"
        self._server.start()

    def set_health(self, health: str) -> None:
        with self._changed:
            self.health = health
            self._changed.notify_all()

    def close(self) -> None:
        self._server.stop(0).wait()

    def _serve(self, service: str, method: str, handler: Any) -> None:
        made = grpc.stream_stream_rpc_method_handler(handler)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: made}),))

    def _publish(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.streams += 1
        self.metadata.append(dict(context.invocation_metadata()))
        try:
            for wire in requests:
                event = ingest_service_pb2.PublishRequest.FromString(wire).event
                self.events.append(event)
                self.at.append(time.monotonic())
                result = self.answer(event)
                if isinstance(result, bytes):
                    yield result
                elif result is not None:
                    yield ingest_service_pb2.PublishStreamResponse(results=[result]).SerializeToString()
        except End as end:
            context.abort(end.code, end.message)

    def _watch(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        assert health_pb2.HealthCheckRequest.FromString(next(requests)).service == "ingest.v1.IngestService"
        told = None
        while context.is_active():
            with self._changed:
                self._changed.wait_for(lambda: self.health != told, 0.2)
                now = self.health
            if now != told:
                told = now
                status = health_pb2.HealthCheckResponse.ServingStatus.Value(now)
                yield health_pb2.HealthCheckResponse(status=status).SerializeToString()
