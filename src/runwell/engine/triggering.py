"""New runs: where they go, and what an idempotency key makes of them.

What a trigger asks for is read by `trigger_options`; what belongs to a batch is in `batches`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Final

from runwell.core.errors import RequestError
from runwell.core.ids import RunId, make_run_ids
from runwell.engine import queues
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.debouncing import push_run
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import NewRun, TriggerRequest, read_request

_sql = load_queries("triggering")

# Runs by their places in a batch; a run that is triggered by itself has the place None.
_Items = Mapping[int | None, NewRun]

_NOT_COLUMNS = frozenset(
    {
        "queue_limit",
        "sets_queue_limit",
        "debounce",
        "request_key",
        "joined_batch_id",
        "bulk_action_id",
    }
)
#: In the order of the type new_run.
COLUMNS: Final = tuple(field.name for field in fields(NewRun) if field.name not in _NOT_COLUMNS)
_read_columns = attrgetter(*COLUMNS)
_QUEUE_COLUMNS: Final = ("task_id", "version", "queue_name", "default_queue_name")


@dataclass(frozen=True, slots=True)
class Triggered:
    """The run of a trigger; `is_cached` when it was there: its key had it, or it was pushed."""

    run_id: RunId
    is_cached: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedTrigger:
    """A trigger that names its run, and when it was asked for: a delay counts from there."""

    request: TriggerRequest
    asked_at: datetime


async def trigger_run(
    db: Database, environment: Environment, request: TriggerRequest, *, now: datetime
) -> Triggered:
    """Create a run, durable when this returns.

    One statement, unless it is debounced, its queue is new or the limit of that changes, its
    request key is no recent UUID version 7, or it joins something. Raises RequestError with a
    sentence for what can't be (422) or is malformed (400).
    """
    run = read_request(environment, request, now=now)
    if _is_plain(run):
        rows = await db.fetch(_sql.insert_runs, **_values(environment, [run], now=now))
        if rows[0]["missing"] is None:
            return _triggered(run, rows[0])

    return await db.run(lambda tx: _create(tx, environment, run, now=now))


async def create_run(
    tx: Transaction, environment: Environment, request: TriggerRequest, *, now: datetime
) -> Triggered:
    """Do as `trigger_run`, within a transaction, which is to be rolled back after an error."""
    return await _create(tx, environment, read_request(environment, request, now=now), now=now)


async def _create(
    tx: Transaction, environment: Environment, run: NewRun, *, now: datetime
) -> Triggered:
    if run.request_key is not None:
        run_id = await tx.fetch_value(
            _sql.name_request,
            environment_id=environment.id,
            request_key=run.request_key,
            run_id=run.run_id,
            now=now,
        )
        run = replace(run, run_id=run_id)
    batch_id = run.joined_batch_id
    (triggered,) = await _trigger(tx, environment, {None: run}, batch_id=batch_id, now=now)
    if batch_id is not None:
        await _join_batch(tx, environment, batch_id, triggered)
    return triggered


def _is_plain(run: NewRun) -> bool:
    return (
        run.debounce is None
        and run.request_key is None
        and run.joined_batch_id is None
        and run.bulk_action_id is None
        and not run.sets_queue_limit
    )


async def trigger_many(
    tx: Transaction,
    environment: Environment,
    requests: Sequence[TriggerRequest],
    *,
    batch_id: str | None = None,
    now: datetime,
) -> list[Triggered]:
    """Create runs, all or none, in the order given; they are there when `tx` commits.

    One statement, unless some are debounced, a queue is new or its limit changes. Two requests with
    one idempotency key for one task are one run. Raises RequestError as `trigger_run` does, with
    the place of the bad request as `items[3]`; `tx` is to be rolled back then. Who commits wakes
    the dequeuers.
    """
    run_ids = make_run_ids(len(requests), now)
    runs: dict[int | None, NewRun] = {
        index: _read_item(environment, request, index, run_id, now=now)
        for index, (request, run_id) in enumerate(zip(requests, run_ids, strict=True))
    }
    return await _trigger(tx, environment, runs, batch_id=batch_id, now=now)


async def trigger_asked(
    tx: Transaction,
    environment: Environment,
    asked: Sequence[AskedTrigger],
    *,
    batch_id: str | None = None,
    now: datetime,
) -> list[Triggered]:
    """Do as `trigger_many`, with what was asked for earlier.

    Outside of a batch each has its run, also when its key was reset meanwhile and used again.
    """
    runs: dict[int | None, NewRun] = {
        index: _read_item(environment, item.request, index, None, now=item.asked_at)
        for index, item in enumerate(asked)
    }
    made = await _trigger(tx, environment, runs, batch_id=batch_id, now=now)
    if batch_id is None and any(item.is_cached for item in made):
        late: dict[int | None, NewRun] = {
            index: replace(run, idempotency_key=None)
            for (index, run), item in zip(runs.items(), made, strict=True)
            if item.is_cached
        }
        await _trigger(tx, environment, late, now=now)
        made = [Triggered(run.run_id, is_cached=False) for run in runs.values()]
    return made


async def _trigger(
    tx: Transaction,
    environment: Environment,
    runs: _Items,
    *,
    batch_id: str | None = None,
    now: datetime,
) -> list[Triggered]:
    await _set_queue_limits(tx, environment, runs, now=now)
    plain = {index: run for index, run in runs.items() if run.debounce is None}
    made = await _insert(tx, environment, plain, batch_id=batch_id, now=now)
    # In one order of keys everywhere, so that two transactions don't wait for each other.
    for index, run, debounce in sorted(
        ((index, run, run.debounce) for index, run in runs.items() if run.debounce is not None),
        key=lambda found: (found[1].task_id, found[2].key, found[0] or 0),
    ):
        pushed = await push_run(tx, environment, run, debounce, now=now)
        if pushed is None:
            made |= await _insert(tx, environment, {index: run}, batch_id=batch_id, now=now)
        else:
            made[index] = Triggered(pushed, is_cached=pushed != run.run_id)
    for index, run in runs.items():
        if run.bulk_action_id is not None:
            await _join_bulk_action(tx, environment, index, run.bulk_action_id, made[index])
    return [made[index] for index in runs]


async def _join_batch(
    tx: Transaction, environment: Environment, batch_id: str, triggered: Triggered
) -> None:
    found = await tx.fetch_value(
        _sql.join_batch,
        environment_id=environment.id,
        batch_id=batch_id,
        run_id=triggered.run_id,
        is_cached=triggered.is_cached,
    )
    if found is None:
        raise RequestError(
            422,
            f"options.parentBatch: there is no batch {batch_id[:64]} in the environment "
            f"{environment.slug}, or its items are still coming in",
        )


async def _join_bulk_action(
    tx: Transaction,
    environment: Environment,
    index: int | None,
    bulk_action_id: str,
    triggered: Triggered,
) -> None:
    found = await tx.fetch_value(
        _sql.join_bulk_action,
        environment_id=environment.id,
        bulk_action_id=bulk_action_id,
        run_id=triggered.run_id,
    )
    if found is None:
        problem = (
            f"options.bulkActionId: there is no bulk action {bulk_action_id[:64]} in the "
            f"environment {environment.slug}"
        )
        raise RequestError(422, problem if index is None else name_item(index, problem))


async def _insert(
    tx: Transaction,
    environment: Environment,
    items: _Items,
    *,
    batch_id: str | None,
    now: datetime,
) -> dict[int | None, Triggered]:
    """Insert runs and make the queues that aren't there."""
    if not items:
        return {}
    runs = list(items.values())
    values = _values(environment, runs, batch_id=batch_id, now=now)
    rows = await tx.fetch(_sql.insert_runs, **values)
    if any(row["missing"] is not None for row in rows):
        _check_missing(environment, items, rows)
        wanted = {
            (row["queue_name"], run.concurrency_key or "")
            for run, row in zip(runs, rows, strict=True)
            if row["missing"] is not None
        }
        await queues.ensure_queues(tx, environment, sorted(wanted), now=now)
        rows = await tx.fetch(_sql.insert_runs, **values)
    return {
        index: _triggered(run, row) for (index, run), row in zip(items.items(), rows, strict=True)
    }


def _read_item(
    environment: Environment,
    request: TriggerRequest,
    index: int,
    run_id: RunId | None,
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
        "runs": [_read_columns(run) for run in runs],
        "environment_id": environment.id,
        "batch_id": batch_id,
        "trigger_function": "trigger" if batch_id is None else "batchTrigger",
        "now": now,
    }


def _triggered(run: NewRun, row: Row) -> Triggered:
    if row["missing"] is not None:
        raise RuntimeError(f"the queue of task {run.task_id} vanished while it was used")
    return Triggered(row["run_id"], is_cached=row["run_id"] != run.run_id)


async def _set_queue_limits(
    tx: Transaction, environment: Environment, items: _Items, *, now: datetime
) -> None:
    """Set the limits that triggers bring; the last one holds for a queue that is there twice."""
    runs = list(items.values())
    if not any(run.sets_queue_limit for run in runs):
        return
    rows = await tx.fetch(
        _sql.find_wanted_queues,
        environment_id=environment.id,
        **{name: [getattr(run, name) for run in runs] for name in _QUEUE_COLUMNS},
    )
    _check_missing(environment, items, rows)
    limits = {
        row["queue_name"]: run.queue_limit
        for run, row in zip(runs, rows, strict=True)
        if run.sets_queue_limit
    }
    for name, limit in sorted(limits.items()):
        await queues.set_limit(tx, environment, name=name, limit=limit, now=now)


def _check_missing(environment: Environment, items: _Items, rows: Sequence[Row]) -> None:
    for (index, run), row in zip(items.items(), rows, strict=True):
        version = (run.version or "")[:64]
        match row["missing"]:
            case "VERSION":
                message = (
                    f"options.lockToVersion: there is no version {version} in the environment "
                    f"{environment.slug}"
                )
            case "TASK":
                # Versions don't change: the run would wait for ever.
                message = f"options.lockToVersion: the version {version} has no task {run.task_id}"
            case "PARENT":
                message = (
                    f"options.parentRunId: the run {(run.parent_run_id or '')[:64]} can't wait for "
                    f"this one: it isn't in the environment {environment.slug}, or has ended"
                )
            case _:
                continue
        raise RequestError(422, message if index is None else name_item(index, message))
