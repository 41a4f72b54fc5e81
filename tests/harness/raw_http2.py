"""HTTP/2 by hand, for requests that no gRPC client would send."""

from __future__ import annotations

import socket

import h2.config
import h2.connection
import h2.events


class RawConnection:
    """One connection; frames are ours to choose."""

    def __init__(self, target: str):
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(
        self,
        path: str,
        body: bytes | None,
        content_type: str = "application/grpc",
        end: bool = True,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> int:
        """Begins a request; body None sends headers only. Returns the stream's number."""
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
        self.h2.send_headers(stream, [*pseudo, ("content-type", content_type), ("te", "trailers"), *headers],
                             end_stream=body is None and end)
        if body is not None:
            while len(body) > 16384:
                self.h2.send_data(stream, body[:16384])
                body = body[16384:]
            self.h2.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def answer(self, stream: int, timeout: float = 10) -> dict[str, str]:
        """Headers and trailers of the answer; {"reset": code} or {"closed": ""} when the server cut it off."""
        self.socket.settimeout(timeout)
        found: dict[str, str] = {}
        while True:
            data = self.socket.recv(65536)
            if not data:
                return {**found, "closed": ""}
            for event in self.h2.receive_data(data):
                if getattr(event, "stream_id", None) not in (stream, None):
                    continue
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    found.update((_text(name), _text(value)) for name, value in event.headers)
                elif isinstance(event, h2.events.StreamReset):
                    return {**found, "reset": str(int(event.error_code))}
                elif isinstance(event, h2.events.StreamEnded):
                    return found
                elif isinstance(event, h2.events.ConnectionTerminated):
                    return {**found, "closed": ""}
            self.flush()

    def close(self) -> None:
        self.socket.close()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def frame(message: bytes, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message frame; `length` may lie."""
    return bytes([compressed]) + (len(message) if length is None else length).to_bytes(4, "big") + message
