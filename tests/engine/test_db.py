"""The pool and its transactions, and what becomes of them when PostgreSQL goes away."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from runwell.engine.db import Database, DatabaseUnavailableError, Transaction
from runwell.engine.embedded import EmbeddedPostgres
from runwell.engine.queries import parse_queries
from tests.support.waiting import wait_until

_QUERIES = parse_queries("""
-- name: make_table
CREATE TABLE IF NOT EXISTS kept (number integer PRIMARY KEY, text text);
-- name: add_row
INSERT INTO kept VALUES (:number, :text);
-- name: count_rows
SELECT count(*) FROM kept;
-- name: list_rows
SELECT * FROM kept WHERE number >= :least ORDER BY number;
-- name: backend
SELECT pg_backend_pid();
-- name: sleep
SELECT pg_sleep(60);
-- name: setting
SELECT current_setting(:name);
-- name: lock_row
SELECT 1 FROM kept WHERE number = :number FOR UPDATE;
-- name: end
SELECT pg_terminate_backend(:pid);
-- name: end_others
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
""")


async def _add(db: Database, number: int) -> None:
    async with db.transaction() as tx:
        await tx.execute(_QUERIES.make_table)
        await tx.execute(_QUERIES.add_row, number=number, text=str(number))


async def _count(db: Database) -> object:
    async with db.connection() as tx:
        return await tx.fetch_value(_QUERIES.count_rows)


async def _answers(db: Database) -> bool:
    try:
        return await _count(db) is not None
    except DatabaseUnavailableError:
        return False


async def test_a_transaction_commits_at_its_end(db: Database) -> None:
    await _add(db, 1)
    async with db.connection() as tx:
        assert await tx.fetch_value(_QUERIES.count_rows) == 1
        row = await tx.fetch_one(_QUERIES.list_rows, least=0)
        assert row is not None
        assert dict(row) == {"number": 1, "text": "1"}
        assert await tx.fetch_one(_QUERIES.list_rows, least=2) is None
        assert [row["number"] for row in await tx.fetch(_QUERIES.list_rows, least=1)] == [1]


async def test_a_transaction_that_raises_leaves_nothing(db: Database) -> None:
    await _add(db, 1)

    async def fail(tx: Transaction) -> None:
        await tx.execute(_QUERIES.add_row, number=2, text="two")
        raise KeyError

    with pytest.raises(KeyError):
        await db.run(fail)
    assert await _count(db) == 1


async def test_a_canceled_transaction_leaves_nothing(db: Database) -> None:
    await _add(db, 1)
    is_inside = asyncio.Event()

    async def hang() -> None:
        async with db.transaction() as tx:
            await tx.execute(_QUERIES.add_row, number=2, text="two")
            is_inside.set()
            await tx.execute(_QUERIES.sleep)

    task = asyncio.create_task(hang())
    await is_inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _count(db) == 1


async def test_every_statement_of_a_connection_commits_by_itself(db: Database) -> None:
    await _add(db, 1)
    async with db.connection() as tx:
        await tx.execute(_QUERIES.add_row, number=2, text="two")
        assert await _count(db) == 2


async def test_wrong_parameters_are_named(db: Database) -> None:
    async with db.connection() as tx:
        with pytest.raises(TypeError, match=r"add_row: missing \['text'\], unknown \[\]"):
            await tx.execute(_QUERIES.add_row, number=2)
        with pytest.raises((TypeError, KeyError), match="text"):
            await tx.execute(_QUERIES.add_row, number=2, txet="two")


async def test_transactions_that_collide_are_done_again(db: Database) -> None:
    await _add(db, 1)
    await _add(db, 2)
    # Each waits for the row of the other: PostgreSQL ends one of them.
    both_have_one, one_is_through = asyncio.Barrier(2), asyncio.Event()
    tries: list[int] = []

    async def lock_both(tx: Transaction, first: int, second: int) -> str:
        tries.append(first)
        if len(tries) > 2:
            await one_is_through.wait()
        await tx.execute(_QUERIES.lock_row, number=first)
        if len(tries) <= 2:
            await both_have_one.wait()
        await tx.execute(_QUERIES.lock_row, number=second)
        one_is_through.set()
        return "done"

    results = await asyncio.gather(
        db.run(lambda tx: lock_both(tx, 1, 2)), db.run(lambda tx: lock_both(tx, 2, 1))
    )
    assert results == ["done", "done"]
    assert len(tries) == 3


async def test_other_errors_are_not_tried_again(db: Database) -> None:
    await _add(db, 1)
    tries: list[int] = []

    async def add_again(tx: Transaction) -> None:
        tries.append(1)
        await tx.execute(_QUERIES.add_row, number=1, text="one")

    with pytest.raises(asyncpg.UniqueViolationError):
        await db.run(add_again)
    assert tries == [1]


async def test_sessions_are_in_utc_and_have_limits(db: Database) -> None:
    async with db.connection() as tx:
        for name, value in {
            "TimeZone": "UTC",
            "statement_timeout": "30s",
            "idle_in_transaction_session_timeout": "30s",
            "application_name": "runwell",
        }.items():
            assert await tx.fetch_value(_QUERIES.setting, name=name) == value


async def test_a_connection_that_is_lost_in_use_is_replaced(db: Database) -> None:
    await _add(db, 1)

    async def lose(tx: Transaction) -> None:
        async with db.connection() as other:
            await other.execute(_QUERIES.end, pid=await tx.fetch_value(_QUERIES.backend))
        await tx.execute(_QUERIES.backend)

    # Once before its end was read, and once after.
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            await db.run(lose)
    assert await _count(db) == 1


async def test_connections_that_were_lost_while_idle_are_replaced(database_url: str) -> None:
    async with await Database.open(database_url, min_size=5) as db:
        await _add(db, 1)
        async with db.connection() as tx:
            await tx.execute(_QUERIES.end_others)
        await wait_until(lambda: _answers(db), "the pool has replaced them")
        assert [await _count(db) for _ in range(10)] == [1] * 10


async def test_closing_does_not_wait_for_ever_for_a_connection_in_use(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runwell.engine.db._CLOSE_SECONDS", 0.1)
    db = await Database.open(database_url, min_size=1)
    is_inside = asyncio.Event()

    async def hang() -> None:
        async with db.connection():
            is_inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await is_inside.wait()
    async with asyncio.timeout(30):
        await db.close()
    task.cancel()
    await asyncio.wait((task,))


def test_no_way_in_is_one_kind_of_error(tmp_path: Path) -> None:
    urls = (
        "postgresql://u@127.0.0.1:1/x",
        "postgresql://u@/x?host=/no/such/directory",
        "postgresql://u@no-such-host.invalid/x",
    )
    for url in urls:
        with pytest.raises(DatabaseUnavailableError, match="can't be reached"):
            asyncio.run(Database.open(url))


async def test_a_pool_outlives_its_postgresql(tmp_path: Path) -> None:
    with EmbeddedPostgres.start(tmp_path) as postgres:
        async with await Database.open(postgres.dsn, min_size=2) as db:
            await _add(db, 1)
            os.kill(postgres.pid, signal.SIGKILL)
            await wait_until(lambda: not postgres.is_running, "PostgreSQL is dead")
            with pytest.raises(DatabaseUnavailableError):
                await _count(db)
            await asyncio.to_thread(postgres.restart)
            await wait_until(lambda: _answers(db), "the pool has connected anew")
            assert await _count(db) == 1
            await asyncio.to_thread(postgres.stop)
            # Now even its socket is gone.
            with pytest.raises(DatabaseUnavailableError):
                await _count(db)
