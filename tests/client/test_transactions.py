"""Triggers in the application's own transaction, over every driver, on a real PostgreSQL."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine

from runwell.client.api import ApiClient
from runwell.client.batching import BatchItem
from runwell.client.management import BlockingTasks, trigger_flow
from runwell.client.options import Debounce
from runwell.client.raw_responses import TasksWithRaw
from runwell.client.runs import RunHandle
from runwell.client.transport import (
    AuthenticationError,
    ClientSettings,
    Flow,
    UnprocessableEntityError,
)
from runwell.core.errors import ConfigurationError, RunwellError
from runwell.core.payloads import Json
from runwell.engine import environments
from runwell.engine.db import Database
from tests.support.applications import (
    ASYNC_WAYS,
    ORDERS,
    WAYS,
    Application,
    AsyncApplication,
    django_connection,
)
from tests.support.database import create_database, drop_database
from tests.support.factories import read
from tests.support.places import Place, make_place


@pytest.fixture
def place(db: Database, database_url: str, runner: asyncio.Runner) -> Place:
    return runner.run(make_place(db, database_url))


@pytest.fixture
def connection(place: Place) -> Generator[psycopg.Connection]:
    """A connection that blocks, in whose transaction nothing has been done yet."""
    with psycopg.connect(place.dsn) as made:
        yield made


@pytest.mark.parametrize("way", ASYNC_WAYS.values(), ids=list(ASYNC_WAYS))
async def test_a_run_is_there_if_and_only_if_the_async_transaction_commits(
    way: Callable[[str], AbstractAsyncContextManager[AsyncApplication]], place: Place
) -> None:
    await read(place.scene.db, ORDERS)
    async with way(place.dsn) as app:
        async with place.tasks.in_transaction(app.connection):
            await app.execute("INSERT INTO orders VALUES ('lost')")
            await place.tasks.trigger("add", 1)
        await app.rollback()
    assert await place.drain() == []
    async with way(place.dsn) as app:
        async with place.tasks.in_transaction(app.connection):
            await app.execute("INSERT INTO orders VALUES ('kept')")
            handle = await place.tasks.trigger("add", {"n": "é$1%s:x"}, tags=["a"])
        assert await place.drain() == []
        await app.commit()
    (run,) = await place.drain()
    assert tuple(run)[:5] == (handle.id, "add", '{"n":"é$1%s:x"}', ["a"], "QUEUED")
    assert [row["name"] for row in await read(place.scene.db, "SELECT name FROM orders")] == [
        "kept"
    ]


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
async def test_a_run_is_there_if_and_only_if_the_blocking_transaction_commits(
    way: Callable[[str], AbstractContextManager[Application]], place: Place
) -> None:
    await read(place.scene.db, ORDERS)

    def act() -> str:
        with way(place.dsn) as app:
            with place.blocking.in_transaction(app.connection):
                app.execute("INSERT INTO orders VALUES ('lost')")
                place.blocking.trigger("add", 1)
            app.rollback()
        with way(place.dsn) as app:
            with place.blocking.in_transaction(app.connection):
                app.execute("INSERT INTO orders VALUES ('kept')")
                handle = place.blocking.trigger("add", {"n": "é$1%s:x"}, tags=["a"])
            app.commit()
            return handle.id

    run_id = await asyncio.to_thread(act)
    (run,) = await place.drain()
    assert tuple(run)[:5] == (run_id, "add", '{"n":"é$1%s:x"}', ["a"], "QUEUED")
    assert [row["name"] for row in await read(place.scene.db, "SELECT name FROM orders")] == [
        "kept"
    ]


async def test_what_is_rolled_back_to_a_savepoint_is_not_triggered(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection), connection.transaction():
        kept = place.blocking.trigger("add", 1)
        with connection.transaction() as savepoint:
            place.blocking.trigger("add", 2)
            raise psycopg.Rollback(savepoint)
    connection.commit()
    assert [run["id"] for run in await place.drain()] == [kept.id]


async def test_a_refused_trigger_leaves_the_transaction_as_it_is(
    place: Place, connection: psycopg.Connection
) -> None:
    version = place.scene.versions[0].version
    with place.blocking.in_transaction(connection):
        with pytest.raises(UnprocessableEntityError, match=r"there is no version 20200101\.1"):
            place.blocking.trigger("add", 1, version="20200101.1")
        with pytest.raises(
            UnprocessableEntityError, match=r"items\[1\]\.options.*has no task gone"
        ):
            place.blocking.batch_trigger("gone", [1, BatchItem(2, {"version": version})])
        with pytest.raises(TypeError, match="did you mean 'delay'"):
            place.blocking.trigger("add", 1, dely="1h")  # pyright: ignore[reportCallIssue] (the test)
        with pytest.raises(ValueError, match="debounce: within"):
            place.blocking.trigger("add", 1, debounce=Debounce(key="k", delay="1s"))
        with pytest.raises(ValueError, match="5,242,880 are accepted"):
            place.blocking.batch_trigger("add", ["x" * 3_000_000] * 2)
        kept = place.blocking.trigger("add", 1)
    connection.commit()
    assert [run["id"] for run in await place.drain()] == [kept.id]


async def test_an_unknown_key_is_refused_and_one_of_another_environment_goes_there(
    place: Place, connection: psycopg.Connection
) -> None:
    wrong = ApiClient(lambda: ClientSettings(secret_key="tr_dev_wrong"))
    async with place.scene.db.connection() as tx:
        keys = await environments.list_local_keys(tx, now=place.scene.now)
    dev = ApiClient(lambda: ClientSettings(secret_key=keys["dev"]))
    with place.blocking.in_transaction(connection):
        with pytest.raises(AuthenticationError, match="no environment of this database"):
            BlockingTasks(wrong).trigger("add", 1)
        BlockingTasks(dev).trigger("add", 1)
        place.blocking.trigger("add", 2)
    connection.commit()
    await place.drain()
    rows = await read(
        place.scene.db,
        "SELECT e.slug, r.payload FROM runs r JOIN environments e ON e.id = r.environment_id"
        " ORDER BY r.payload",
    )
    assert [tuple(row) for row in rows] == [("dev", "1"), ("prod", "2")]


async def test_a_run_of_a_task_can_not_be_waited_for_in_the_block(
    place: Place, connection: psycopg.Connection
) -> None:
    settings = ClientSettings(secret_key=place.api.settings.secret_key, parent_run_id="run_1")
    client = ApiClient(lambda: settings)
    flow: Flow[RunHandle[Json]] = trigger_flow(client, "add", "1", {}, is_awaited=True)
    with (
        place.blocking.in_transaction(connection),
        pytest.raises(RunwellError, match="'add' can't be waited for"),
    ):
        client.run_blocking(flow)


async def test_the_handle_has_a_token_and_a_raw_response(place: Place) -> None:
    connection = await asyncpg.connect(place.dsn)
    tasks = TasksWithRaw(place.api)
    async with connection.transaction(), tasks.in_transaction(connection):
        raw = await tasks.with_raw_response.trigger("add", 1)
    assert raw.status == 200
    assert raw.data.public_access_token
    await connection.close()


async def test_triggers_at_once_take_turns_and_those_after_the_block_are_refused(
    place: Place,
) -> None:
    connection = await asyncpg.connect(place.dsn)
    ended = asyncio.Event()

    async def late() -> None:
        await ended.wait()
        await place.tasks.trigger("add", 9)

    async with connection.transaction(), place.tasks.in_transaction(connection):
        handles = await asyncio.gather(*(place.tasks.trigger("add", n) for n in range(5)))
        too_late = asyncio.create_task(late())
    ended.set()
    with pytest.raises(RunwellError, match="has ended"):
        await too_late
    await connection.close()
    assert {run["id"] for run in await place.drain()} == {handle.id for handle in handles}


async def test_blocking_and_async_are_not_mixed_up(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection), pytest.raises(RunwellError, match=r"\.sync"):
        await place.tasks.trigger("add", 1)
    with pytest.raises(TypeError, match=r"psycopg\.Connection blocks: use `with runwell\.sync"):
        async with place.tasks.in_transaction(connection):
            pass
    other = await asyncpg.connect(place.dsn)
    with (
        pytest.raises(TypeError, match=r"is async: use `async with"),
        place.blocking.in_transaction(other),
    ):
        pass
    async with other.transaction(), place.tasks.in_transaction(other):
        with pytest.raises(RunwellError, match="await them"):
            place.blocking.trigger("add", 1)
    await other.close()
    with pytest.raises(TypeError, match=r"builtins\.str is no connection"):
        async with place.tasks.in_transaction("postgresql://"):
            pass
    with pytest.raises(TypeError, match="no connection"), place.blocking.in_transaction(3):
        pass


async def test_a_connection_without_a_transaction_is_refused(place: Place) -> None:
    with (
        psycopg.connect(place.dsn, autocommit=True) as connection,
        pytest.raises(ValueError, match=r"use `with connection\.transaction"),
        place.blocking.in_transaction(connection),
    ):
        pass
    with (
        psycopg.connect(place.dsn, autocommit=True) as connection,
        connection.transaction(),
        place.blocking.in_transaction(connection),
    ):
        handle = place.blocking.trigger("add", 1)
    other = await asyncpg.connect(place.dsn)
    with pytest.raises(ValueError, match="async with connection"):
        async with place.tasks.in_transaction(other):
            pass
    await other.close()

    def over_django() -> None:
        django = django_connection(place.dsn)
        with (
            pytest.raises(ValueError, match=r"transaction\.atomic"),
            place.blocking.in_transaction(django),
        ):
            pass
        django.close()

    await asyncio.to_thread(over_django)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(place.dsn),
        execution_options={"isolation_level": "AUTOCOMMIT"},
    )
    with (
        engine.connect() as made,
        pytest.raises(ValueError, match="AUTOCOMMIT"),
        place.blocking.in_transaction(made),
    ):
        pass
    engine.dispose()
    assert [run["id"] for run in await place.drain()] == [handle.id]


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
async def test_a_database_without_runwell_is_named(
    way: Callable[[str], AbstractContextManager[Application]], place: Place
) -> None:
    dsn = await create_database(is_migrated=False)
    try:

        def act() -> None:
            with way(dsn) as app, place.blocking.in_transaction(app.connection):
                try:
                    with pytest.raises(ConfigurationError, match="not to a database that Runwell"):
                        place.blocking.trigger("add", 1)
                finally:
                    app.rollback()

        await asyncio.to_thread(act)
    finally:
        await drop_database(dsn)
