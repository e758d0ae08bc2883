"""Asking why a run is not executing."""

from runwell.engine import explanations, runs
from runwell.engine.explanations import Explanation
from tests.support.factories import Scene


async def find_explanation(scene: Scene, run_id: str) -> Explanation | None:
    """Why a run is not executing, as the API asks; None for one that is."""
    async with scene.db.transaction() as tx:
        run = await runs.get_run(tx, scene.environment, run_id)
        return await explanations.explain_run(tx, scene.environment, run, now=scene.now)


async def explain_run(scene: Scene, run_id: str) -> Explanation:
    """Why a run is not executing, which it must not be."""
    found = await find_explanation(scene, run_id)
    assert found is not None
    return found
