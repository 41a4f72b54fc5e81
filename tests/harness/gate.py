"""A TCP front that stays while the server behind it changes, as a service's address does when its volume moves on; and
the event loop in a thread that it and KafkaProxy run in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from .process import free_port

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, usable as a context. _open() and _close() run in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None: ...

    async def _close(self) -> None: ...

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """From another thread: does it in the loop, and waits."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _end(self) -> None:
        await self._close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Gate(LoopThread):
    """Connections to `target` go to where switch() points, byte for byte."""

    def __init__(self, to: str):
        super().__init__()
        self.target = f"127.0.0.1:{free_port()}"
        self._to = to
        self._writers: set[asyncio.StreamWriter] = set()

    def switch(self, to: str) -> None:
        """New connections go there; those that there are, are reset."""
        self._run(self._switch(to))

    async def _switch(self, to: str) -> None:
        self._to = to
        for writer in self._writers:
            writer.transport.abort()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self.target.split(":"))

    async def _close(self) -> None:
        self._server.close()
        await self._switch("")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind = await asyncio.open_connection(*self._to.split(":"))
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, behind[1]}
        self._writers |= ends
        try:
            await asyncio.gather(_pump(reader, behind[1]), _pump(behind[0], writer))
        finally:
            self._writers -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
