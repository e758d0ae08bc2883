"""Supervisors: machines that run tasks, each with a lease that its heartbeat renews."""

from datetime import datetime, timedelta

from runwell.core.errors import RequestError
from runwell.core.ids import make_id
from runwell.core.protocol import (
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    ConnectAnswer,
    ConnectBody,
    EnvironmentContext,
    HeartbeatAnswer,
    HeartbeatBody,
    OrganizationContext,
    ProjectContext,
)
from runwell.core.statuses import ExecutionStatus
from runwell.engine import attempts
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("workers")

_MOST_LOST_RUNS = 200


async def connect(
    db: Database,
    environment: Environment,
    body: ConnectBody,
    *,
    now: datetime,
    lease_seconds: float = LEASE_SECONDS,
) -> ConnectAnswer:
    """Register a supervisor; what its predecessor held goes back to the queues at once."""
    worker_id = make_id("worker", now)

    async def act(tx: Transaction) -> None:
        await tx.execute(
            _sql.insert_worker,
            public_id=worker_id,
            environment_id=environment.id,
            name=body.name,
            region=body.region,
            capacity=body.capacity,
            package_version=body.package_version,
            lease_seconds=lease_seconds,
            now=now,
        )
        if body.region is not None:
            await tx.execute(_sql.declare_region, environment_id=environment.id, region=body.region)
        if body.previous_worker_id is not None:
            await _end(tx, environment, body.previous_worker_id, now=now)

    await db.run(act)
    return ConnectAnswer(
        worker_id=worker_id,
        organization=OrganizationContext(
            id=environment.organization.public_id,
            slug=environment.organization.slug,
            name=environment.organization.name,
        ),
        project=ProjectContext(
            id=environment.project.public_id,
            ref=environment.project.ref,
            slug=environment.project.slug,
            name=environment.project.name,
        ),
        environment=EnvironmentContext(
            id=environment.public_id, slug=environment.slug, type=environment.type
        ),
        heartbeat_seconds=min(HEARTBEAT_SECONDS, lease_seconds / 3),
        lease_seconds=lease_seconds,
    )


async def heartbeat(
    db: Database, environment: Environment, body: HeartbeatBody, *, now: datetime
) -> HeartbeatAnswer:
    """Renew a supervisor's lease, and compare what it holds with what it should.

    A run that it should hold and does not know, because the answer that gave it was lost, goes
    elsewhere after a lease's time. Raises RequestError 409 for an unknown worker: it must connect.
    """
    async with db.transaction() as tx:
        worker = await tx.fetch_one(
            _sql.renew_lease,
            worker_id=body.worker_id,
            environment_id=environment.id,
            background_worker_ids=body.background_worker_ids,
            now=now,
        )
        if worker is None:
            raise RequestError(
                409,
                f"there is no worker {body.worker_id} in this environment: connect again",
            )
        rows = await tx.fetch(_sql.list_held_runs, worker_id=worker["id"])
    held = {row["id"]: row for row in rows}
    named = {run.run_id: run.snapshot_id for run in body.runs}
    lost = [
        run_id
        for run_id, lease_id in named.items()
        if run_id not in held or held[run_id]["lease_id"] != lease_id
    ]
    canceled = [
        run_id
        for run_id in named
        if run_id not in lost and held[run_id]["execution_status"] == ExecutionStatus.PENDING_CANCEL
    ]
    unknown_since = now - timedelta(seconds=worker["lease_seconds"])
    unknown = {
        run_id: row["lease_id"]
        for run_id, row in held.items()
        if run_id not in named and row["event_at"] < unknown_since
    }
    if unknown:
        reason = "the worker doesn't know the run"
        await db.run(lambda tx: attempts.take_back(tx, unknown, reason=reason, now=now))
    return HeartbeatAnswer(canceled=canceled, lost=lost)


async def disconnect(
    db: Database, environment: Environment, worker_id: str, *, now: datetime
) -> None:
    """End a supervisor's lease: what it still holds goes elsewhere at once."""
    await db.run(lambda tx: _end(tx, environment, worker_id, now=now))


async def take_lost_runs(db: Database, *, now: datetime) -> set[int]:
    """Take back runs whose worker's lease has ended, some at a time.

    Returns the environments that may have something to dequeue now; none when nothing was lost.
    """
    reason = "the worker was lost: nothing was heard from it until its lease ended"

    async def act(tx: Transaction) -> set[int]:
        rows = await tx.fetch(_sql.list_lost_runs, now=now, most=_MOST_LOST_RUNS)
        leases = {row["id"]: row["lease_id"] for row in rows}
        return await attempts.take_back(tx, leases, reason=reason, now=now) if leases else set()

    return await db.run(act)


async def delete_old_workers(db: Database, *, now: datetime) -> None:
    """Forget workers that were gone a day ago."""
    async with db.connection() as tx:
        await tx.execute(_sql.delete_old_workers, now=now)


async def _end(tx: Transaction, environment: Environment, worker_id: str, *, now: datetime) -> None:
    ended = await tx.fetch_value(
        _sql.end_lease, worker_id=worker_id, environment_id=environment.id, now=now
    )
    if ended is not None:
        rows = await tx.fetch(_sql.list_held_runs, worker_id=ended)
        leases = {row["id"]: row["lease_id"] for row in rows}
        await attempts.take_back(tx, leases, reason="the worker disconnected", now=now)
