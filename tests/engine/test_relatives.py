"""Parents, roots and children: who triggered a run, and how it is found again."""

import pytest

from runwell.core.errors import RequestError
from runwell.engine.db import Database
from runwell.engine.queries import load_queries
from runwell.engine.runs import Run
from tests.support.factories import make_scene, make_task, read
from tests.support.plans import explain

_sql = load_queries("runs")


async def test_a_run_knows_who_triggered_it_and_what_it_triggered(db: Database) -> None:
    scene = await make_scene(db, make_task())
    (root,) = await scene.trigger_many(1)
    (parent,) = await scene.trigger_many(1, parentRunId=root)
    one, two = await scene.trigger_many(2, parentRunId=parent)

    def relatives(run: Run) -> tuple[str | None, str | None, list[str], int]:
        return (
            run.root.id if run.root else None,
            run.parent.id if run.parent else None,
            [child.id for child in run.children],
            run.depth,
        )

    assert relatives(await scene.get(root)) == (None, None, [parent], 0)
    assert relatives(await scene.get(parent)) == (root, root, [one, two], 1)
    assert relatives(await scene.get(two)) == (root, parent, [], 2)
    assert [child.depth for child in (await scene.get(parent)).children] == [2, 2]


async def test_a_worker_is_told_the_relatives_of_a_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    root = (await scene.trigger()).run_id
    parent = (await scene.trigger(parentRunId=root)).run_id
    child = (await scene.trigger(parentRunId=parent)).run_id
    worker = await scene.connect()
    taken = {run.run_id: (run.parent_run_id, run.root_run_id) for run in await worker.dequeue()}
    assert taken == {root: (None, None), parent: (root, root), child: (parent, root)}


async def test_the_attempt_that_triggers_names_the_parent_as_well(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    worker = await scene.connect()
    held = await worker.start_one()
    child = await scene.get((await scene.trigger(parentAttempt=held.attempt_id)).run_id)
    assert child.parent is not None
    assert child.parent.id == held.run_id
    odd = await scene.get((await scene.trigger(parentAttempt="attempt_1")).run_id)
    assert odd.parent is None


async def test_a_run_that_the_environment_does_not_have_is_nobodys_parent(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = (await (await make_scene(db, make_task(), slug="dev")).trigger()).run_id
    for parent in (of_dev, "run_unknown", "", "x" * 10_000):
        row = (
            await read(
                db,
                "SELECT parent_run_id, root_run_id, depth FROM runs WHERE id = :id",
                id=(await scene.trigger(parentRunId=parent)).run_id,
            )
        )[0]
        assert tuple(row) == (None, None, 0)


async def test_a_parent_that_is_no_text_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match="NUL") as refused:
        await scene.trigger(parentRunId="run_\0")
    assert refused.value.status == 400
    assert await read(db, "SELECT id FROM runs") == []


@pytest.mark.parametrize("has_children", [True, False])
async def test_relatives_are_found_by_their_indexes_however_many_runs_there_are(
    db: Database, has_children: bool
) -> None:
    scene = await make_scene(db, make_task())
    root = (await scene.trigger()).run_id
    for index in range(2):
        await read(
            db,
            """INSERT INTO runs (id, environment_id, task_id, execution_status, status,
                snapshot_id, queue_id, subqueue_id, order_at, payload_type, created_at, updated_at,
                parent_run_id)
            SELECT id || '_' || :index || '_' || n, environment_id, task_id, execution_status,
                status, 0, queue_id, subqueue_id, order_at, payload_type, created_at, updated_at,
                :parent
            FROM runs, generate_series(1, 3000) n WHERE id = :id RETURNING id""",
            id=root,
            index=str(index),
            parent=root if has_children and index else None,
        )
    await read(db, "ANALYZE runs")
    async with db.transaction() as tx:
        nodes = await explain(
            tx,
            _sql.find_relatives,
            environment_id=scene.environment.id,
            run_id=root,
            parent_run_id=root,
            root_run_id=root,
        )
    scans = [node for node in nodes if node.get("Relation Name") == "runs"]
    assert all("id = ANY" in s["Index Cond"] or "parent_run_id" in s["Index Cond"] for s in scans)
    assert "runs_by_parent" in {scan["Index Name"] for scan in scans}
    assert len((await scene.get(root)).children) == (1000 if has_children else 0)
