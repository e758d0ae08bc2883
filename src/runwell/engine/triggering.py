"""New runs: where they go, and what an idempotency key makes of them.

What a trigger asks for is read by `trigger_options`; what belongs to a batch is in `batches`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Final

from runwell.core.errors import RequestError
from runwell.core.ids import RunId, make_run_ids
from runwell.engine import queues
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import NewRun, TriggerRequest, read_request

_sql = load_queries("triggering")

_NOT_COLUMNS = frozenset({"queue_limit", "sets_queue_limit"})
_QUEUE_COLUMNS: Final = ("task_id", "version", "queue_name", "default_queue_name")
_COLUMNS: Final = {
    field.name: attrgetter(field.name) for field in fields(NewRun) if field.name not in _NOT_COLUMNS
}


@dataclass(frozen=True, slots=True)
class Triggered:
    """The run of a trigger; `is_cached` when the idempotency key had it already."""

    run_id: RunId
    is_cached: bool


async def trigger_run(
    db: Database, environment: Environment, request: TriggerRequest, *, now: datetime
) -> Triggered:
    """Create a run, durable when this returns.

    One statement, unless a queue is new or its limit changes. Raises RequestError with a sentence
    for what can't be (422) or is malformed (400).
    """
    run = read_request(environment, request, now=now)
    if run.sets_queue_limit:
        async with db.transaction() as tx:
            await _set_queue_limits(tx, environment, [run], names_items=False, now=now)
    values = _values(environment, [run], now=now)
    rows = await db.fetch(_sql.insert_runs, **values)
    if rows[0]["missing"] is not None:
        async with db.transaction() as tx:
            await _create_missing(tx, environment, [run], rows, names_items=False, now=now)
        rows = await db.fetch(_sql.insert_runs, **values)
    return _triggered([run], rows)[0]


async def trigger_many(
    tx: Transaction,
    environment: Environment,
    requests: Sequence[TriggerRequest],
    *,
    batch_id: str | None = None,
    now: datetime,
) -> list[Triggered]:
    """Create runs, all or none, in the order given; they are there when `tx` commits.

    One statement, unless a queue is new or its limit changes. Two requests with one idempotency key
    for one task are one run. Raises RequestError as `trigger_run` does, with the place of the bad
    request as `items[3]`; `tx` is to be rolled back then. Who commits wakes the dequeuers.
    """
    run_ids = make_run_ids(len(requests), now)
    runs = [
        _read_item(environment, request, index, run_id, now=now)
        for index, (request, run_id) in enumerate(zip(requests, run_ids, strict=True))
    ]
    if not runs:
        return []
    await _set_queue_limits(tx, environment, runs, names_items=True, now=now)
    values = _values(environment, runs, batch_id=batch_id, now=now)
    rows = await tx.fetch(_sql.insert_runs, **values)
    if any(row["missing"] is not None for row in rows):
        await _create_missing(tx, environment, runs, rows, names_items=True, now=now)
        rows = await tx.fetch(_sql.insert_runs, **values)
    return _triggered(runs, rows)


def _read_item(
    environment: Environment,
    request: TriggerRequest,
    index: int,
    run_id: RunId,
    *,
    now: datetime,
) -> NewRun:
    try:
        return read_request(environment, request, now=now, run_id=run_id)
    except RequestError as error:
        raise RequestError(error.status, name_item(index, str(error))) from None


def name_item(index: int, message: str) -> str:
    """A message about one request of several, with its place."""
    between = "." if message.startswith("options.") else ": "
    return f"items[{index}]{between}{message}"


def _values(
    environment: Environment,
    runs: Sequence[NewRun],
    *,
    batch_id: str | None = None,
    now: datetime,
) -> dict[str, object]:
    return {
        **{name: [read(run) for run in runs] for name, read in _COLUMNS.items()},
        "environment_id": environment.id,
        "batch_id": batch_id,
        "trigger_function": "trigger" if batch_id is None else "batchTrigger",
        "now": now,
    }


def _triggered(runs: Sequence[NewRun], rows: Sequence[Row]) -> list[Triggered]:
    if any(row["missing"] is not None for row in rows):
        raise RuntimeError(f"a queue of task {runs[0].task_id} vanished while it was used")
    return [
        Triggered(row["run_id"], is_cached=row["run_id"] != run.run_id)
        for run, row in zip(runs, rows, strict=True)
    ]


async def _create_missing(
    tx: Transaction,
    environment: Environment,
    runs: Sequence[NewRun],
    rows: Sequence[Row],
    *,
    names_items: bool,
    now: datetime,
) -> None:
    """Make the queues that aren't there; raises RequestError for a version that isn't."""
    _check_versions(environment, runs, rows, names_items=names_items)
    wanted = {
        (row["queue_name"], run.concurrency_key or "")
        for run, row in zip(runs, rows, strict=True)
        if row["missing"] is not None
    }
    await queues.ensure_queues(tx, environment, sorted(wanted), now=now)


async def _set_queue_limits(
    tx: Transaction,
    environment: Environment,
    runs: Sequence[NewRun],
    *,
    names_items: bool,
    now: datetime,
) -> None:
    """Set the limits that triggers bring; the last one holds for a queue that is there twice."""
    if not any(run.sets_queue_limit for run in runs):
        return
    rows = await tx.fetch(
        _sql.find_wanted_queues,
        environment_id=environment.id,
        **{name: [_COLUMNS[name](run) for run in runs] for name in _QUEUE_COLUMNS},
    )
    _check_versions(environment, runs, rows, names_items=names_items)
    limits = {
        row["queue_name"]: run.queue_limit
        for run, row in zip(runs, rows, strict=True)
        if run.sets_queue_limit
    }
    for name, limit in sorted(limits.items()):
        await queues.set_limit(tx, environment, name=name, limit=limit, now=now)


def _check_versions(
    environment: Environment, runs: Sequence[NewRun], rows: Sequence[Row], *, names_items: bool
) -> None:
    for index, (run, row) in enumerate(zip(runs, rows, strict=True)):
        version = (run.version or "")[:64]
        match row["missing"]:
            case "VERSION":
                problem = f"there is no version {version} in the environment {environment.slug}"
            case "TASK":
                # Versions don't change: the run would wait for ever.
                problem = f"the version {version} has no task {run.task_id}"
            case _:
                continue
        message = f"options.lockToVersion: {problem}"
        raise RequestError(422, name_item(index, message) if names_items else message)
