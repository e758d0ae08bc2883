"""The documented rules of runs as plain Python: what the engine is compared with, step by step.

Nothing here knows the engine, its tables or its SQL: only what the documentation promises of
queues, limits, priorities, delays, lifetimes, idempotency keys, attempts, waits, leases, pauses and
cancels. Whatever the engine is asked, the model is asked too, and both must say the same.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

HELD = frozenset(
    {
        "PENDING_EXECUTING",
        "EXECUTING",
        "EXECUTING_WITH_WAITPOINTS",
        "QUEUED_EXECUTING",
        "PENDING_CANCEL",
    }
)
BLOCKED = frozenset({"EXECUTING_WITH_WAITPOINTS", "QUEUED_EXECUTING"})
_KEEPS_ITS_KEY = frozenset({"COMPLETED", "CANCELED"})

Place = tuple[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a task says of itself: its queue, the limit of that, and how often it is tried."""

    queue: str
    limit: int | None
    max_attempts: int


@dataclass(kw_only=True)
class Wait:
    """Something that a run waits for: an instant, or the ends of runs."""

    run_ids: Sequence[str] = ()
    date: datetime | None = None
    has_come: bool = False


@dataclass(kw_only=True)
class ModelRun:
    """A run as its user and its worker see it."""

    id: str
    task: str
    place: Place
    order_at: datetime
    execution: str
    status: str
    max_attempts: int
    ttl: timedelta | None
    queued_at: datetime | None
    due_at: datetime | None = None
    attempt_number: int = 0
    handed_back: int = 0
    has_started: bool = False
    lease: int | None = None
    worker: str | None = None
    released: int = 0
    waits: dict[str, Wait] = field(default_factory=dict[str, Wait])

    @property
    def seen(self) -> tuple[str, str, int, int | None, int]:
        """What must be the same in the engine."""
        return (self.execution, self.status, self.attempt_number, self.lease, self.released)


class Model:
    """All runs of one environment, its queues and its workers."""

    def __init__(self, tasks: dict[str, Task], *, limit: int, lease: timedelta) -> None:
        """Nothing has been triggered yet."""
        self.tasks, self.limit, self.lease = tasks, limit, lease
        self.runs: dict[str, ModelRun] = {}
        self.keys: dict[tuple[str, str], tuple[str, datetime]] = {}
        self.leases: dict[str, datetime] = {}
        self.paused: set[str] = set()
        self.is_paused = False

    # What is asked from outside.

    def find_by_key(self, task: str, key: str | None, now: datetime) -> str | None:
        """The run that a trigger with this key gets; None when it gets a new one."""
        if key is None or (task, key) not in self.keys:
            return None
        run_id, expires_at = self.keys[task, key]
        run = self.runs[run_id]
        gave_it_up = run.execution == "FINISHED" and run.status not in _KEEPS_ITS_KEY
        return None if expires_at <= now or gave_it_up else run_id

    def trigger(
        self,
        run_id: str,
        task: str,
        *,
        now: datetime,
        concurrency_key: str | None = None,
        delay: timedelta | None = None,
        ttl: timedelta | None = None,
        priority: timedelta = timedelta(),
        key: str | None = None,
        key_ttl: timedelta,
    ) -> None:
        """A new run."""
        ready_at = now + (delay or timedelta())
        self.runs[run_id] = ModelRun(
            id=run_id,
            task=task,
            place=(self.tasks[task].queue, concurrency_key),
            order_at=ready_at - priority,
            execution="QUEUED" if delay is None else "DELAYED",
            status="QUEUED" if delay is None else "DELAYED",
            max_attempts=self.tasks[task].max_attempts,
            ttl=ttl,
            queued_at=now if delay is None else None,
            due_at=None if delay is None else ready_at,
        )
        if key is not None:
            self.keys[task, key] = (run_id, now + key_ttl)

    def cancel(self, run_id: str) -> None:
        """What no worker holds ends; what one holds ends when that says so."""
        run = self.runs[run_id]
        if run.execution in HELD:
            run.execution, run.status = "PENDING_CANCEL", "CANCELED"
        elif run.execution != "FINISHED":
            self.finish(run, "CANCELED")

    def connect(self, worker: str, now: datetime) -> None:
        """A worker is there, or renews its lease."""
        self.leases[worker] = now + self.lease

    def disconnect(self, worker: str, now: datetime) -> None:
        """A worker says goodbye: what it holds goes elsewhere."""
        self.leases[worker] = now
        self._take_back([worker])

    def check_dequeue(
        self, worker: str, given: Sequence[tuple[str, int]], most: int, now: datetime
    ) -> None:
        """Whether a worker may be given these runs, in a fair share; then it has them.

        One dequeue gives each queue and key an equal share of the room, and nothing beyond that to
        one that has more: the rest is for the next dequeue. So it may give less than there is room
        for, but never nothing.
        """
        room = self.room_for_dequeue(worker, most, now)
        offers = self.offers(room, now)
        taken: dict[Place, list[str]] = defaultdict(list)
        for run_id, _ in given:
            taken[self.runs[run_id].place].append(run_id)
        share = -(-room // max(1, len(offers)))
        for place, run_ids in taken.items():
            first = [run.id for run in offers.get(place, [])[: len(run_ids)]]
            assert sorted(run_ids) == sorted(first), f"{place} gave {run_ids}, not {first}"
            assert len(run_ids) <= share, f"{place} gave {len(run_ids)}, its share is {share}"
        least = min(room, len(offers))
        assert least <= len(given) <= room, f"{len(given)} given, not {least} to {room}"
        for run_id, lease in given:
            run = self.runs[run_id]
            run.execution, run.status = "PENDING_EXECUTING", "DEQUEUED"
            run.attempt_number += 1
            run.lease, run.worker = lease, worker

    def report(self, run_id: str, lease: int, word: str, now: datetime) -> bool:
        """What a worker says of a run that it holds; False for one that it holds no more."""
        run = self.runs[run_id]
        if run.lease != lease:
            return False
        if run.execution == "PENDING_EXECUTING" and word in ("start", "complete", "fail"):
            self._start(run)
        if run.execution == "PENDING_CANCEL":
            if word not in ("start", "lines"):
                self.finish(run, "CANCELED")
        elif word == "complete":
            self.finish(run, "COMPLETED")
        elif word == "fail":
            self.fail(run, now, "FAILED")
        elif word in ("hand_back", "canceled"):
            self.hand_back(run)
        return True

    def wait(
        self, run_id: str, lease: int, wait_id: str, wait: Wait, *, blocks: bool, now: datetime
    ) -> tuple[bool, bool, bool]:
        """A run begins to wait: whether it is lost, refused, blocked."""
        run = self.runs[run_id]
        if run.lease != lease:
            return True, False, False
        if run.execution == "PENDING_EXECUTING":
            self._start(run)
        if run.execution == "PENDING_CANCEL":
            return False, False, False
        if run_id in wait.run_ids:
            return False, True, False
        wait.has_come = wait.date is not None and wait.date <= now
        run.waits[wait_id] = wait
        if not blocks or any(self._is_complete(one) for one in run.waits.values()):
            return False, False, False
        run.execution, run.status = "EXECUTING_WITH_WAITPOINTS", "FROZEN"
        waits_here = any(
            self.runs[awaited].place == run.place and self.runs[awaited].execution != "FINISHED"
            for one in run.waits.values()
            for awaited in one.run_ids
        )
        run.released = 2 if waits_here else 1
        return False, False, True

    def results(self, worker: str) -> set[tuple[str, int, str]]:
        """The waits whose results a worker's runs may have now."""
        return {
            (run.id, run.lease, wait_id)
            for run in self.runs.values()
            if run.worker == worker and run.execution == "EXECUTING" and run.lease is not None
            for wait_id, wait in run.waits.items()
            if self._is_complete(wait)
        }

    def receive(self, run_id: str, wait_id: str) -> None:
        """A run has its result."""
        del self.runs[run_id].waits[wait_id]

    # What happens by itself.

    def pass_time(self, now: datetime) -> None:
        """Delays and backoffs end, lifetimes pass, leases run out."""
        for run in self.runs.values():
            if run.due_at is not None and run.due_at <= now:
                run.execution, run.due_at, run.queued_at = "QUEUED", None, now
                run.status = run.status if run.status == "REATTEMPTING" else "QUEUED"
        for run in self.runs.values():
            if run.execution == "QUEUED" and self._expires_at(run) <= now:
                self.finish(run, "EXPIRED")
        self._take_back([worker for worker, until in self.leases.items() if until <= now])

    def go_on(self, now: datetime) -> None:
        """Dates come, and runs whose waits are complete go on as far as there are slots."""
        for run in self.runs.values():
            for wait in run.waits.values():
                wait.has_come |= wait.date is not None and wait.date <= now
        ready = [
            run
            for run in self.runs.values()
            if run.execution in BLOCKED and any(map(self._is_complete, run.waits.values()))
        ]
        for run in sorted(ready, key=lambda run: (run.order_at, run.id)):
            has_room = self.running() < self.limit
            if has_room and (run.released < 2 or self._room_of(run.place) > 0):
                run.execution, run.status, run.released = "EXECUTING", "EXECUTING", 0
            else:
                run.execution = "QUEUED_EXECUTING"

    # What can be counted.

    def running(self, place: Place | None = None) -> int:
        """How many slots are in use, of the environment or of a queue and key."""
        least = 1 if place is None else 2
        return sum(
            run.lease is not None and run.released < least and place in (None, run.place)
            for run in self.runs.values()
        )

    def _room_of(self, place: Place) -> int:
        (limit,) = {task.limit for task in self.tasks.values() if task.queue == place[0]}
        return self.limit * 2 if limit is None else limit - self.running(place)

    def room_for_dequeue(self, worker: str, most: int, now: datetime) -> int:
        """How many runs a worker may be given by one dequeue."""
        if self.is_paused or self.leases[worker] <= now:
            return 0
        # Who goes on after a wait has the first claim on a slot.
        resuming = sum(run.execution == "QUEUED_EXECUTING" for run in self.runs.values())
        return max(0, min(most, self.limit - self.running() - resuming))

    def offers(self, room: int, now: datetime) -> dict[Place, list[ModelRun]]:
        """What each queue and key could give, the first of it first."""
        queued: dict[Place, list[ModelRun]] = defaultdict(list)
        for run in sorted(self.runs.values(), key=lambda run: (run.order_at, run.id)):
            is_alive = run.execution == "QUEUED" and self._expires_at(run) > now
            if is_alive and run.place[0] not in self.paused:
                queued[run.place].append(run)
        cut = {
            place: found[: max(0, min(room, self._room_of(place)))]
            for place, found in queued.items()
        }
        return {place: found for place, found in cut.items() if found}

    def _is_complete(self, wait: Wait) -> bool:
        if wait.date is not None:
            return wait.has_come
        return all(self.runs[run_id].execution == "FINISHED" for run_id in wait.run_ids)

    @staticmethod
    def _expires_at(run: ModelRun) -> datetime:
        if run.ttl is None or run.has_started or run.queued_at is None:
            return datetime.max.replace(tzinfo=run.order_at.tzinfo)
        return run.queued_at + run.ttl

    def _take_back(self, workers: Sequence[str]) -> None:
        for run in self.runs.values():
            if run.worker not in workers:
                continue
            if run.execution == "PENDING_EXECUTING":
                self.hand_back(run)
            elif run.execution == "PENDING_CANCEL":
                self.finish(run, "CANCELED")
            else:
                self.fail(run, None, "CRASHED")

    @staticmethod
    def _start(run: ModelRun) -> None:
        run.execution, run.status, run.has_started = "EXECUTING", "EXECUTING", True

    def fail(self, run: ModelRun, at: datetime | None, end: str) -> None:
        """Another attempt after one second, then two, ...; at once when the worker was lost."""
        counted = run.attempt_number - run.handed_back
        if counted >= run.max_attempts:
            self.finish(run, end)
            return
        self.release(run)
        run.status = "REATTEMPTING"
        run.execution = "QUEUED" if at is None else "WAITING_TO_RETRY"
        run.due_at = None if at is None else at + timedelta(seconds=2 ** (counted - 1))

    def hand_back(self, run: ModelRun) -> None:
        """Back to its old place, with no attempt counted."""
        if run.execution == "PENDING_EXECUTING":
            run.attempt_number -= 1
        else:
            run.handed_back += 1
        self.release(run)
        run.execution, run.status = "QUEUED", "QUEUED"

    def finish(self, run: ModelRun, status: str) -> None:
        """It has ended for good."""
        self.release(run)
        run.execution, run.status, run.due_at = "FINISHED", status, None

    def release(self, run: ModelRun) -> None:
        """No worker holds it any more."""
        run.lease, run.worker, run.released = None, None, 0
        run.waits.clear()
