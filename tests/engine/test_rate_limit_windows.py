"""No window of time has more starts than a rate limit, whatever happens."""

import asyncio
import random
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.core.protocol import RateLimitManifest
from runwell.engine import rate_limits
from runwell.engine.db import Database
from tests.support.factories import (
    NOW,
    Scene,
    check_consistency,
    complete,
    make_scene,
    make_task,
    read,
)


async def _open(scene: Scene) -> None:
    await rate_limits.open_due_subqueues(scene.db, now=scene.now)


def _check_windows(starts: list[datetime], limit: int, seconds: float) -> None:
    """No window holds more than the limit: of one more, the last is a window after the first."""
    starts = sorted(starts)
    for first, last in zip(starts, starts[limit:], strict=False):
        assert last - first >= timedelta(seconds=seconds)


async def _walk(scene: Scene, choice: random.Random, limits: dict[str, tuple[int, int]]) -> None:
    starts: list[tuple[datetime, str | None]] = []
    worker = await scene.connect()
    for _ in range(60):
        for _ in range(choice.choice([0, 0, 1, 3])):
            await scene.trigger(concurrencyKey=choice.choice(["a", "b", "c", None]))
        await _open(scene)
        await worker.heartbeat()
        runs = await worker.dequeue(choice.randint(1, 6))
        starts += [(scene.now, (await scene.get(run.run_id)).concurrency_key) for run in runs]
        await worker.report(*(complete(run) for run in runs))
        scene.later(choice.choice([0.0, 0.05, 0.3, 1, 2.5]))
    if "queue" in limits:
        _check_windows([at for at, _ in starts], *limits["queue"])
    if "key" in limits:
        for key in ("a", "b", "c", None):
            _check_windows([at for at, of in starts if of == key], *limits["key"])
    # And all start in the end, a few whenever a window is over.
    left = (await read(scene.db, "SELECT count(*) AS number FROM queued_runs"))[0]["number"]
    longest = max(seconds for _, seconds in limits.values())
    rounds = 0
    while left:
        scene.later(longest * 1.05)
        await _open(scene)
        await worker.heartbeat()
        while runs := await worker.dequeue(50):
            await worker.report(*(complete(run) for run in runs))
            left -= len(runs)
        rounds += 1
        assert rounds < 200
    await check_consistency(scene.db)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_no_window_has_more_starts_than_the_limit(
    db: Database, seed: int
) -> None:
    choice = random.Random(seed)
    kinds = [["queue"], ["key"], ["queue", "key"]][seed % 3]
    limits = {per: (choice.randint(1, 5), choice.randint(1, 12)) for per in kinds}
    task = make_task(queue="api")
    assert task.queue is not None
    task.queue.rate_limits = [
        RateLimitManifest.model_validate({"limit": most, "windowSeconds": seconds, "per": per})
        for per, (most, seconds) in limits.items()
    ]
    scene = await make_scene(db, task)
    await _walk(scene, choice, limits)


_STEPS = st.lists(st.tuples(st.floats(0, 8), st.integers(1, 4)), min_size=1, max_size=60)


async def _starts(
    db: Database, limit: int, seconds: int, steps: list[tuple[float, int]]
) -> list[datetime]:
    """When the functions of the schema let starts through, one after the other."""
    log, now, starts = "{}", NOW, list[datetime]()
    for wait, wanted in steps:
        now += timedelta(seconds=wait)
        (row,) = await read(
            db,
            """SELECT l.given, rate_started(l.length, l.log, :now, l.given)::text AS log,
                rate_free_at(:most, l.length, l.log, :now) AS free_at
            FROM (
                SELECT x.*,
                    least(:wanted::integer, rate_room(:most, x.length, x.log, :now)) AS given
                FROM (SELECT :log::text::rate_start[] AS log,
                    make_interval(secs => :seconds::integer) AS length) x
            ) l""",
            most=limit,
            seconds=seconds,
            log=log,
            now=now,
            wanted=wanted,
        )
        log = row["log"]
        starts += [now] * row["given"]
        assert (row["free_at"] <= now) == (row["given"] > 0)
        # Room comes back within a twentieth of the window of when it might.
        if not row["given"]:
            oldest = starts[-limit]
            assert row["free_at"] <= oldest + timedelta(seconds=seconds * 1.05)
    return starts


def test_the_log_of_starts_never_forgets_one_too_early(database_url: str) -> None:
    @given(limit=st.integers(1, 30), seconds=st.integers(1, 60), steps=_STEPS)
    def check(limit: int, seconds: int, steps: list[tuple[float, int]]) -> None:
        starts = runner.run(_starts(db, limit, seconds, steps))
        _check_windows(starts, limit, seconds)

    with asyncio.Runner() as runner:
        db = runner.run(Database.open(database_url, min_size=1))
        try:
            check()
        finally:
            runner.run(db.close())
