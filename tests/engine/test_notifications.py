"""Wake-ups: within a server, between servers, and after the connection was lost."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import asyncpg
import pytest

from runwell.engine import notifications
from runwell.engine.embedded import EmbeddedPostgres
from runwell.engine.notifications import Signals
from tests.support.waiting import wait_until

_LISTENERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""
_END_OTHERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def _ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _listening(dsn: str, count: int) -> AsyncGenerator[list[Signals]]:
    """So many servers' signals, all of them connected."""
    servers = [Signals(dsn) for _ in range(count)]
    for signals in servers:
        await signals.start()
    try:
        await _wait_for_listeners(dsn, count)
        yield servers
    finally:
        for signals in servers:
            await signals.stop()


async def _wait_for_listeners(dsn: str, count: int) -> None:
    async def all_listen() -> bool:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            return await _ask(dsn, _LISTENERS) == count
        return False

    await wait_until(all_listen, f"{count} listen")


async def test_a_waiter_is_woken_by_its_own_server_without_a_database() -> None:
    signals = Signals("postgresql://u@127.0.0.1:1/x")
    version = signals.version("a")
    waiting = asyncio.create_task(signals.wait("a", version, 10))
    await asyncio.sleep(0)
    signals.wake("a")
    assert await waiting


async def test_a_wake_up_between_looking_and_waiting_is_not_missed() -> None:
    signals = Signals("postgresql://u@127.0.0.1:1/x")
    version = signals.version("a")
    signals.wake("a")
    assert await signals.wait("a", version, 10)


async def test_without_a_wake_up_the_wait_ends_with_its_time() -> None:
    signals = Signals("postgresql://u@127.0.0.1:1/x")
    signals.wake("other")
    assert not await signals.wait("a", signals.version("a"), 0.01)


async def test_a_waiter_is_woken_by_another_server(database_url: str) -> None:
    async with _listening(database_url, 2) as (one, other):
        version = other.version("a")
        started = time.monotonic()
        one.wake("a")
        assert await other.wait("a", version, 60)
        assert time.monotonic() - started < 30
        assert other.version("b") == 0


async def test_many_topics_at_once_all_arrive(database_url: str) -> None:
    # More than one notification can carry.
    topics = [f"{number}-{'x' * 100}" for number in range(300)]
    async with _listening(database_url, 2) as (one, other):
        for topic in topics:
            one.wake(topic)
        woken = await asyncio.gather(*(other.wait(topic, 0, 10) for topic in topics))
    assert all(woken)


async def test_a_listener_that_lost_its_connection_comes_back_and_lets_all_look(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_RECONNECT_SECONDS", 0.01)
    async with _listening(database_url, 2) as (one, other):
        waiting = asyncio.create_task(other.wait("a", other.version("a"), 10))
        await asyncio.sleep(0)
        await _ask(database_url, _END_OTHERS)
        # What happened meanwhile is unknown, so whoever waits is woken.
        assert await waiting
        await _wait_for_listeners(database_url, 2)
        version = other.version("a")
        one.wake("a")
        assert await other.wait("a", version, 10)


async def test_a_listener_outlives_its_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_RECONNECT_SECONDS", 0.01)
    with EmbeddedPostgres.start(tmp_path) as postgres:
        async with _listening(postgres.dsn, 2) as (one, other):
            os.kill(postgres.pid, signal.SIGKILL)
            await wait_until(lambda: not postgres.is_running, "PostgreSQL is dead")
            await asyncio.to_thread(postgres.restart)
            await _wait_for_listeners(postgres.dsn, 2)
            version = other.version("a")
            one.wake("a")
            assert await other.wait("a", version, 10)
            # A clean end takes the socket away too.
            await asyncio.to_thread(postgres.restart)
            await _wait_for_listeners(postgres.dsn, 2)


async def test_stopping_wakes_whoever_waits(database_url: str) -> None:
    signals = Signals(database_url)
    await signals.start()
    waiting = asyncio.create_task(signals.wait("a", signals.version("a"), 10))
    await asyncio.sleep(0)
    await signals.stop()
    assert await waiting
