"""Runs that wait for others, as the engine sees it."""

from runwell.core.protocol import DequeuedRun
from runwell.core.waits import RunsWait
from runwell.engine import waitpoints
from tests.support.factories import Scene, Supervisor


async def go_on(scene: Scene) -> set[str]:
    """Let runs go on that can; returns the workers that are to be told."""
    return (await waitpoints.continue_runs(scene.db, now=scene.now)).worker_ids


async def wait_for_child(
    scene: Scene, worker: Supervisor, *, child: str = "add", wait_id: str = "w1"
) -> tuple[DequeuedRun, str]:
    """Start the queued run, and have it wait for a child of its own: that run, the child's id."""
    parent = await worker.start_one()
    child_id = (await scene.trigger(child)).run_id
    answer = await worker.wait(parent, RunsWait(wait_id=wait_id, run_ids=[child_id]))
    assert answer.is_blocked
    return parent, child_id
