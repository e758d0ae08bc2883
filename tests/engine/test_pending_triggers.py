"""What committed transactions have triggered becomes runs, each once."""

import asyncio
from collections.abc import Generator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from runwell.client.api import ApiClient
from runwell.client.batching import BatchItem
from runwell.client.runs import Runs
from runwell.client.transport import ClientSettings, NotFoundError
from runwell.engine import pending_triggers
from runwell.engine.db import Database
from tests.server.serving import serving
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


async def test_runs_of_one_transaction_are_queued_in_the_order_of_their_triggers(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        ids = [place.blocking.trigger("add", number).id for number in range(5)]
    connection.commit()
    await place.drain()
    worker = await place.scene.connect()
    place.scene.now = datetime.now(UTC)
    assert [run.run_id for run in await worker.dequeue()] == ids


async def test_a_batch_is_there_if_and_only_if_the_transaction_commits(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        place.blocking.batch_trigger("add", [1, 2])
        connection.rollback()
        batch = place.blocking.batch_trigger("add", [BatchItem(3, {"tags": "x"}), 4])
    connection.commit()
    status = "SELECT id, run_count, sealed_at IS NOT NULL AS is_sealed FROM batches"
    assert [tuple(row) for row in await read(place.scene.db, status)] == [
        (batch.batch_id, 2, False)
    ]
    made = await place.drain()
    assert [(run["id"], run["payload"], run["batch_id"]) for run in made] == [
        (batch.runs[0].id, "3", batch.batch_id),
        (batch.runs[1].id, "4", batch.batch_id),
    ]
    assert [tuple(row) for row in await read(place.scene.db, status)] == [(batch.batch_id, 2, True)]
    items = await read(place.scene.db, "SELECT run_id FROM batch_items ORDER BY index")
    assert [row["run_id"] for row in items] == [run.id for run in batch.runs]


async def test_a_batch_with_the_key_of_an_earlier_one_is_that_one_before_and_after_it_has_its_runs(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        first = place.blocking.batch_trigger("add", [1, 2], idempotency_key="k")
        connection.commit()
        second = place.blocking.batch_trigger("add", [3], idempotency_key="k")
        connection.commit()
        await place.drain()
        third = place.blocking.batch_trigger("add", [3], idempotency_key="k")
        connection.commit()
    assert not first.is_cached
    assert second.is_cached
    assert third.is_cached
    assert (second.batch_id, third.batch_id) == (first.batch_id, first.batch_id)
    assert [run.id for run in second.runs] == [run.id for run in third.runs]
    assert [run.id for run in first.runs] == [run.id for run in third.runs]
    assert len(await place.drain()) == 2


async def test_an_idempotency_key_has_one_run_whoever_comes_second(
    place: Place, connection: psycopg.Connection
) -> None:
    by_http = await place.scene.trigger("add", idempotencyKey="k" * 64)
    with place.blocking.in_transaction(connection):
        same = place.blocking.trigger("add", 2, idempotency_key="k" * 64)
        new = place.blocking.trigger("add", 3, idempotency_key="n" * 64)
        again = place.blocking.trigger("add", 4, idempotency_key="n" * 64)
    connection.commit()
    assert (same.id, same.is_cached) == (by_http.run_id, True)
    assert (new.is_cached, again.id, again.is_cached) == (False, new.id, True)
    # Before the server has made it a run, its key is taken already.
    later = await place.scene.trigger("add", idempotencyKey="n" * 64)
    assert (later.run_id, later.is_cached) == (new.id, True)
    made = {run["id"]: run["payload"] for run in await place.drain()}
    assert made == {by_http.run_id: "1", new.id: "3"}


async def test_a_key_that_is_rolled_back_is_free_again(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        place.blocking.trigger("add", 1, idempotency_key="k" * 64)
    connection.rollback()
    made = await place.scene.trigger("add", idempotencyKey="k" * 64)
    assert not made.is_cached
    assert [run["id"] for run in await place.drain()] == [made.run_id]


async def test_a_committed_trigger_has_its_run_though_its_key_was_reset_and_used_again(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        first = place.blocking.trigger("add", 1, idempotency_key="k" * 64)
    connection.commit()
    await read(place.scene.db, "DELETE FROM idempotency_keys")
    second = await place.scene.trigger("add", idempotencyKey="k" * 64)
    assert {run["id"] for run in await place.drain()} == {first.id, second.run_id}


async def test_all_options_arrive_and_a_delay_counts_from_the_trigger(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        place.blocking.trigger(
            "add",
            1,
            delay="1h",
            queue="special",
            concurrency_key="c",
            ttl="10m",
            max_attempts=3,
            max_duration=60,
            machine="small-2x",
            metadata={"a": 1.5},
            priority=5,
        )
    before = datetime.now(UTC)
    connection.commit()
    await place.drain(before + timedelta(minutes=50))
    (run,) = await read(
        place.scene.db,
        "SELECT r.execution_status, r.delayed_until, r.concurrency_key, r.ttl_seconds,"
        " r.max_attempts, r.max_duration, r.machine, r.metadata::text, r.priority_seconds, q.name"
        " FROM runs r JOIN queues q ON q.id = r.queue_id",
    )
    assert run["execution_status"] == "DELAYED"
    assert abs(run["delayed_until"] - before - timedelta(hours=1)) < timedelta(seconds=30)
    assert tuple(run)[2:] == ("c", 600, 3, 60, "small-2x", '{"a": 1.5}', 5.0, "special")


async def test_a_delay_that_was_over_before_a_server_came_is_none(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        place.blocking.trigger("add", 1, delay="1h")
    connection.commit()
    (run,) = await place.drain(datetime.now(UTC) + timedelta(hours=2))
    assert run["execution_status"] == "QUEUED"


async def test_what_can_not_be_a_run_is_kept_and_holds_up_nothing(
    place: Place, connection: psycopg.Connection
) -> None:
    version = place.scene.versions[0].version
    with place.blocking.in_transaction(connection):
        first = place.blocking.trigger("add", 1)
        place.blocking.trigger("add", 2, version=version)
        batch = place.blocking.batch_trigger("add", [BatchItem(3, {"version": version})])
        last = place.blocking.trigger("add", 4)
    connection.commit()
    # It is deleted between the commit and the drain.
    connection.execute("UPDATE background_workers SET version_number = version_number + 90")
    connection.commit()
    assert [run["id"] for run in await place.drain()] == [first.id, last.id]
    problems = await read(place.scene.db, "SELECT problem FROM pending_triggers ORDER BY id")
    assert [row["problem"] for row in problems] == [
        f"items[0].options.lockToVersion: there is no version {version} in the environment prod"
    ] * 2
    failures = await read(place.scene.db, "SELECT batch_id, status FROM batch_failures")
    assert [tuple(row) for row in failures] == [(batch.batch_id, 422)]
    await pending_triggers.delete_refused(
        place.scene.db, now=datetime.now(UTC) + timedelta(days=31)
    )
    assert await read(place.scene.db, "SELECT FROM pending_triggers") == []


async def test_two_servers_make_one_run_of_each_trigger(
    place: Place, connection: psycopg.Connection
) -> None:
    with place.blocking.in_transaction(connection):
        ids = {place.blocking.trigger("add", number).id for number in range(30)}
    connection.commit()
    runs = await asyncio.gather(*(place.drain() for _ in range(4)))
    assert {run["id"] for run in (await place.drain())} == ids
    assert max(map(len, runs)) <= 30


async def test_a_role_with_no_rights_on_the_tables_can_trigger(
    place: Place, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE ROLE application_of_test")
    # Its own tables are not taken for Runwell's.
    connection.execute("CREATE TEMPORARY TABLE api_keys (secret_hash text)")
    connection.execute("SET LOCAL ROLE application_of_test")
    with place.blocking.in_transaction(connection):
        place.blocking.trigger("add", 1)
    connection.rollback()


async def test_a_run_can_be_retrieved_as_soon_as_the_transaction_has_committed(
    place: Place, connection: psycopg.Connection
) -> None:
    # No loop runs here that would make it a run.
    async with serving(place.dsn) as served:
        settings = ClientSettings(base_url=served.url, secret_key=place.api.settings.secret_key)
        api = ApiClient(lambda: settings)
        with place.blocking.in_transaction(connection):
            handle = place.blocking.trigger("add", 1)
            with pytest.raises(NotFoundError):
                await Runs(api).retrieve(handle.id)
        connection.commit()
        assert (await Runs(api).retrieve(handle)).status == "QUEUED"
        with pytest.raises(NotFoundError):
            await Runs(api).retrieve("run_0")
