"""The engine's records for tests: an environment with tasks, runs in it, workers that take them.

A `Scene` is one environment at an instant that only the test moves. Everything goes through the
engine's own functions; `read` and `check_consistency` look at the tables behind them. What workers
report is made by `reports.py`, and can be imported from here too.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from runwell.core.payloads import Json, encode_json
from runwell.core.protocol import (
    LEASE_SECONDS,
    ConnectBody,
    DequeueBody,
    DequeuedRun,
    HeartbeatAnswer,
    HeartbeatBody,
    HeldRun,
    QueueManifest,
    RegisterAnswer,
    RegisterBody,
    ReportBody,
    RunReport,
    TaskManifest,
    WorkerMetadata,
)
from runwell.core.schemas import TriggerBody, TriggerOptions
from runwell.core.timing import RetryOptions
from runwell.core.waits import (
    CompletedWait,
    DateWait,
    ReceivedWait,
    ResumeBody,
    RunsWait,
    TokenWait,
    WaitAnswer,
    WaitBody,
)
from runwell.engine import (
    attempts,
    canceling,
    deployments,
    environments,
    queues,
    runs,
    triggering,
    waiting,
    waitpoints,
    workers,
)
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import parse_queries
from runwell.engine.trigger_options import TriggerRequest
from tests.support.instants import NOW as NOW
from tests.support.invariants import BROKEN
from tests.support.reports import ERROR as ERROR
from tests.support.reports import canceled as canceled
from tests.support.reports import complete as complete
from tests.support.reports import fail as fail
from tests.support.reports import hand_back as hand_back
from tests.support.reports import start as start
from tests.support.reports import write_lines as write_lines
from tests.support.waiting import wait_until

_numbers = count(1)


def make_task(
    task_id: str = "add",
    *,
    queue: str | None = None,
    limit: int | None = None,
    retry: Mapping[str, Any] | None = None,
    **fields: Any,
) -> TaskManifest:
    """A task as indexing finds it; its retries come after exactly one second, then two, ..."""
    plain: dict[str, Any] = {"randomize": False, **(retry or {})}
    return TaskManifest(
        id=task_id,
        file_path="trigger/tasks.py",
        export_name="run",
        queue=None if queue is None else QueueManifest(name=queue, concurrency_limit=limit),
        retry=RetryOptions(**plain),
        **fields,
    )


def an_item(task_id: str = "add", payload: str = "1", **options: Any) -> TriggerRequest:
    """An item; options are written as on the wire."""
    read_options = TriggerOptions.model_validate_json(encode_json(options))
    return TriggerRequest(task_id=task_id, body=TriggerBody(payload=payload, options=read_options))


@dataclass(kw_only=True)
class Scene:
    """An environment, its current version, and the time there."""

    db: Database
    environment: Environment
    now: datetime = NOW
    versions: list[RegisterAnswer] = field(default_factory=list[RegisterAnswer])

    def later(self, seconds: float) -> datetime:
        """Let time pass, and return the new instant."""
        self.now += timedelta(seconds=seconds)
        return self.now

    async def register(
        self, *tasks: TaskManifest, queues: Sequence[QueueManifest] = (), content: str | None = None
    ) -> RegisterAnswer:
        """A new current version with these tasks."""
        body = RegisterBody(
            metadata=WorkerMetadata(
                package_version="1.0.0",
                content_hash=content or f"content-{next(_numbers)}",
                tasks=list(tasks),
                queues=list(queues),
            )
        )
        answer = await self.db.run(
            lambda tx: deployments.register(tx, self.environment, body, now=self.now)
        )
        self.versions.append(answer)
        return answer

    async def trigger(
        self,
        task_id: str = "add",
        payload: Json = "1",
        *,
        request_key: str | None = None,
        db: Database | None = None,
        **options: Any,
    ) -> triggering.Triggered:
        """Trigger a run; options are written as on the wire."""
        request = TriggerRequest(
            task_id=task_id,
            body=TriggerBody(
                payload=payload, options=TriggerOptions.model_validate_json(encode_json(options))
            ),
            request_key=request_key,
        )
        return await triggering.trigger_run(db or self.db, self.environment, request, now=self.now)

    async def trigger_many(self, number: int, task_id: str = "add", **options: Any) -> list[str]:
        """Trigger runs one after the other, a millisecond apart."""
        ids: list[str] = []
        for _ in range(number):
            ids.append((await self.trigger(task_id, **options)).run_id)
            self.later(0.001)
        return ids

    async def connect(
        self, name: str = "machine", *, previous: str | None = None, db: Database | None = None
    ) -> "Supervisor":
        """A worker that runs all versions there are now."""
        body = ConnectBody(
            name=name, capacity=100, package_version="1.0.0", previous_worker_id=previous
        )
        answer = await workers.connect(db or self.db, self.environment, body, now=self.now)
        versions = [version.id for version in self.versions]
        return Supervisor(scene=self, db=db or self.db, id=answer.worker_id, versions=versions)

    async def get(self, run_id: str) -> runs.Run:
        """A run as the API reads it."""
        async with self.db.connection() as tx:
            return await runs.get_run(tx, self.environment, run_id)

    async def cancel(self, run_id: str, *, db: Database | None = None) -> canceling.Canceled:
        """Cancel a run."""
        return await canceling.cancel_run(db or self.db, self.environment, run_id, now=self.now)

    async def read_status(self, run_id: str) -> str:
        """Execution status and run status, like `QUEUED/REATTEMPTING`."""
        rows = await read(
            self.db, "SELECT execution_status, status FROM runs WHERE id = :id", id=run_id
        )
        return "/".join(rows[0])

    async def read_events(self, run_id: str) -> list[str]:
        """What happened to a run, from its snapshots."""
        rows = await read(
            self.db, "SELECT event FROM run_snapshots WHERE run_id = :id ORDER BY id", id=run_id
        )
        return [row["event"] for row in rows]

    async def lose_workers(self) -> set[int]:
        """Let all leases end, and take back what was held under them."""
        self.later(LEASE_SECONDS + 1)
        return await workers.take_lost_runs(self.db, now=self.now)


@dataclass(kw_only=True)
class Supervisor:
    """A connected worker."""

    scene: Scene
    db: Database
    id: str
    versions: list[str]

    async def dequeue(
        self, max_runs: int = 10, *, request_id: str | None = None, db: Database | None = None
    ) -> list[DequeuedRun]:
        """Take runs."""
        body = DequeueBody(
            worker_id=self.id,
            request_id=request_id or f"request-{next(_numbers)}",
            background_worker_ids=self.versions,
            max_runs=max_runs,
        )
        return await queues.dequeue_runs(
            db or self.db, self.scene.environment, body, now=self.scene.now
        )

    async def dequeue_one(self) -> DequeuedRun:
        """Take the one run that there must be."""
        (run,) = await self.dequeue(1)
        return run

    async def start_one(self) -> DequeuedRun:
        """Take the one run that there must be, and start it."""
        run = await self.dequeue_one()
        assert await self.report(start(run, self.scene.now)) == ["accepted"]
        return run

    async def report(self, *reports: RunReport, db: Database | None = None) -> list[str]:
        """Report, and return the word for each report."""
        body = ReportBody(worker_id=self.id, reports=list(reports))
        applied = await attempts.apply_reports(
            db or self.db, self.scene.environment, body, now=self.scene.now
        )
        return list(applied.results)

    async def heartbeat(self, *held: DequeuedRun, db: Database | None = None) -> HeartbeatAnswer:
        """Say which runs are held."""
        body = HeartbeatBody(
            worker_id=self.id,
            runs=[HeldRun(run_id=run.run_id, snapshot_id=run.snapshot_id) for run in held],
        )
        return await workers.heartbeat(
            db or self.db, self.scene.environment, body, now=self.scene.now
        )

    async def wait(
        self,
        run: DequeuedRun,
        *waits: RunsWait | DateWait | TokenWait,
        is_blocked: bool = True,
        received: Sequence[str] = (),
        db: Database | None = None,
    ) -> WaitAnswer:
        """A run begins these waits, and can do nothing else unless said otherwise."""
        body = WaitBody(
            worker_id=self.id,
            run_id=run.run_id,
            snapshot_id=run.snapshot_id,
            started_at=self.scene.now,
            waits=list(waits),
            is_blocked=is_blocked,
            received=list(received),
        )
        return await waiting.begin_waits(
            db or self.db, self.scene.environment, body, now=self.scene.now
        )

    async def resume(self, *received: CompletedWait) -> list[CompletedWait]:
        """The results there are now, after saying which ones were received."""
        body = ResumeBody(
            worker_id=self.id,
            received=[
                ReceivedWait(run_id=wait.run_id, snapshot_id=wait.snapshot_id, wait_id=wait.wait_id)
                for wait in received
            ],
        )
        return await waitpoints.list_results(self.db, self.scene.environment, body)

    async def disconnect(self) -> None:
        """End."""
        await workers.disconnect(self.db, self.scene.environment, self.id, now=self.scene.now)


async def make_scene(
    db: Database, *tasks: TaskManifest, slug: str = "prod", now: datetime = NOW
) -> Scene:
    """An environment of the database's project, with a version of these tasks if any."""
    await db.run(lambda tx: environments.create_first_project(tx, now=now))
    async with db.connection() as tx:
        keys = await environments.list_local_keys(tx, now=now)
        environment = await environments.find_by_secret_key(tx, keys[slug], now=now)
    assert environment is not None
    scene = Scene(db=db, environment=environment, now=now)
    if tasks:
        await scene.register(*tasks)
    return scene


class OneTransaction(Database):
    """All that is done through it happens in one open transaction, which ends when a test wants."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Transaction]:
        yield self._tx

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        yield self._tx


@contextlib.asynccontextmanager
async def one_transaction(db: Database) -> AsyncGenerator[OneTransaction]:
    """A database whose work commits at the end of the block."""
    async with db.transaction() as tx:
        yield OneTransaction(tx)


async def read(db: Database, text: str, **values: Any) -> list[Row]:
    """The rows of a statement with `:name` parameters."""
    (query,) = parse_queries(f"-- name: read\n{text}")
    async with db.connection() as tx:
        return await tx.fetch(query, **values)


async def wait_until_blocked(db: Database, number: int = 1) -> None:
    """Wait until so many statements of this database wait for a lock."""

    async def are_blocked() -> bool:
        rows = await read(
            db,
            "SELECT count(*) AS number FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        return rows[0]["number"] >= number

    await wait_until(are_blocked, f"{number} statements wait for a lock")


async def check_consistency(db: Database) -> None:
    """Fail when the tables disagree with each other."""
    for problem, query in BROKEN.items():
        rows = await read(db, query)
        assert not rows, f"{problem}: {[dict(row) for row in rows[:5]]}"


async def check_all_at_rest(db: Database) -> None:
    """Fail when anything is held or waits, or when the tables disagree."""
    await check_consistency(db)
    for table, column in (("environment_concurrency", "running"), ("subqueues", "running")):
        rows = await read(db, f"SELECT sum({column}) AS held FROM {table}")
        assert not rows[0]["held"]
    rows = await read(db, "SELECT id, execution_status FROM runs WHERE status NOT IN ("
        "'COMPLETED', 'CANCELED', 'FAILED', 'CRASHED', 'INTERRUPTED', 'SYSTEM_FAILURE', 'EXPIRED',"
        "'TIMED_OUT')")  # fmt: skip
    assert not rows
