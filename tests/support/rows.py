"""Runs as the tables hold them."""

from typing import Any

from runwell.engine.db import Database
from tests.support.factories import Scene, read


async def read_row(scene: Scene, run_id: str) -> dict[str, Any]:
    """A run with its queue and its part of it."""
    (row,) = await read(
        scene.db,
        "SELECT r.*, q.name AS queue_name, s.concurrency_limit, s.concurrency_key AS subqueue_key "
        "FROM runs r JOIN queues q ON q.id = r.queue_id JOIN subqueues s ON s.id = r.subqueue_id "
        "WHERE r.id = :id",
        id=run_id,
    )
    return dict(row)


async def trigger_row(scene: Scene, **options: Any) -> dict[str, Any]:
    """Trigger a run, and read it."""
    return await read_row(scene, (await scene.trigger(**options)).run_id)


async def count_runs(db: Database) -> int:
    """How many runs there are, of all environments."""
    return (await read(db, "SELECT count(*) AS number FROM runs"))[0]["number"]
