"""Migrations: once, whole, by whoever is first; never backwards."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Generator

import asyncpg
import pytest

from runwell.core.errors import ConfigurationError
from runwell.engine import migrations
from runwell.engine.db import Database, DatabaseUnavailableError
from runwell.engine.migrations import Migration, is_current, list_migrations, migrate
from tests.support.database import create_database, drop_database, temporary_database
from tests.support.waiting import wait_until

_TABLES = """
SELECT array_agg(tablename::text ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'
"""


def make_migration(version: int, text: str) -> Migration:
    return Migration(version=version, name=f"{version:04}_made_up.sql", text=text)


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.fixture
def empty_url() -> Generator[str]:
    """A database with nothing in it."""
    with temporary_database(is_migrated=False) as dsn:
        yield dsn


def test_the_files_are_numbered_without_gap_or_double() -> None:
    versions = [migration.version for migration in list_migrations()]
    assert versions == list(range(1, len(versions) + 1))


async def test_an_empty_database_gets_all_migrations_and_a_current_one_none(
    empty_url: str, database_url: str
) -> None:
    assert await migrate(empty_url) == len(list_migrations())
    assert await migrate(empty_url) == 0
    assert await ask(empty_url, _TABLES) == await ask(database_url, _TABLES)
    async with await Database.open(empty_url, min_size=1) as db:
        assert await is_current(db)


async def test_only_what_is_missing_is_applied(database_url: str) -> None:
    more = make_migration(9001, "CREATE TABLE added (id int)")
    assert await migrate(database_url, [*list_migrations(), more]) == 1
    assert await ask(database_url, "SELECT to_regclass('added')::text") == "added"


async def test_starters_that_come_at_once_apply_each_migration_once(empty_url: str) -> None:
    # Neither could do it twice: the table would be there already.
    wanted = [
        make_migration(1, "CREATE TABLE one (id int); SELECT pg_sleep(0.1)"),
        make_migration(2, "CREATE TABLE two (id int); SELECT pg_sleep(0.1)"),
    ]
    counts = await asyncio.gather(*(migrate(empty_url, wanted) for _ in range(8)))
    assert sorted(counts) == [0] * 7 + [2]
    assert await ask(empty_url, "SELECT count(*) FROM schema_migrations") == 2


async def test_a_database_newer_than_the_code_is_refused_and_left_alone(database_url: str) -> None:
    await migrate(database_url, [*list_migrations(), make_migration(9001, "SELECT 1")])
    before = await ask(database_url, _TABLES)
    with pytest.raises(ConfigurationError, match=r"newer Runwell \(it has 9001_made_up\.sql") as it:
        await migrate(database_url)
    assert "upgrade this server" in str(it.value)
    assert await ask(database_url, _TABLES) == before


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_url: str) -> None:
    good = make_migration(1, "CREATE TABLE one (id int)")
    bad = make_migration(2, "CREATE TABLE two (id int); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_url, [good, bad])
    assert await ask(empty_url, _TABLES) == ["one", "schema_migrations"]
    mended = make_migration(2, "CREATE TABLE two (id int)")
    assert await migrate(empty_url, [good, mended]) == 1
    assert await ask(empty_url, _TABLES) == ["one", "schema_migrations", "two"]


_MIGRATOR = """
import asyncio, sys
from runwell.engine.migrations import Migration, migrate
text = "CREATE TABLE half (id int); SELECT pg_sleep(600)"
asyncio.run(migrate(sys.argv[1], [Migration(version=1, name="0001_made_up.sql", text=text)]))
"""


async def test_a_killed_migrator_leaves_nothing_half_done_and_no_lock(empty_url: str) -> None:
    working = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND datname"

    async def is_midway() -> bool:
        return (
            await ask(empty_url, f"{working} = current_database() AND pid <> pg_backend_pid()") == 1
        )

    with subprocess.Popen([sys.executable, "-c", _MIGRATOR, empty_url]) as migrator:  # noqa: ASYNC220 - it returns at once
        await wait_until(is_midway, "the migrator is in the middle of a migration")
        migrator.send_signal(signal.SIGKILL)
        await asyncio.to_thread(migrator.wait)
    # PostgreSQL notices that its client is gone when it next writes to it: not in a sleep.
    await ask(
        empty_url,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    done = make_migration(1, "CREATE TABLE whole (id int)")
    async with asyncio.timeout(40):
        assert await migrate(empty_url, [done]) == 1
    assert await ask(empty_url, _TABLES) == ["schema_migrations", "whole"]


async def test_an_old_postgresql_is_refused_with_what_to_do(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_MINIMUM_POSTGRESQL", 99)
    with pytest.raises(ConfigurationError, match="needs 99 or newer: upgrade it"):
        await migrate(database_url)


async def test_a_database_that_is_not_there_is_a_matter_of_configuration(database_url: str) -> None:
    other = database_url.replace("/test_", "/no_such_")
    with pytest.raises(ConfigurationError, match="DATABASE_URL does not lead into a database"):
        await migrate(other)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    for url in ("postgresql://u@127.0.0.1:1/x", "postgresql://u@/x?host=/no/such/directory"):
        with pytest.raises(DatabaseUnavailableError):
            await migrate(url)


async def test_clones_do_not_see_each_other() -> None:
    first, second = await create_database(), await create_database()
    try:
        await ask(first, "CREATE TABLE mine (id int)")
        assert await ask(second, "SELECT to_regclass('mine')") is None
    finally:
        await drop_database(first)
        await drop_database(second)
