"""The server of one test, and the worker in its process that runs what the server gives it.

Time stands on the clock of the test: only when nothing else can happen it is moved, to the next
instant at which something does.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from pathlib import Path

from runwell._version import __version__
from runwell.client.workers import WorkerClient
from runwell.core.errors import RunCanceled
from runwell.core.protocol import (
    CanceledReport,
    CompleteReport,
    ConnectBody,
    DequeueBody,
    DequeuedRun,
    FailReport,
    HeartbeatBody,
    HeldRun,
    LogsReport,
    MetadataReport,
    RegisterBody,
    ReportBody,
    RunReport,
    StartReport,
    WorkerMetadata,
)
from runwell.core.waits import ReceivedWait, ResumeBody, WaitBody, WaitOutcome
from runwell.engine import environments, packets, timers
from runwell.engine.background import list_loops
from runwell.engine.databases import copy_template, drop_copy
from runwell.engine.db import Database
from runwell.engine.notifications import Signals
from runwell.engine.object_store import ObjectStore
from runwell.engine.retention import Retention
from runwell.server.application import create_app
from runwell.server.backend import Backend
from runwell.server.object_stores import FileStoreSettings, open_object_store
from runwell.testing.attempts import Attempt
from runwell.testing.clock import SkippingClock
from runwell.testing.host import Host
from runwell.worker.hooks import Output, Stopped
from runwell.worker.messages import Surroundings
from runwell.worker.retrying import AttemptFailure

# What happens by itself in a server, as far as a test can see it.
_LOOPS = ("due_runs", "rate_limits", "expiry", "schedules", "dates", "waits", "cancels")
_OTHER_LOOPS = ("pending_triggers", "bulk_actions", "empty_subqueues")
# A run that executes may trigger others meanwhile.
_PATIENCE_SECONDS = 0.01
_MAX_RUNS = 100
# Longer than anything that a test skips: the worker is always there.
_LEASE_SECONDS = 200 * 366 * 86_400.0
_numbers = itertools.count(1)

#: Makes the attempt of a run; who comes by a boundary may die there.
MakeAttempt = Callable[[DequeuedRun, Surroundings, Callable[[], None]], Attempt]
Boundary = Callable[[Attempt, str], bool]


class World:
    """What `open_world` opens; all of it is called on the host's event loop."""

    def __init__(
        self,
        db: Database,
        signals: Signals,
        store: ObjectStore,
        clock: SkippingClock,
        client: WorkerClient,
        make_attempt: MakeAttempt,
    ) -> None:
        self.db = db
        self.clock = clock
        self._client = client
        self._make_attempt = make_attempt
        loops = list_loops(db, signals, store, clock, 60.0, Retention())
        self._ticks = [loop for loop in loops if loop.name in (*_LOOPS, *_OTHER_LOOPS)]
        self._attempts: dict[str, Attempt] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._versions: list[str] = []
        self._surroundings: Surroundings | None = None
        self._worker_id = ""
        #: Asked at each durable boundary of an attempt; true: the worker dies here.
        self.at_boundary: Boundary | None = None

    async def connect(self) -> None:
        """Connect as a worker; what a predecessor had goes back to its queue."""
        for attempt in self._attempts.values():
            attempt.forgotten.clear()
        self._attempts.clear()
        answer = await self._client.connect(
            ConnectBody(
                name="test",
                capacity=_MAX_RUNS,
                package_version=__version__,
                previous_worker_id=self._worker_id or None,
            )
        )
        self._worker_id = answer.worker_id
        self._surroundings = Surroundings(
            organization=answer.organization,
            project=answer.project,
            environment=answer.environment,
        )

    async def register(self, metadata: WorkerMetadata) -> None:
        """Register a version of the tasks: new runs are of it."""
        answer = await self._client.register("~", RegisterBody(local_only=False, metadata=metadata))
        self._versions = [*self._versions, answer.id][-_MAX_RUNS:]

    async def drive(
        self,
        is_done: Callable[[], Awaitable[bool]],
        *,
        until: datetime | None = None,
        may_skip: bool = True,
    ) -> bool:
        """Let everything happen in its order, until it is done; false when nothing more happens.

        `until` is the last instant to which time is moved; the ticks of schedules happen only then.
        """
        while True:
            # Before the turn: what a run has begun since is news for the next one.
            was_idle = all(attempt.is_idle for attempt in self._attempts.values())
            has_moved = await self._take_turn()
            if not was_idle:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _PATIENCE_SECONDS)
                continue
            if has_moved or await self._hear_of_canceled():
                continue
            if await is_done():
                return True
            if not may_skip or not await self._skip(until):
                return False

    async def _take_turn(self) -> bool:
        self._changed.clear()
        has_moved = False
        for loop in self._ticks:
            has_moved = bool(await loop.tick()) or has_moved
        has_moved = await self._dequeue() or has_moved
        has_moved = await self._tell() or has_moved
        return await self._resume() or has_moved

    async def _skip(self, until: datetime | None) -> bool:
        due_at = await timers.find_next_instant(self.db, has_schedules=until is not None)
        if until is not None and (due_at is None or due_at > until):
            self.clock.skip_to(until)
            return False
        if due_at is None:
            return False
        self.clock.skip_to(due_at)
        return True

    async def _dequeue(self) -> bool:
        body = DequeueBody(
            worker_id=self._worker_id,
            request_id=f"test-{next(_numbers)}",
            background_worker_ids=self._versions,
            max_runs=_MAX_RUNS,
        )
        runs = (await self._client.dequeue(body)).runs
        for run in runs:
            assert self._surroundings is not None
            attempt = self._make_attempt(run, self._surroundings, self._notify)
            self._attempts[run.run_id] = attempt
            await self._report([_start(attempt)])
            attempt.start()
        return bool(runs)

    async def _tell(self) -> bool:
        has_told = False
        for attempt in [*self._attempts.values()]:
            if self._attempts.get(attempt.run.run_id) is attempt:
                has_told = await self._tell_one(attempt) or has_told
        return has_told

    async def _tell_one(self, attempt: Attempt) -> bool:
        await self._flush(attempt)
        with attempt.lock:
            begun, attempt.begun = attempt.begun, []
            received, attempt.received = [*attempt.received, *attempt.forgotten], []
            attempt.forgotten = []
            is_blocked = attempt.is_idle and attempt.ended is None
            is_news = bool(begun) or (is_blocked and not attempt.is_blocked)
        if attempt.ended is not None:
            if await self._dies(attempt, "before its end is stored"):
                return True
            del self._attempts[attempt.run.run_id]
            await self._report([_end(attempt, self.clock.now())])
            return True
        if not is_news:
            attempt.received.extend(received)
            return False
        if begun and await self._dies(attempt, "before a wait is stored"):
            return True
        answer = await self._client.wait(
            WaitBody(
                worker_id=self._worker_id,
                run_id=attempt.run.run_id,
                snapshot_id=attempt.run.snapshot_id,
                started_at=attempt.started_at,
                waits=begun,
                is_blocked=is_blocked,
                received=received,
            )
        )
        if begun and await self._dies(attempt, "after a wait is stored"):
            return True
        with attempt.lock:
            attempt.is_blocked = is_blocked
        for refusal in answer.refused:
            attempt.give(WaitOutcome(wait_id=refusal.wait_id, error=refusal.error))
        return True

    async def _resume(self) -> bool:
        received = [
            ReceivedWait(
                run_id=attempt.run.run_id,
                snapshot_id=attempt.run.snapshot_id,
                wait_id=wait_id,
            )
            for attempt in self._attempts.values()
            for wait_id in attempt.received
        ]
        if not received and not any(attempt.pending for attempt in self._attempts.values()):
            return False
        answer = await self._client.resume(ResumeBody(worker_id=self._worker_id, received=received))
        has_given = False
        for wait in answer.waits:
            attempt = self._attempts.get(wait.run_id)
            if attempt is None or wait.wait_id not in attempt.pending:
                continue
            has_given = True
            if await self._dies(attempt, "when a wait is over"):
                return True
            attempt.give(WaitOutcome(wait_id=wait.wait_id, results=wait.results))
        return has_given

    async def _hear_of_canceled(self) -> bool:
        if not self._attempts:
            return False
        held = [
            HeldRun(run_id=attempt.run.run_id, snapshot_id=attempt.run.snapshot_id)
            for attempt in self._attempts.values()
        ]
        answer = await self._client.heartbeat(
            HeartbeatBody(
                worker_id=self._worker_id, runs=held, background_worker_ids=self._versions
            )
        )
        for run_id in answer.canceled:
            self._attempts[run_id].stop(RunCanceled("the run was canceled"))
        for run_id in answer.lost:
            del self._attempts[run_id]
        return bool(answer.canceled or answer.lost)

    async def _flush(self, attempt: Attempt) -> None:
        run_id, snapshot_id = attempt.run.run_id, attempt.run.snapshot_id
        with attempt.lock:
            metadata = attempt.metadata.take()
            lines, attempt.lines = attempt.lines, []
            spans, attempt.spans = attempt.spans, []
        reports: list[RunReport] = []
        if metadata is not None:
            reports.append(
                MetadataReport(run_id=run_id, snapshot_id=snapshot_id, metadata=metadata)
            )
        if lines or spans:
            reports.append(
                LogsReport(
                    run_id=run_id,
                    snapshot_id=snapshot_id,
                    attempt_number=attempt.run.attempt_number,
                    lines=lines,
                    spans=spans,
                )
            )
        if reports:
            await self._report(reports)

    async def _report(self, reports: list[RunReport]) -> None:
        await self._client.report(ReportBody(worker_id=self._worker_id, reports=reports))

    async def _dies(self, attempt: Attempt, where: str) -> bool:
        if self.at_boundary is None or not self.at_boundary(attempt, where):
            return False
        await self.connect()
        return True

    def _notify(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)


@contextlib.asynccontextmanager
async def open_world(
    host: Host, make_attempt: MakeAttempt, clock: SkippingClock
) -> AsyncGenerator[tuple[World, str]]:
    """A world on a database of its own, and the secret key of its production environment."""
    name = f"test_{next(_numbers)}"
    dsn = await copy_template(host.dsn, name)
    try:
        async with await Database.open(dsn, min_size=1, max_size=5) as db:
            signals = Signals(dsn)
            await signals.start()
            keys = await db.run(lambda tx: environments.create_first_project(tx, now=clock.now()))
            assert keys is not None
            async with db.connection() as tx:
                signing_key = await packets.read_signing_key(tx)
            store = open_object_store(
                FileStoreSettings(folder=Path(host.folder) / f"{name}-packets"),
                data_dir=host.folder,
                signing_key=signing_key,
            )
            backend = Backend(db, signals, store, clock=clock, lease_seconds=_LEASE_SECONDS)
            host.application = create_app(backend)
            client = WorkerClient(host.url, keys["prod"])
            world = World(db, signals, store, clock, client, make_attempt)
            try:
                await world.connect()
                yield world, keys["prod"]
            finally:
                host.application = None
                backend.polls.stop()
                await store.close()
                await signals.stop()
    finally:
        await drop_copy(host.dsn, name)


def _start(attempt: Attempt) -> RunReport:
    return StartReport(
        run_id=attempt.run.run_id,
        snapshot_id=attempt.run.snapshot_id,
        started_at=attempt.started_at,
    )


def _end(attempt: Attempt, now: datetime) -> RunReport:
    run_id, snapshot_id = attempt.run.run_id, attempt.run.snapshot_id
    duration_ms = round(attempt.active_seconds() * 1000)
    match attempt.ended:
        case Output(text):
            return CompleteReport(
                run_id=run_id,
                snapshot_id=snapshot_id,
                output=text,
                started_at=attempt.started_at,
                finished_at=now,
                duration_ms=duration_ms,
            )
        case AttemptFailure() as failure:
            return FailReport(
                run_id=run_id,
                snapshot_id=snapshot_id,
                error=failure.error,
                skip_retrying=failure.skip_retrying,
                retry_at=failure.retry_at,
                started_at=attempt.started_at,
                finished_at=now,
                duration_ms=duration_ms,
            )
        case Stopped() | None:
            return CanceledReport(run_id=run_id, snapshot_id=snapshot_id)
