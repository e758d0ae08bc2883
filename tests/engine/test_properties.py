"""Random walks: whatever happens in whatever order and at once, limits hold and nothing is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from runwell.core.errors import ErrorCode, InternalError
from runwell.core.protocol import DequeuedRun, RateLimitManifest, RunReport, TaskManifest
from runwell.core.statuses import FINAL_RUN_STATUSES
from runwell.core.waits import CompletedWait, DateWait, RunsWait
from runwell.engine import db as engine_db
from runwell.engine import (
    environments,
    maintenance,
    queue_settings,
    rate_limits,
    timers,
    waitpoints,
    workers,
)
from runwell.engine.db import Database
from runwell.engine.queue_settings import QueueReference
from tests.support.factories import (
    Scene,
    Supervisor,
    canceled,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    hand_back,
    make_scene,
    make_task,
    read,
    start,
    write_lines,
)

# What no moment may show, whoever is in the middle of what: one statement sees one instant.
_OVER_LIMIT = """
SELECT s.id FROM subqueues s JOIN (
    SELECT subqueue_id, count(*) AS held FROM runs
    WHERE lease_id IS NOT NULL AND released_slots < 2 GROUP BY subqueue_id
) h ON h.subqueue_id = s.id
WHERE h.held > s.concurrency_limit OR h.held <> s.running
UNION ALL
SELECT e.id FROM environments e JOIN environment_concurrency c ON c.environment_id = e.id JOIN (
    SELECT environment_id, count(*) AS held FROM runs
    WHERE lease_id IS NOT NULL AND released_slots < 1 GROUP BY environment_id
) h ON h.environment_id = e.id
WHERE h.held > e.concurrency_limit OR h.held <> c.running
"""
_TASKS = ("one", "three", "keyed", "free")
# At most so many starts of the queue of the task `rated` in so many seconds.
_RATE, _RATE_SECONDS = 4, 2
_PAUSED = QueueReference(type="custom", value="three")


async def _make_scene(db: Database) -> Scene:
    scene = await make_scene(
        db,
        make_task("one", queue="one", limit=1),
        make_task("three", queue="three", limit=3, retry={"max_attempts": 2}),
        make_task("keyed", queue="keyed", limit=2, retry={"min_timeout_in_ms": 0}),
        make_task("free"),
        _make_rated_task(),
    )
    await read(db, "UPDATE environments SET concurrency_limit = 8 RETURNING id")
    return scene


def _make_rated_task() -> TaskManifest:
    task = make_task("rated", queue="rated")
    assert task.queue is not None
    task.queue.rate_limits = [
        RateLimitManifest(limit=_RATE, window_seconds=_RATE_SECONDS),
        RateLimitManifest(limit=2, window_seconds=1, per="key"),
    ]
    return task


class Walk:
    """One actor with its own worker, and a random choice of what it does next."""

    def __init__(
        self, scene: Scene, db: Database, choice: random.Random, run_ids: list[str]
    ) -> None:
        self.scene, self.db, self.choice, self.run_ids = scene, db, choice, run_ids
        self.held: list[DequeuedRun] = []
        self.given: list[tuple[str, int]] = []
        self.rated: list[datetime] = []
        self.worker: Supervisor | None = None
        # What was waited for, by lease and wait: runs in their order, or an instant.
        self.waits: dict[tuple[int, str], list[str] | datetime] = {}
        self.received: list[CompletedWait] = []

    async def go(self, steps: int) -> None:
        ways: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (6, self.trigger),
            (8, self.dequeue),
            (10, self.report),
            (2, self.cancel),
            (1, self.heartbeat),
            (1, self.vanish),
            (2, self.tick),
            (1, self.pause_or_resume),
            (5, self.wait),
            (4, self.go_on),
        ]
        for _ in range(steps):
            (way,) = self.choice.choices(
                [way for _, way in ways], weights=[weight for weight, _ in ways]
            )
            await way()
            assert await read(self.db, _OVER_LIMIT) == []

    async def trigger(self) -> None:
        triggered = await self.scene.trigger(
            self.choice.choice([*_TASKS, "rated"]),
            db=self.db,
            concurrencyKey=self.choice.choice(["a", "b", None]),
            delay=self.choice.choice(["1s", None, None]),
            ttl=self.choice.choice(["5s", None, None]),
            priority=self.choice.choice([5, None]),
        )
        self.run_ids.append(triggered.run_id)

    async def dequeue(self) -> None:
        if self.worker is None:
            self.worker = await self.scene.connect(db=self.db)
        now = self.scene.now
        given = await self.worker.dequeue(self.choice.randint(1, 5))
        self.rated += [now for run in given if run.task_id == "rated"]
        self.held += given
        self.given += [(run.run_id, run.snapshot_id) for run in given]

    async def report(self) -> None:
        if self.worker is None or not self.held:
            return
        reports: list[RunReport] = []
        # Sometimes about runs that it gave away long ago.
        for run in self.choice.sample(self.held, min(len(self.held), 3)):
            report, is_end = self.choice.choice(
                [
                    (start(run, self.scene.now), False),
                    (write_lines(run, "hi"), False),
                    (complete(run), True),
                    (fail(run, at=self.scene.now), True),
                    (fail(run, InternalError(code=ErrorCode.TASK_PROCESS_OOM_KILLED)), True),
                    (hand_back(run), True),
                    (canceled(run), True),
                ]
            )
            reports.append(report)
            if is_end and self.choice.random() < 0.8:
                self.held.remove(run)
        await self.worker.report(*reports)

    async def cancel(self) -> None:
        if self.run_ids:
            await self.scene.cancel(self.choice.choice(self.run_ids), db=self.db)

    async def heartbeat(self) -> None:
        if self.worker is not None:
            answer = await self.worker.heartbeat(*self.held)
            self.held = [run for run in self.held if run.run_id not in answer.lost]

    async def vanish(self) -> None:
        """Die without a word, or say goodbye; what is held is somebody else's then."""
        if self.worker is not None and self.choice.random() < 0.5:
            await self.worker.disconnect()
        self.worker = None
        if self.choice.random() < 0.5:
            self.held.clear()

    async def tick(self) -> None:
        now = self.scene.later(self.choice.choice([0.1, 1, 3]))
        await timers.enqueue_due_runs(self.db, now=now)
        await timers.expire_due_runs(self.db, now=now)
        await workers.take_lost_runs(self.db, now=now)
        await maintenance.retire_empty_subqueues(self.db)
        await maintenance.release_waiting_runs(self.db, now=now)
        await rate_limits.open_due_subqueues(self.db, now=now)

    async def wait(self) -> None:
        """Begin a wait of a run that is held, for an instant or for any runs, itself included."""
        if self.worker is None or not self.held:
            return
        run = self.choice.choice(self.held)
        wait_id = f"w{len(self.waits)}"
        if self.choice.random() < 0.4:
            date = self.scene.now + timedelta(seconds=self.choice.choice([0, 1, 2]))
            self.waits[run.snapshot_id, wait_id] = date
            begun: DateWait | RunsWait = DateWait(wait_id=wait_id, date=date)
        else:
            run_ids = self.choice.choices(self.run_ids, k=self.choice.choice([1, 1, 3]))
            self.waits[run.snapshot_id, wait_id] = run_ids
            begun = RunsWait(wait_id=wait_id, run_ids=run_ids)
        # An answer that is lost is asked for again.
        for _ in range(self.choice.choice([1, 1, 2])):
            await self.worker.wait(run, begun, is_blocked=self.choice.random() < 0.7)

    async def go_on(self) -> None:
        """Let go on what may, and take the results: each is what was waited for, and has come."""
        await waitpoints.complete_due_waitpoints(self.db, now=self.scene.now)
        await waitpoints.continue_runs(self.db, now=self.scene.now)
        if self.worker is None:
            return
        self.received = await self.worker.resume(*self.received)
        for wait in self.received:
            expected = self.waits[wait.snapshot_id, wait.wait_id]
            if isinstance(expected, datetime):
                assert expected <= self.scene.now
                assert wait.results == []
            else:
                assert [result.run_id for result in wait.results] == expected
                assert all(result.status in FINAL_RUN_STATUSES for result in wait.results)

    async def pause_or_resume(self) -> None:
        """Of the queue `three`, or of everything."""
        environment = self.scene.environment
        is_paused = self.choice.random() < 0.5
        if self.choice.random() < 0.5:
            await environments.set_paused(self.db, environment, is_paused=is_paused)
        else:
            await queue_settings.set_paused(self.db, environment, _PAUSED, is_paused=is_paused)


async def _finish(scene: Scene) -> None:
    """Let every lease end, and complete whatever is left."""
    worker = await scene.connect()
    await environments.set_paused(scene.db, scene.environment, is_paused=False)
    await queue_settings.set_paused(scene.db, scene.environment, _PAUSED, is_paused=False)
    is_quiet = False
    while not is_quiet:
        scene.later(100)
        await workers.take_lost_runs(scene.db, now=scene.now)
        await timers.enqueue_due_runs(scene.db, now=scene.now)
        await timers.expire_due_runs(scene.db, now=scene.now)
        await rate_limits.open_due_subqueues(scene.db, now=scene.now)
        await waitpoints.continue_runs(scene.db, now=scene.now)
        await worker.heartbeat()
        held = await worker.dequeue(50)
        await worker.report(*(complete(run) for run in held))
        (row,) = await read(
            scene.db, "SELECT count(*) AS number FROM runs WHERE execution_status <> 'FINISHED'"
        )
        is_quiet = row["number"] == 0


async def _walk(dbs: list[Database], seed: int, actors: int, steps: int) -> None:
    scene = await _make_scene(dbs[0])
    run_ids: list[str] = []
    walks = [
        Walk(scene, dbs[number % len(dbs)], random.Random(seed * 100 + number), run_ids)
        for number in range(actors)
    ]
    await asyncio.gather(*(walk.go(steps) for walk in walks))
    await check_consistency(dbs[0])
    starts = sorted(at for walk in walks for at in walk.rated)
    for first, last in zip(starts, starts[_RATE:], strict=False):
        assert last - first >= timedelta(seconds=_RATE_SECONDS)
    # A lease was given to one of them only.
    given = [lease for walk in walks for lease in set(walk.given)]
    assert len(given) == len(set(given))
    await _finish(scene)
    await check_all_at_rest(dbs[0])
    for left in ("run_waits", "resuming_runs"):
        assert await read(dbs[0], f"SELECT * FROM {left}") == []
    (row,) = await read(
        dbs[0],
        "SELECT count(*) AS number FROM (SELECT run_id FROM run_snapshots "
        "WHERE execution_status = 'FINISHED' GROUP BY run_id HAVING count(*) = 1) once",
    )
    assert row["number"] == len(run_ids)


@pytest.mark.parametrize("seed", range(4))
async def test_a_walk_of_one_actor_after_the_other_keeps_all_in_order(
    db: Database, seed: int
) -> None:
    await _walk([db], seed, actors=1, steps=150)


@pytest.mark.parametrize("seed", range(4))
async def test_walks_of_two_servers_at_once_keep_all_in_order(database_url: str, seed: int) -> None:
    async with (
        await Database.open(database_url, max_size=4) as one,
        await Database.open(database_url, max_size=4) as other,
    ):
        await _walk([one, other], seed, actors=6, steps=40)


async def test_many_dequeues_at_once_never_pass_a_limit(database_url: str) -> None:
    async with (
        await Database.open(database_url, max_size=8) as one,
        await Database.open(database_url, max_size=8) as other,
    ):
        scene = await _make_scene(one)
        for task_id in _TASKS:
            for key in ("a", "b"):
                await scene.trigger_many(5, task_id, concurrencyKey=key)
        supervisors = [await scene.connect(db=db) for db in (one, other) for _ in range(4)]
        for _ in range(3):
            given = await asyncio.gather(*(worker.dequeue(10) for worker in supervisors))
            assert await read(one, _OVER_LIMIT) == []
            held = [len(runs) for runs in given]
            assert sum(held) <= 8
            # Woken as a server's waiters are, somebody finds what is left of the room.
            given += [await worker.dequeue(10) for worker in supervisors]
            assert sum(len(runs) for runs in given) == 8
            for worker, runs in zip(supervisors * 2, given, strict=True):
                await worker.report(*(complete(run) for run in runs))
        await check_consistency(one)


async def test_reports_cancels_and_dequeues_at_once_end_without_a_deadlock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a deadlock is not just tried again.
    monkeypatch.setattr(engine_db, "_RETRIES", 0)
    async with (
        await Database.open(database_url, max_size=8) as one,
        await Database.open(database_url, max_size=8) as other,
    ):
        scene = await _make_scene(one)
        await read(one, "UPDATE environments SET concurrency_limit = 1000 RETURNING id")
        ids = await scene.trigger_many(60, "free")
        supervisors = [await scene.connect(db=db) for db in (one, other)]
        held = [(worker, await worker.dequeue(30)) for worker in supervisors]
        actions: list[Awaitable[object]] = []
        for worker, runs in held:
            actions += [
                worker.report(*(start(run) for run in runs)),
                worker.report(*(complete(run) for run in reversed(runs))),
                worker.report(*(fail(run, retry_at=scene.now) for run in runs[::2])),
                worker.dequeue(10),
                worker.heartbeat(*runs),
            ]
        actions += [scene.cancel(run_id, db=other) for run_id in ids[::3]]
        results = await asyncio.gather(*actions, return_exceptions=True)
        assert [result for result in results if isinstance(result, BaseException)] == []
        await check_consistency(one)
        await _finish(scene)
        await check_all_at_rest(one)
