"""The answer to who reads a stream: its chunks as server-sent events, as they come."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from runwell.engine import run_streams
from runwell.engine.db import DatabaseBusyError, DatabaseUnavailableError
from runwell.engine.run_streams import Chunk, ReadChunks
from runwell.server.backend import Backend

# Something is sent at least as often, so that no proxy takes the connection for dead.
_BEAT_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 1.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-stream-version", b"v1"),
    # Proxies such as nginx would collect events otherwise.
    (b"x-accel-buffering", b"no"),
]
#: The last that is said of a stream that is over. A comment: other clients don't see it.
END: Final = b": end\n\n"


@dataclass(kw_only=True)
class StreamAnswer:
    """Sends a stream from after a chunk on, until it is over. An ASGI application.

    It ends without END when the server stops, when the reader has gone, and when nothing has come
    for `idle_seconds`: who wants the rest asks again, with the id of the last event.
    """

    request: Request
    backend: Backend
    run_id: str
    key: str
    after: int
    idle_seconds: float | None
    #: End as soon as something has been sent.
    is_once: bool = False

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        # The headers leave with the first part of the body.
        await _send_part(send, b": stream\n\n")
        async with self.backend.polls.hold(self.request) as end:
            if await self._send_all(send, end):
                await _send_part(send, END)
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send, end: asyncio.Future[bool]) -> bool:
        """Send chunks until the stream is over, or there is no point in going on (False)."""
        signals, topic = self.backend.signals, run_streams.topic_of(self.run_id, self.key)
        sent_at = chunk_at = time.monotonic()
        while not end.done():
            version = signals.version(topic)
            found = await self._read()
            now = time.monotonic()
            if found.chunks:
                await _send_part(send, b"".join(_event(chunk) for chunk in found.chunks))
                self.after, sent_at, chunk_at = found.chunks[-1].number, now, now
            if found.is_over:
                return True
            if found.chunks:
                if self.is_once:
                    return False
                continue
            if self.idle_seconds is not None and now - chunk_at >= self.idle_seconds:
                return False
            if now - sent_at >= _BEAT_SECONDS:
                await _send_part(send, b": ping\n\n")
                sent_at = now
            pause = asyncio.create_task(signals.wait(topic, version, _LOOK_AGAIN_SECONDS))
            try:
                await asyncio.wait((pause, end), return_when=asyncio.FIRST_COMPLETED)
            finally:
                pause.cancel()
        return False

    async def _read(self) -> ReadChunks:
        with contextlib.suppress(DatabaseUnavailableError, DatabaseBusyError):
            return await run_streams.read_chunks(
                self.backend.db, self.run_id, self.key, after=self.after
            )
        # It will be back; the reader need not notice.
        return ReadChunks(chunks=[], is_over=False)


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


def _event(chunk: Chunk) -> bytes:
    at = round(chunk.created_at.timestamp() * 1000)
    data = chunk.body.replace("\r", "\ndata: ")
    return f"id: {at}-{chunk.number}\ndata: {data}\n\n".encode()
