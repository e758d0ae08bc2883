"""Open pages stay as the database is.

One query ten times a second asks PostgreSQL which transactions count, while anybody looks at a
page. When those are others, each open page is drawn again, and what differs is sent: whoever
changed something, and on which server, has nothing to do for it. A page that takes long to draw is
drawn seldom, so that looking never becomes a load.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from runwell.core.errors import RequestError
from runwell.dashboard.views import SECURITY_HEADERS
from runwell.engine import changes
from runwell.engine.db import Database, DatabaseUnavailableError

_LOOK_SECONDS = 0.1
#: Something is sent at least as often, so that both ends notice a connection that is gone.
_BEAT_SECONDS = 15.0
#: A page is being drawn a quarter of the time at most.
_REST_FACTOR = 3.0
_LEAST_REST_SECONDS = 0.1

_log = logging.getLogger(__name__)


class Changes:
    """Whether the database has changed, for all open pages of this server."""

    def __init__(self, db: Database) -> None:
        """Ask nothing before somebody waits."""
        self._db = db
        self._position = ""
        self._moved = asyncio.Event()
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Event] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """End all watching."""
        self._is_stopping = True
        self._moved.set()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    @property
    def is_stopping(self) -> bool:
        """Whether the server stops."""
        return self._is_stopping

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Within the block the database is asked."""
        self._watchers += 1
        if self._task is None and not self._is_stopping:
            self._task = asyncio.create_task(self._look(), name="dashboard_changes")
        try:
            yield
        finally:
            self._watchers -= 1
            if self._watchers == 0 and self._task is not None:
                self._task.cancel()
                self._task = None

    async def wait(self, timeout_seconds: float) -> None:
        """Wait for the next change, or for the time to pass."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._moved.wait()

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(DatabaseUnavailableError):
                async with self._db.connection() as tx:
                    position = await changes.read_position(tx)
                if position != self._position:
                    self._position = position
                    moved, self._moved = self._moved, asyncio.Event()
                    moved.set()
            await asyncio.sleep(_LOOK_SECONDS)


class Stream:
    """The answer to an open page: its main part whenever that has changed, as events."""

    def __init__(self, changes_: Changes, draw: Callable[[], Awaitable[str]]) -> None:
        """`draw` gives the part as it is now."""
        self._changes = changes_
        self._draw = draw

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the browser leaves or the server stops."""
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            # Proxies such as nginx would collect events otherwise.
            (b"x-accel-buffering", b"no"),
            *((name.encode(), value.encode()) for name, value in SECURITY_HEADERS),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.create_task(_leave(receive), name="page_gone")
        work = asyncio.create_task(self._send_all(send), name="page_live")
        try:
            await asyncio.wait((gone, work), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, work):
                task.cancel()
            await asyncio.wait((gone, work))
        if work.cancelled():
            return
        # What the page is about may be gone by now, as an old run is: there is no more to send.
        with contextlib.suppress(RequestError):
            work.result()
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> None:
        sent, sent_at = "", time.monotonic()
        async with self._changes.watching():
            while not self._changes.is_stopping:
                # Waited for from here on, so that what changes while we draw is drawn next.
                change = asyncio.create_task(self._changes.wait(_BEAT_SECONDS))
                try:
                    began = time.monotonic()
                    html = await self._try_to_draw()
                    took = time.monotonic() - began
                    if html is not None and html != sent:
                        await _send_event(send, "main", html)
                        sent, sent_at = html, time.monotonic()
                    elif html is None or time.monotonic() - sent_at > _BEAT_SECONDS:
                        await _send_event(send, "beat" if html is not None else "away", "")
                        sent_at = time.monotonic()
                    await asyncio.sleep(max(_LEAST_REST_SECONDS, took * _REST_FACTOR))
                    await change
                finally:
                    change.cancel()

    async def _try_to_draw(self) -> str | None:
        try:
            return await self._draw()
        except DatabaseUnavailableError:
            return None


async def _send_event(send: Send, name: str, html: str) -> None:
    lines = "".join(f"data: {line}\n" for line in html.replace("\r", "").split("\n"))
    body = f"event: {name}\n{lines}\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _leave(receive: Receive) -> None:
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return
