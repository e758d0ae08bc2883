"""Why is this run not running? Sentences for runs that wait inside the task."""

from datetime import timedelta

from runwell.core.explanations import ExplanationReason
from runwell.core.waits import DateWait, RunsWait, TokenWait
from runwell.engine import environments, explanations, waitpoints
from runwell.engine.db import Database
from tests.support.explanations import explain_run
from tests.support.factories import complete, make_scene, make_task, read, start
from tests.support.waits import go_on

_R = ExplanationReason


async def test_a_run_that_waits_for_runs_an_instant_or_tokens_names_them(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    parent_id = (await scene.trigger("parent")).run_id
    worker = await scene.connect()
    parent = await worker.start_one()
    children = await scene.trigger_many(5)
    since = "since 2026-03-01T12:00:00Z"
    await worker.wait(parent, RunsWait(wait_id="w1", run_ids=children[:1]))
    found = await explain_run(scene, parent_id)
    assert (found.reason, found.run_ids) == (_R.WAITING, children[:1])
    assert found.message == f"it has been waiting for run {children[0]} {since}"
    await worker.wait(
        parent,
        RunsWait(wait_id="w2", run_ids=children[1:]),
        DateWait(wait_id="w3", date=scene.now + timedelta(hours=1)),
    )
    found = await explain_run(scene, parent_id)
    assert found.message == (
        f"it has been waiting for runs {', '.join(children[:3])} and 2 more, and for the time "
        f"2026-03-01T13:00:00Z {since}"
    )
    assert (found.run_count, found.until) == (5, None)
    await read(
        db,
        "INSERT INTO waitpoints (id, environment_id, type, created_at) "
        "VALUES ('waitpoint_t', :environment_id, 'MANUAL', :now) RETURNING id",
        environment_id=scene.environment.id,
        now=scene.now,
    )
    other_id = (await scene.trigger("parent", concurrencyKey="other")).run_id
    other = next(run for run in await worker.dequeue() if run.run_id == other_id)
    await worker.report(start(other))
    await worker.wait(other, TokenWait(wait_id="w1", token_id="waitpoint_t"))
    assert (await explain_run(scene, other_id)).message.startswith(
        "it has been waiting for token waitpoint_t since"
    )


async def test_a_run_that_waits_for_an_instant_only_says_until_when(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"))
    await scene.trigger("parent")
    worker = await scene.connect()
    parent = await worker.start_one()
    until = scene.now + timedelta(hours=1)
    await worker.wait(parent, DateWait(wait_id="w1", date=until))
    assert (await explain_run(scene, parent.run_id)).until == until


async def test_a_run_whose_wait_is_over_and_that_has_no_slot_says_who_has_it(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    await environments.set_concurrency_limit(db, scene.environment, 1)
    await scene.trigger("parent")
    worker = await scene.connect()
    parent = await worker.start_one()
    await worker.wait(parent, DateWait(wait_id="w1", date=scene.now + timedelta(seconds=1)))
    await scene.trigger()
    other = await worker.start_one()
    scene.later(1)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    await go_on(scene)
    found = await explain_run(scene, parent.run_id)
    assert (found.reason, found.run_ids) == (_R.ENVIRONMENT_LIMIT, [other.run_id])
    assert found.message == (
        "what it waited for is there, and it needs a slot to go on: the limit of the environment "
        f"prod, 1, is held by {other.run_id}"
    )
    # What waits in the queue comes after it.
    queued = (await scene.trigger(concurrencyKey="a")).run_id
    await worker.report(complete(other))
    assert (await explain_run(scene, queued)).reason is _R.ENVIRONMENT_LIMIT
    assert (await explain_run(scene, parent.run_id)).reason is _R.NEXT


async def test_a_run_that_ended_since_it_was_read_has_no_explanation(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    taken = await worker.dequeue_one()
    run = await scene.get(taken.run_id)
    await worker.report(complete(taken))
    async with db.connection() as tx:
        why = await explanations.explain_run(tx, scene.environment, run, now=scene.now)
    assert why is None
