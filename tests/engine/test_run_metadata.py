"""Metadata is changed by requests and by workers: in order, once, and within its size."""

import asyncio
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.metadata import Operation, SetOperation
from runwell.core.payloads import Json
from runwell.core.protocol import MetadataReport, MetadataUpdate
from runwell.core.schemas import MetadataBody
from runwell.engine import replays, run_metadata, runs
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    complete,
    hand_back,
    make_scene,
    make_task,
    one_transaction,
    read,
    wait_until_blocked,
)


def _append(value: Json, key: str = "log") -> dict[str, Json]:
    return {"type": "append", "key": key, "value": value}


def _increment(value: int = 1) -> dict[str, Json]:
    return {"type": "increment", "key": "n", "value": value}


async def _change(
    scene: Scene, run_id: str, *, key: str | None = None, db: Database | None = None, **body: Any
) -> dict[str, Json]:
    return await run_metadata.change_metadata(
        db or scene.db,
        scene.environment,
        run_id,
        MetadataBody.model_validate(body),
        request_key=key,
        now=scene.now,
    )


def _report(run: Any, seq: int, **operations: Any) -> MetadataReport:
    update = MetadataUpdate.model_validate({"seq": seq, **operations})
    return MetadataReport(run_id=run.run_id, snapshot_id=run.snapshot_id, metadata=update)


async def _family(scene: Scene) -> tuple[str, str, str]:
    """A root, its child and its grandchild."""
    root = (await scene.trigger()).run_id
    child = (await scene.trigger(parentRunId=root)).run_id
    return root, child, (await scene.trigger(parentRunId=child)).run_id


async def _metadata(scene: Scene, *run_ids: str) -> list[object]:
    return [(await scene.get(run_id)).metadata for run_id in run_ids]


async def test_operations_apply_in_order_to_the_run_its_parent_and_its_root(db: Database) -> None:
    scene = await make_scene(db, make_task())
    root, child, grandchild = await _family(scene)
    found = await _change(
        scene,
        grandchild,
        metadata={"n": 5},
        operations=[_increment(), _append("a"), _append("b")],
        parentOperations=[_append("from below")],
        rootOperations=[_increment(2), _increment(3)],
    )
    assert found == {"n": 6, "log": ["a", "b"]}
    assert await _metadata(scene, root, child, grandchild) == [
        {"n": 5},
        {"log": ["from below"]},
        {"n": 6, "log": ["a", "b"]},
    ]


async def test_a_run_without_a_parent_stands_for_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(metadata={"n": 1})).run_id
    found = await _change(
        scene,
        run_id,
        operations=[_increment()],
        parentOperations=[_increment()],
        rootOperations=[_increment()],
    )
    assert found == {"n": 4}


async def test_a_request_sent_twice_is_applied_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    root, child, _ = await _family(scene)
    for _ in range(2):
        assert await _change(
            scene, child, key="one", operations=[_increment()], parentOperations=[_increment()]
        ) == {"n": 1}
    assert await _change(scene, child, key="two", operations=[_increment()]) == {"n": 2}
    assert await _metadata(scene, root) == [{"n": 1}]


async def test_the_keys_of_old_requests_are_forgotten(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_metadata, "REMEMBERED_KEYS", 3)
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    for number in range(6):
        await _change(scene, run_id, key=f"key {number}", operations=[_increment()])
    rows = await read(db, "SELECT key FROM run_metadata_keys ORDER BY number")
    assert [row["key"] for row in rows] == ["key 3", "key 4", "key 5"]


async def test_metadata_that_would_be_too_large_is_refused_as_a_whole(db: Database) -> None:
    scene = await make_scene(db, make_task())
    root, child, _ = await _family(scene)
    large = "x" * 200_000
    await _change(scene, root, operations=[_append(large)])
    with pytest.raises(RequestError, match=r"run_\w+ would be 4\d\d,\d+ bytes") as refused:
        await _change(scene, child, operations=[_increment()], parentOperations=[_append(large)])
    assert refused.value.status == 422
    assert await _metadata(scene, child) == [None]


async def test_a_run_that_has_ended_keeps_its_metadata(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger(metadata={"n": 1})
    run = await worker.start_one()
    child = (await scene.trigger(parentRunId=run.run_id)).run_id
    await worker.report(complete(run))
    with pytest.raises(RequestError, match="has ended") as refused:
        await _change(scene, run.run_id, operations=[_increment()])
    assert refused.value.status == 422
    found = await _change(scene, child, operations=[_increment()], parentOperations=[_increment()])
    assert found == {"n": 1}
    assert await _metadata(scene, run.run_id) == [{"n": 1}]
    with pytest.raises(RequestError, match="no run"):
        await _change(scene, "run_unknown", operations=[_increment()])


async def test_changes_at_the_same_time_are_all_there(db: Database) -> None:
    scene = await make_scene(db, make_task())
    root = (await scene.trigger()).run_id
    one = (await scene.trigger(parentRunId=root)).run_id
    two = (await scene.trigger(parentRunId=root)).run_id
    async with one_transaction(db) as held:
        await _change(scene, one, rootOperations=[_increment()], db=held)
        changing = asyncio.create_task(_change(scene, two, rootOperations=[_increment()]))
        await wait_until_blocked(db)
    await changing
    assert await _metadata(scene, root) == [{"n": 2}]
    await asyncio.gather(*(_change(scene, one, rootOperations=[_increment()]) for _ in range(10)))
    assert await _metadata(scene, root) == [{"n": 12}]


async def test_a_worker_reports_changes_and_each_counts_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    root = (await scene.trigger()).run_id
    other = await worker.start_one()
    assert other.run_id == root
    await scene.trigger(parentRunId=root)
    run = await worker.start_one()
    first = _report(
        run,
        1,
        operations=[_increment()],
        parentOperations=[_append(1)],
        rootOperations=[_increment()],
    )
    for _ in range(2):
        # The second time, as after a lost answer.
        assert await worker.report(first) == ["accepted"]
    second, third = (
        _report(run, 2, operations=[_increment()]),
        _report(run, 3, operations=[_append(3)]),
    )
    assert await worker.report(first, second, third) == ["accepted"] * 3
    assert await _metadata(scene, run.run_id, root) == [{"n": 2, "log": [3]}, {"log": [1], "n": 1}]
    async with db.connection() as tx:
        row = await run_metadata.read_metadata(tx, scene.environment, run.run_id)
    assert (row["lease_id"], row["seq"]) == (run.snapshot_id, 3)


async def test_the_end_of_an_attempt_brings_its_last_changes_and_the_next_one_counts_anew(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    for expected in (1, 2):
        run = await worker.start_one()
        end = hand_back(run) if expected == 1 else complete(run)
        end.metadata = MetadataUpdate.model_validate({"seq": 1, "operations": [_increment()]})
        assert await worker.report(end, end) == ["accepted", "stale"]
        assert await _metadata(scene, run.run_id) == [{"n": expected}]


async def test_a_worker_that_lost_its_run_changes_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await scene.lose_workers()
    assert await worker.report(_report(run, 1, operations=[_increment()])) == ["stale"]
    assert await _metadata(scene, run.run_id) == [None]


async def test_what_a_worker_can_not_change_is_dropped_with_a_line_in_the_log(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    nul: list[Operation] = [SetOperation(key="a", value="\x00")]
    assert (
        await worker.report(
            _report(run, 1, operations=[_append("x" * 200_000)]),
            _report(run, 2, operations=[_append("x" * 200_000)]),
            MetadataReport(
                run_id=run.run_id,
                snapshot_id=run.snapshot_id,
                metadata=MetadataUpdate(seq=3, operations=nul),
            ),
            _report(run, 4, operations=[_increment()]),
        )
        == ["accepted"] * 4
    )
    found = (await scene.get(run.run_id)).metadata
    assert found is not None
    assert (found["n"], len(str(found["log"]))) == (1, 200_004)
    async with db.connection() as tx:
        page = await runs.read_logs(tx, scene.environment, run.run_id, after=None, limit=10)
    assert [line.level for line in page.data] == ["WARN", "WARN"]
    assert "at most 262,144" in page.data[0].message
    assert "NUL" in page.data[1].message


async def test_children_that_report_at_once_do_not_lock_each_other_out(db: Database) -> None:
    scene = await make_scene(db, make_task())
    workers = [await scene.connect(str(number)) for number in range(4)]
    await scene.trigger()
    root = await workers[0].start_one()
    children: list[Any] = []
    for worker in workers:
        await scene.trigger(parentRunId=root.run_id)
        children.append(await worker.start_one())

    async def report_all(number: int) -> None:
        for seq in range(1, 6):
            await workers[number].report(
                _report(
                    children[number], seq, operations=[_increment()], rootOperations=[_increment()]
                )
            )

    own = [workers[0].report(_report(root, seq, operations=[_append(seq)])) for seq in range(1, 4)]
    await asyncio.gather(*(report_all(number) for number in range(4)), *own[:1])
    for report in own[1:]:
        await report
    assert (await _metadata(scene, root.run_id)) == [{"n": 20, "log": [1, 2, 3]}]


async def test_a_replay_has_the_metadata_of_the_trigger(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(metadata={"n": 1})).run_id
    for _ in range(2):
        await _change(scene, run_id, operations=[_increment()])
    again = await replays.replay_run(db, scene.environment, run_id, now=scene.now)
    assert await _metadata(scene, run_id, again.run_id) == [{"n": 3}, {"n": 1}]
