"""Random walks of the engine beside its model: after every step both must say the same.

`make walks` walks with new seeds.
"""

import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from runwell.core.protocol import LEASE_SECONDS, DequeuedRun, RunReport
from runwell.core.waits import DateWait, RunsWait
from runwell.engine import environments, queue_settings, timers, waitpoints, workers
from runwell.engine.db import Database
from runwell.engine.queue_settings import QueueReference
from tests.support.factories import (
    Scene,
    Supervisor,
    canceled,
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
from tests.support.model import BLOCKED, Model, Task, Wait

#: Set to a number, tests walk that one way alone; to `1000:200`, 200 ways from there on.
SEED_VARIABLE = "RUNWELL_WALK_SEED"
_ENVIRONMENT_LIMIT = 6
_KEY_TTL = timedelta(seconds=4)
_TASKS = {
    "one": Task(queue="one", limit=1, max_attempts=1),
    "two": Task(queue="two", limit=2, max_attempts=3),
    "also-two": Task(queue="two", limit=2, max_attempts=2),
    "free": Task(queue="task/free", limit=None, max_attempts=2),
}
_WORDS = ("start", "lines", "complete", "fail", "hand_back", "canceled")
_SEEN = """
SELECT r.id, r.execution_status, r.status, r.attempt_number, r.lease_id, r.released_slots
FROM runs r
"""


class Walk:
    """One walk: a seed, the engine, and the model."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene, self.db, self.choice = scene, scene.db, random.Random(seed)
        self.model = Model(_TASKS, limit=_ENVIRONMENT_LIMIT, lease=timedelta(seconds=LEASE_SECONDS))
        self.workers: list[Supervisor] = []
        # Every lease there ever was: workers speak of old ones too.
        self.leases: list[tuple[Supervisor, DequeuedRun]] = []
        self.steps: list[str] = []
        self.waits = 0

    async def go(self, steps: int) -> None:
        """Do so many random steps; AssertionError has the last of them."""
        ways: list[tuple[int, Callable[[], Awaitable[str]]]] = [
            (7, self.trigger),
            (8, self.dequeue),
            (10, self.report),
            (4, self.wait),
            (4, self.go_on),
            (2, self.resume),
            (3, self.pass_time),
            (2, self.cancel),
            (1, self.heartbeat),
            (1, self.come_or_leave),
            (1, self.pause_or_resume),
        ]
        weights = [weight for weight, _ in ways]
        for _ in range(steps):
            ((_, way),) = self.choice.choices(ways, weights=weights)
            try:
                self.steps.append(await way())
                await self.compare()
            except AssertionError as error:
                told = "\n  ".join(self.steps[-12:])
                raise AssertionError(f"{way.__name__}: {error}\nafter\n  {told}") from error

    async def compare(self) -> None:
        """Both say the same of every run, and the engine's counts are those of the model."""
        rows = await read(self.db, _SEEN)
        engine = {row["id"]: tuple(row)[1:] for row in rows}
        model = {run.id: run.seen for run in self.model.runs.values()}
        differences = {
            run_id: f"engine {engine.get(run_id)}, model {model.get(run_id)}"
            for run_id in engine.keys() | model.keys()
            if engine.get(run_id) != model.get(run_id)
        }
        assert not differences, differences
        (row,) = await read(
            self.db,
            "SELECT running FROM environment_concurrency WHERE environment_id = :id",
            id=self.scene.environment.id,
        )
        assert row["running"] == self.model.running()

    async def trigger(self) -> str:
        task = self.choice.choice([*_TASKS])
        concurrency_key = self.choice.choice(["a", "b", None])
        delay = self.choice.choice([1, 3, None, None, None])
        ttl = self.choice.choice([2, 5, None, None])
        priority = self.choice.choice([0, 0, 5])
        key = self.choice.choice(["k1", "k2", None, None])
        now = self.scene.now
        triggered = await self.scene.trigger(
            task,
            concurrencyKey=concurrency_key,
            delay=None if delay is None else f"{delay}s",
            ttl=None if ttl is None else f"{ttl}s",
            priority=priority or None,
            idempotencyKey=key,
            idempotencyKeyTTL=None if key is None else f"{_KEY_TTL.seconds}s",
        )
        known = self.model.find_by_key(task, key, now)
        assert triggered.is_cached is (known is not None), f"cached: {triggered}, {known}"
        if known is None:
            self.model.trigger(
                triggered.run_id,
                task,
                now=now,
                concurrency_key=concurrency_key,
                delay=None if delay is None else timedelta(seconds=delay),
                ttl=None if ttl is None else timedelta(seconds=ttl),
                priority=timedelta(seconds=priority),
                key=key,
                key_ttl=_KEY_TTL,
            )
        else:
            assert triggered.run_id == known
        self.scene.later(0.001)
        return f"trigger {task} {triggered.run_id} key {key} delay {delay} ttl {ttl}"

    async def dequeue(self) -> str:
        worker = await self._a_worker()
        most = self.choice.randint(1, 4)
        if self.choice.random() < 0.2:
            return await self._dequeue_all(worker)
        return await self._dequeue(worker, most)

    async def _dequeue_all(self, worker: Supervisor) -> str:
        """Again and again: in the end no slot is free for which a run waits."""
        most = 2 * _ENVIRONMENT_LIMIT
        told = [await self._dequeue(worker, most) for _ in range(most)]
        room = self.model.room_for_dequeue(worker.id, most, self.scene.now)
        assert not self.model.offers(room, self.scene.now), "runs wait beside free slots"
        return "; ".join(told[:3])

    async def _dequeue(self, worker: Supervisor, most: int) -> str:
        given = await worker.dequeue(most)
        self.leases += [(worker, run) for run in given]
        leases = [(run.run_id, run.snapshot_id) for run in given]
        self.model.check_dequeue(worker.id, leases, most, self.scene.now)
        for run in given:
            assert run.attempt_number == self.model.runs[run.run_id].attempt_number
        return f"dequeue {most}: {[run_id for run_id, _ in leases]}"

    async def report(self) -> str:
        if not self.leases:
            return "report nothing"
        worker, run = self._a_lease()
        word = self.choice.choice(_WORDS)
        (answered,) = await worker.report(_make_report(word, run, self.scene.now))
        known = self.model.report(run.run_id, run.snapshot_id, word, self.scene.now)
        assert (answered == "accepted") is known, f"{word} of {run.run_id} was {answered}"
        return f"report {word} of {run.run_id}: {answered}"

    async def wait(self) -> str:
        if not self.leases:
            return "wait for nothing"
        worker, run = self._a_lease()
        if self.model.runs[run.run_id].execution in BLOCKED:
            return "wait no more"
        self.waits += 1
        wait_id, blocks = f"w{self.waits}", self.choice.random() < 0.8
        if self.choice.random() < 0.4:
            date = self.scene.now + timedelta(seconds=self.choice.choice([0, 1, 2]))
            wait, begun = Wait(date=date), DateWait(wait_id=wait_id, date=date)
        else:
            run_ids = self.choice.choices([*self.model.runs], k=self.choice.choice([1, 2]))
            wait, begun = Wait(run_ids=run_ids), RunsWait(wait_id=wait_id, run_ids=run_ids)
        answer = await worker.wait(run, begun, is_blocked=blocks)
        expected = self.model.wait(
            run.run_id, run.snapshot_id, wait_id, wait, blocks=blocks, now=self.scene.now
        )
        assert (answer.is_lost, bool(answer.refused), answer.is_blocked) == expected
        return f"wait of {run.run_id} for {wait.run_ids or wait.date}: {expected}"

    async def go_on(self) -> str:
        await waitpoints.complete_due_waitpoints(self.db, now=self.scene.now)
        await waitpoints.continue_runs(self.db, now=self.scene.now)
        self.model.go_on(self.scene.now)
        return "go on"

    async def resume(self) -> str:
        worker = await self._a_worker()
        got = await worker.resume()
        found = {(wait.run_id, wait.snapshot_id, wait.wait_id) for wait in got}
        assert found == self.model.results(worker.id)
        for wait in got:
            model = self.model.runs[wait.run_id].waits[wait.wait_id]
            assert [result.run_id for result in wait.results] == list(model.run_ids)
            statuses = [self.model.runs[run_id].status for run_id in model.run_ids]
            assert [result.status for result in wait.results] == statuses
        assert await worker.resume(*got) == []
        for wait in got:
            self.model.receive(wait.run_id, wait.wait_id)
        return f"resume {len(got)}"

    async def pass_time(self) -> str:
        seconds = self.choice.choice([0.1, 1, 3, 8])
        now = self.scene.later(seconds)
        await timers.enqueue_due_runs(self.db, now=now)
        await timers.expire_due_runs(self.db, now=now)
        await workers.take_lost_runs(self.db, now=now)
        self.model.pass_time(now)
        return f"{seconds} s pass"

    async def cancel(self) -> str:
        if not self.model.runs:
            return "cancel nothing"
        run_id = self.choice.choice([*self.model.runs])
        await self.scene.cancel(run_id)
        self.model.cancel(run_id)
        return f"cancel {run_id}"

    async def heartbeat(self) -> str:
        worker = await self._a_worker()
        held = [run for of, run in self.leases if of is worker]
        answer = await worker.heartbeat(*held)
        self.model.connect(worker.id, self.scene.now)
        last = {run.run_id: run.snapshot_id for run in held}
        runs = self.model.runs
        assert set(answer.lost) == {
            run_id for run_id, lease in last.items() if runs[run_id].lease != lease
        }
        assert set(answer.canceled) == {
            run_id
            for run_id in last
            if run_id not in answer.lost and runs[run_id].execution == "PENDING_CANCEL"
        }
        return f"heartbeat of {worker.id}"

    async def come_or_leave(self) -> str:
        if self.workers and self.choice.random() < 0.6:
            worker = self.workers.pop(self.choice.randrange(len(self.workers)))
            if self.choice.random() < 0.5:
                return f"{worker.id} dies"
            await worker.disconnect()
            self.model.disconnect(worker.id, self.scene.now)
            return f"{worker.id} leaves"
        self.workers.append(await self._connect())
        return f"{self.workers[-1].id} comes"

    async def pause_or_resume(self) -> str:
        is_paused = self.choice.random() < 0.5
        environment = self.scene.environment
        if self.choice.random() < 0.3:
            await environments.set_paused(self.db, environment, is_paused=is_paused)
            self.model.is_paused = is_paused
            return f"environment paused: {is_paused}"
        queue = self.choice.choice(["one", "two"])
        with contextlib.suppress(LookupError):
            reference = QueueReference(type="custom", value=queue)
            await queue_settings.set_paused(self.db, environment, reference, is_paused=is_paused)
        (self.model.paused.add if is_paused else self.model.paused.discard)(queue)
        return f"{queue} paused: {is_paused}"

    async def _connect(self) -> Supervisor:
        worker = await self.scene.connect()
        self.model.connect(worker.id, self.scene.now)
        return worker

    async def _a_worker(self) -> Supervisor:
        if not self.workers:
            self.workers.append(await self._connect())
        return self.choice.choice(self.workers)

    def _a_lease(self) -> tuple[Supervisor, DequeuedRun]:
        """Most often one of the last; now and then an old one."""
        last = self.leases[-8:] if self.choice.random() < 0.9 else self.leases
        return self.choice.choice(last)


def _make_report(word: str, run: DequeuedRun, at: datetime) -> RunReport:
    match word:
        case "start":
            return start(run, at)
        case "lines":
            return write_lines(run, "hi")
        case "complete":
            return complete(run)
        case "fail":
            return fail(run, at=at)
        case "hand_back":
            return hand_back(run)
        case _:
            return canceled(run)


async def walk(db: Database, seed: int, steps: int) -> None:
    """Walk so many steps; AssertionError names the seed and how to walk it again."""
    tasks = [
        make_task(
            name,
            queue=None if task.queue.startswith("task/") else task.queue,
            limit=task.limit,
            retry={"max_attempts": task.max_attempts, "min_timeout_in_ms": 1_000, "factor": 2},
        )
        for name, task in _TASKS.items()
    ]
    scene = await make_scene(db, *tasks)
    await environments.set_concurrency_limit(db, scene.environment, _ENVIRONMENT_LIMIT)
    try:
        await Walk(scene, seed).go(steps)
        await check_consistency(db)
    except AssertionError as error:
        raise AssertionError(
            f"seed {seed}, {steps} steps ({SEED_VARIABLE}={seed} walks it again): {error}"
        ) from error


def seeds(number: int) -> list[int]:
    """The seeds of a test: the first ones, or those that the environment names."""
    first, _, count = os.environ.get(SEED_VARIABLE, f"0:{number}").partition(":")
    return list(range(int(first), int(first) + int(count or 1)))
