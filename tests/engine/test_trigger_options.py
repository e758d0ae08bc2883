"""Triggers: every option, and with which words it is refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.machines import MachineName
from runwell.core.payloads import Json
from runwell.core.schemas import TriggerBody
from runwell.engine.db import Database
from runwell.engine.trigger_options import TriggerRequest
from runwell.engine.triggering import trigger_run
from tests.support.factories import (
    NOW,
    check_consistency,
    make_scene,
    make_task,
    read,
)
from tests.support.rows import count_runs, read_row, trigger_row


async def test_a_run_without_options_waits_in_the_queue_of_its_task(db: Database) -> None:
    scene = await make_scene(db, make_task("send e-mail!"))
    row = await trigger_row(scene, task_id="send e-mail!")
    assert row["queue_name"] == "task/sende-mail"
    assert (row["execution_status"], row["status"]) == ("QUEUED", "QUEUED")
    assert row["created_at"] == row["queued_at"] == row["order_at"] == NOW
    assert row["subqueue_key"] == ""
    assert row["attempt_number"] == 0
    assert not row["tags"]
    assert row["ttl"] is None
    await check_consistency(db)


async def test_a_run_waits_in_the_queue_that_its_task_names(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail", limit=3))
    row = await trigger_row(scene)
    assert (row["queue_name"], row["concurrency_limit"]) == ("mail", 3)


async def test_a_trigger_may_name_another_queue_and_a_key(db: Database) -> None:
    scene = await make_scene(db, make_task())
    row = await trigger_row(scene, queue={"name": "paid users"}, concurrencyKey="user 1")
    assert (row["queue_name"], row["concurrency_key"]) == ("paidusers", "user 1")
    assert row["subqueue_key"] == "user 1"
    assert row["concurrency_limit"] == 2**31 - 1


async def test_a_limit_in_a_trigger_changes_the_queue_and_all_of_its_keys(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail", limit=3))
    await scene.trigger(concurrencyKey="a")
    await scene.trigger(concurrencyKey="b", queue={"concurrencyLimit": 2})
    rows = await read(db, "SELECT concurrency_limit FROM subqueues WHERE has_queued")
    assert [row["concurrency_limit"] for row in rows] == [2, 2]
    await scene.trigger(concurrencyKey="c", queue={"name": "mail", "concurrencyLimit": None})
    rows = await read(db, "SELECT concurrency_limit FROM subqueues WHERE has_queued")
    assert [row["concurrency_limit"] for row in rows] == [2**31 - 1] * 3


async def test_a_queue_limit_is_at_most_that_of_the_environment(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await read(db, "UPDATE environments SET concurrency_limit = 5 RETURNING id")
    scene = await make_scene(db)
    row = await trigger_row(scene, queue={"name": "mail", "concurrencyLimit": 100})
    assert row["concurrency_limit"] == 5


async def test_tags_are_kept_once_in_their_order(db: Database) -> None:
    scene = await make_scene(db, make_task())
    assert (await trigger_row(scene, tags=["b", "a", "b"]))["tags"] == ["b", "a"]
    assert (await trigger_row(scene, tags="one"))["tags"] == ["one"]


async def test_more_than_ten_tags_are_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match="at most 10 tags, and 11 were given") as refused:
        await scene.trigger(tags=[str(number) for number in range(11)])
    assert refused.value.status == 422


async def test_the_plain_options_are_kept_as_they_are(db: Database) -> None:
    scene = await make_scene(db, make_task())
    row = await trigger_row(
        scene,
        maxAttempts=7,
        machine="large-2x",
        test=True,
        metadata={"customer": {"id": 1}},
        maxDuration=60,
        priority=10,
    )
    assert row["max_attempts"] == 7
    assert row["machine"] == MachineName.LARGE_2X
    assert row["is_test"]
    assert json.loads(row["metadata"]) == {"customer": {"id": 1}}
    assert row["max_duration"] == 60
    assert row["order_at"] == NOW - timedelta(seconds=10)


async def test_a_max_duration_is_at_least_five_seconds(db: Database) -> None:
    scene = await make_scene(db, make_task())
    assert (await trigger_row(scene, maxDuration=0.5))["max_duration"] == 5
    assert (await trigger_row(scene, maxDuration=1e300))["max_duration"] == 2**31 - 1


async def test_the_traceparent_and_the_context_are_kept(db: Database) -> None:
    scene = await make_scene(db, make_task())
    request = TriggerRequest(
        task_id="add",
        body=_body('{"payload": 1, "context": {"user": 1}}'),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    triggered = await trigger_run(db, scene.environment, request, now=NOW)
    row = await read_row(scene, triggered.run_id)
    assert json.loads(row["context"]) == {"user": 1}
    assert json.loads(row["trace_context"])["traceparent"].startswith("00-0af")


def _one(option: str, value: str) -> dict[str, Any]:
    return {option: value}


def _body(text: str) -> TriggerBody:
    return TriggerBody.model_validate_json(text)


@pytest.mark.parametrize(
    ("delay", "until"),
    [
        ("90s", NOW + timedelta(seconds=90)),
        ("1h30m", NOW + timedelta(minutes=90)),
        ("2w1d", NOW + timedelta(days=15)),
        ("2026-03-01T14:00:00+01:00", datetime(2026, 3, 1, 13, tzinfo=UTC)),
        ("2026-03-02", datetime(2026, 3, 2, tzinfo=UTC)),
    ],
)
async def test_a_delay_is_a_duration_or_a_date(db: Database, delay: str, until: datetime) -> None:
    scene = await make_scene(db, make_task())
    row = await trigger_row(scene, delay=delay)
    assert row["execution_status"] == "DELAYED"
    assert row["delayed_until"] == row["order_at"] == until
    assert row["queued_at"] is None
    await check_consistency(db)


@pytest.mark.parametrize("delay", ["0s", "2020-01-01T00:00:00Z"])
async def test_a_delay_that_is_over_is_none(db: Database, delay: str) -> None:
    scene = await make_scene(db, make_task())
    row = await trigger_row(scene, delay=delay)
    assert (row["execution_status"], row["delayed_until"]) == ("QUEUED", None)


@pytest.mark.parametrize("delay", ["", "soon", "-1s", "1.5s", "101w200000000d", "2026-13-01"])
async def test_a_delay_that_is_neither_is_refused(db: Database, delay: str) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=r"options\.delay: .* neither a duration") as refused:
        await scene.trigger(delay=delay)
    assert refused.value.status == 400


async def test_a_delay_before_the_first_year_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=r"options\.delay"):
        await scene.trigger(delay="0001-01-01T00:00:00+14:00")


@pytest.mark.parametrize(
    ("slug", "of_task", "given", "kept"),
    [
        ("prod", None, None, (None, None)),
        ("prod", None, "1h", ("1h", 3600)),
        ("prod", None, 90, ("90s", 90)),
        ("prod", "5m", None, ("300s", 300)),
        ("prod", "5m", "10s", ("10s", 10)),
        ("dev", None, None, ("10m", 600)),
        ("dev", None, "2h", ("2h", 7200)),
        ("dev", 30, None, ("30s", 30)),
        ("dev", None, 0, (None, None)),
        ("dev", None, "0s", (None, None)),
        ("dev", 0, None, (None, None)),
        ("prod", 0, "1m", ("1m", 60)),
        ("prod", "5m", 0, (None, None)),
    ],
)
async def test_a_ttl_comes_from_the_trigger_then_the_task_then_development(
    db: Database,
    slug: str,
    of_task: str | int | None,
    given: str | int | None,
    kept: tuple[str | None, int | None],
) -> None:
    scene = await make_scene(db, make_task(ttl=of_task), slug=slug)
    row = await trigger_row(scene, ttl=given)
    assert (row["ttl"], row["ttl_seconds"]) == kept
    (queued,) = await read(db, "SELECT expires_at FROM queued_runs")
    seconds = kept[1]
    assert queued["expires_at"] == (None if seconds is None else NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("ttl", ["2026-01-01", "", -5])
async def test_a_ttl_that_is_no_duration_is_refused(db: Database, ttl: str | int) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=r"options\.ttl: .* not a duration") as refused:
        await scene.trigger(ttl=ttl)
    assert refused.value.status == 400


async def test_a_run_locked_to_a_version_runs_on_it_only(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="old"))
    old = scene.versions[0]
    new = await scene.register(make_task(queue="new"))
    row = await trigger_row(scene, lockToVersion=old.version)
    assert (row["queue_name"], row["is_version_locked"]) == ("old", True)
    of_new, of_old = await scene.connect(), await scene.connect()
    of_new.versions, of_old.versions = [new.id], [old.id]
    assert await of_new.dequeue() == []
    assert (await of_old.dequeue_one()).version == old.version


async def test_a_version_that_is_unknown_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    queues: list[Json] = [None, {"name": "never-seen"}, {"concurrencyLimit": 1}]
    for queue in queues:
        with pytest.raises(RequestError, match=r"no version 20200101\.1 in the env") as refused:
            await scene.trigger(lockToVersion="20200101.1", idempotencyKey="k", queue=queue)
        assert refused.value.status == 422
    assert await count_runs(db) == 0
    assert await read(db, "SELECT 1 FROM idempotency_keys") == []
    assert await read(db, "SELECT 1 FROM queues WHERE name = 'never-seen'") == []


async def test_a_version_of_another_environment_is_unknown(db: Database) -> None:
    of_dev = await make_scene(db, make_task(), slug="dev")
    scene = await make_scene(db)
    with pytest.raises(RequestError, match="in the environment prod"):
        await scene.trigger(lockToVersion=of_dev.versions[0].version)


async def test_a_version_without_the_task_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task("other"))
    old = scene.versions[0]
    await scene.register(make_task("add"))
    with pytest.raises(RequestError, match=f"version {old.version} has no task add$") as refused:
        await scene.trigger(lockToVersion=old.version)
    assert refused.value.status == 422


@pytest.mark.parametrize("version", ["\x00", "latest", "x" * 10_000])
async def test_a_version_that_is_none_is_refused(db: Database, version: str) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError) as refused:
        await scene.trigger(lockToVersion=version)
    assert refused.value.status in (400, 422)
    assert len(str(refused.value)) < 300


async def test_a_run_of_an_unknown_task_waits_for_its_deployment(db: Database) -> None:
    scene = await make_scene(db, make_task("other"))
    run_id = (await scene.trigger("add", priority=5)).run_id
    assert await scene.read_status(run_id) == "RUN_CREATED/WAITING_FOR_DEPLOY"
    worker = await scene.connect()
    assert await worker.dequeue() == []
    await check_consistency(db)
    scene.later(10)
    await scene.register(make_task("add"))
    assert await scene.read_status(run_id) == "QUEUED/QUEUED"
    worker = await scene.connect()
    assert (await worker.dequeue_one()).run_id == run_id
    assert await scene.read_events(run_id) == ["TRIGGER", "ENQUEUE", "DEQUEUE"]


@pytest.mark.parametrize("task_id", ["", "a\x00", "a\n", "x" * 257])
async def test_a_text_that_is_no_task_id_is_refused(db: Database, task_id: str) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError) as refused:
        await scene.trigger(task_id)
    assert refused.value.status == 400


async def test_a_queue_name_of_signs_only_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match="'!!' is no queue name") as refused:
        await scene.trigger(queue={"name": "!!"})
    assert refused.value.status == 422


@pytest.mark.parametrize("option", ["concurrencyKey", "idempotencyKey"])
async def test_a_key_with_a_nul_is_refused(db: Database, option: str) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match="NUL") as refused:
        await scene.trigger(**_one(option, "a\x00"))
    assert refused.value.status == 400


async def test_a_priority_beyond_reason_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=r"options\.priority"):
        await scene.trigger(priority=1e300)
