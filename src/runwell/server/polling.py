"""Requests that wait for something to happen: looked up again when woken, and every second.

A wake-up is a hint (`engine.notifications`), so the database is what decides. A request stops
waiting when its client goes away and when the server stops.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from starlette.requests import Request

from runwell.engine.notifications import Signals

T = TypeVar("T")

_LOOK_AGAIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Polls:
    """The requests that wait now, so that a stop can end them at once."""

    def __init__(self, signals: Signals) -> None:
        """Nobody waits yet."""
        self._signals = signals
        self._ends: set[asyncio.Future[bool]] = set()
        #: Whether the server stops.
        self.is_stopping = False

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._ends)

    def stop(self) -> None:
        """Let every request answer now with what it has, and those to come not wait at all."""
        self.is_stopping = True
        for end in self._ends:
            end_wait(end)

    async def find(
        self, request: Request, topic: str, look: Callable[[], Awaitable[T | None]], wait_ms: int
    ) -> T | None:
        """What `look` finds, at once or within `wait_ms`; None when it found nothing.

        The request's body must have been read. Raises what `look` raises.
        """
        # Read before looking, so that what happens meanwhile is not missed.
        version = self._signals.version(topic)
        found = await look()
        if found is not None or wait_ms == 0 or self.is_stopping:
            return found
        deadline = time.monotonic() + wait_ms / 1000
        _log.debug("poll_waits", extra={"fields": {"topic": topic}})
        async with self.hold(request) as end:
            while (left := deadline - time.monotonic()) > 0:
                pause = self._signals.wait(topic, version, min(left, _LOOK_AGAIN_SECONDS))
                await _until_either(pause, end)
                if end.done():
                    return None
                version = self._signals.version(topic)
                found = await look()
                if found is not None:
                    return found
        return None

    @contextlib.asynccontextmanager
    async def hold(self, request: Request) -> AsyncGenerator[asyncio.Future[bool]]:
        """A future that is done, with False, once there is no point in waiting on.

        The request's body must have been read. Whoever waits may complete it with True.
        """
        with self.until_stop() as end:
            watcher = asyncio.create_task(_watch(request, end), name="disconnect")
            try:
                yield end
            finally:
                await _cancel(watcher)

    @contextlib.contextmanager
    def until_stop(self) -> Generator[asyncio.Future[bool]]:
        """A future that is done, with False, once the server stops."""
        end = asyncio.get_running_loop().create_future()
        self._ends.add(end)
        if self.is_stopping:
            end_wait(end)
        try:
            yield end
        finally:
            self._ends.discard(end)


async def _watch(request: Request, end: asyncio.Future[bool]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    end_wait(end)


async def _until_either(pause: Coroutine[Any, Any, object], end: asyncio.Future[bool]) -> None:
    task = asyncio.create_task(pause, name="poll")
    try:
        await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(task)


async def _cancel(task: "asyncio.Task[Any]") -> None:
    if not task.done():
        task.cancel()
        # Waits for it without taking a cancellation of our own for its.
        await asyncio.wait((task,))


def end_wait(end: asyncio.Future[bool]) -> None:
    """There is no point in waiting on."""
    if not end.done():
        end.set_result(False)
