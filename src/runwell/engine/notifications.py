"""Wake-ups between those who wait and those who change something, within and across servers.

A wake-up is a hint: a waiter looks at the database when woken, and every second or so anyway. It is
sent after the commit, never inside the transaction: NOTIFY takes a lock on the whole database
at commit. All wake-ups of one interval travel in one NOTIFY.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import defaultdict
from typing import Any

import asyncpg

from runwell.engine.db import UNAVAILABLE_ERRORS

_CHANNEL = "runwell"
# The least time between two notifications of a server, and so the most that one is late.
_INTERVAL_SECONDS = 0.02
_RECONNECT_SECONDS = 1.0
# PostgreSQL takes payloads of less than 8000 bytes.
_MAX_PAYLOAD_CHARACTERS = 7_500

_log = logging.getLogger(__name__)


class _Topic:
    __slots__ = ("event", "version", "waiters")

    def __init__(self) -> None:
        self.version = 0
        self.waiters = 0
        self.event = asyncio.Event()


class Signals:
    """Topics that can be woken and waited for."""

    def __init__(self, dsn: str) -> None:
        """Do nothing yet: `start` connects."""
        self._dsn = dsn
        self._server_id = secrets.token_hex(6)
        self._topics: dict[str, _Topic] = {}
        self._outgoing: dict[str, None] = {}
        self._has_outgoing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen in the background until `stop`."""
        self._task = asyncio.create_task(self._keep_connected(), name="notifications")

    async def stop(self) -> None:
        """End listening, and wake whoever waits."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for name in list(self._topics):
            self.wake_here(name)

    def wake(self, topic: str) -> None:
        """Wake the waiters of a topic: those of this server at once, the others within 20 ms."""
        self.wake_here(topic)
        if self._task is not None:
            self._outgoing[topic] = None
            self._has_outgoing.set()

    def version(self, topic: str) -> int:
        """A number that changes with every wake-up. Read it before looking at the database."""
        found = self._topics.get(topic)
        return 0 if found is None else found.version

    async def wait(self, topic: str, version: int, timeout_seconds: float) -> bool:
        """Wait until woken, at once if that was since `version`; False at the timeout."""
        found = self._topics.setdefault(topic, _Topic())
        if found.version != version:
            return True
        found.waiters += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                await found.event.wait()
        except TimeoutError:
            return False
        finally:
            found.waiters -= 1
            # Topics of workers come and go; one nobody waits for may be forgotten once quiet.
            if found.waiters == 0 and found.version == 0:
                self._topics.pop(topic, None)
        return True

    def wake_here(self, topic: str) -> None:
        """Wake the waiters of this server alone."""
        found = self._topics.get(topic)
        if found is None:
            found = self._topics[topic] = _Topic()
        found.version += 1
        waiting, found.event = found.event, asyncio.Event()
        waiting.set()

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._listen_and_notify()
            except UNAVAILABLE_ERRORS as error:
                _log.warning("notifications_lost", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen_and_notify(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=10)
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        try:
            await connection.add_listener(_CHANNEL, self._hear)
            # What happened while there was no connection is unknown: let all look.
            for name in list(self._topics):
                self.wake_here(name)
            while not ended.is_set():
                await _first_of(self._has_outgoing, ended)
                await self._send(connection)
                await asyncio.sleep(_INTERVAL_SECONDS)
        finally:
            with contextlib.suppress(*UNAVAILABLE_ERRORS):
                await connection.close(timeout=1)

    async def _send(self, connection: "asyncpg.Connection[Any]") -> None:
        topics, self._outgoing = list(self._outgoing), {}
        self._has_outgoing.clear()
        payloads: dict[int, list[str]] = defaultdict(list)
        size = 0
        for topic in topics:
            size += len(topic) + 1
            payloads[size // _MAX_PAYLOAD_CHARACTERS].append(topic)
        texts = [f"{self._server_id} {' '.join(part)}" for part in payloads.values()]
        if texts:
            await connection.execute(
                "SELECT pg_notify($1, t) FROM unnest($2::text[]) t", _CHANNEL, texts
            )

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, *topics = str(payload).split(" ")
        if sender != self._server_id:
            for topic in topics:
                self.wake_here(topic)


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
