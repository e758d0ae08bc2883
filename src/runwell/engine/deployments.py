"""Background workers: the indexed versions of a project's tasks."""

import json
from datetime import datetime

from runwell.core.errors import RequestError
from runwell.core.ids import make_id
from runwell.core.protocol import (
    QueueManifest,
    RegisterAnswer,
    RegisterBody,
    TaskManifest,
    task_queue_name,
)
from runwell.core.timing import parse_duration
from runwell.engine import queues, rate_limits, schedules
from runwell.engine.db import Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import MAX_DURATION_SECONDS

_sql = load_queries("deployments")

_RELEASED_AT_ONCE = 500


async def register(
    tx: Transaction, environment: Environment, body: RegisterBody, *, now: datetime
) -> RegisterAnswer:
    """Store a version and make it current; content that is there already keeps its version.

    Raises RequestError 422 for a task id that is there twice.
    """
    metadata = body.metadata
    ids = [task.id for task in metadata.tasks]
    twice = sorted({task_id for task_id in ids if ids.count(task_id) > 1})
    if twice:
        raise RequestError(422, f"task ids must be unique: {', '.join(twice)} are there twice")
    await tx.execute(_sql.lock_environment, environment_id=environment.id)
    row = await tx.fetch_one(
        _sql.find_version_by_hash,
        environment_id=environment.id,
        content_hash=metadata.content_hash,
    )
    if row is not None:
        background_worker_id, public_id, version = row["id"], row["public_id"], row["version"]
    else:
        public_id = make_id("worker", now)
        row = await tx.fetch_one(
            _sql.insert_version,
            public_id=public_id,
            environment_id=environment.id,
            version_day=now.date(),
            content_hash=metadata.content_hash,
            package_version=metadata.package_version,
            now=now,
        )
        if row is None:
            raise RuntimeError("the insert of a version returned nothing")
        background_worker_id, version = row["id"], row["version"]
        tasks = [_task_row(task) for task in metadata.tasks]
        await tx.execute(
            _sql.insert_tasks,
            background_worker_id=background_worker_id,
            tasks=json.dumps(tasks),
        )
    await schedules.sync_declared(tx, environment, background_worker_id, now=now)
    await _sync_queues(tx, environment, body, now=now)
    await tx.execute(
        _sql.make_version_current,
        environment_id=environment.id,
        background_worker_id=background_worker_id,
    )
    # The first of them at once; a loop does the rest.
    await release_waiting_runs(tx, environment.id, now=now)
    return RegisterAnswer(id=public_id, version=version, content_hash=metadata.content_hash)


async def release_waiting_runs(tx: Transaction, environment_id: int, *, now: datetime) -> int:
    """Queue runs that waited for the current version's tasks; returns how many, 500 at most."""
    tasks = await tx.fetch(_sql.find_tasks_waited_for, environment_id=environment_id)
    if not tasks:
        return 0
    rows = await tx.fetch(
        _sql.find_runs_waiting_for_tasks,
        environment_id=environment_id,
        task_ids=[row["task_id"] for row in tasks],
        most=_RELEASED_AT_ONCE,
    )
    await queues.enqueue_runs(tx, [row["id"] for row in rows], pin_versions=False, now=now)
    return len(rows)


async def list_environments_with_waiting_runs(tx: Transaction) -> list[int]:
    """Environments in which any run waits for a version."""
    rows = await tx.fetch(_sql.list_environments_with_waiting_runs)
    return [row["environment_id"] for row in rows]


async def _sync_queues(
    tx: Transaction, environment: Environment, body: RegisterBody, *, now: datetime
) -> None:
    defined = [
        task.queue or QueueManifest(name=task_queue_name(task.id)) for task in body.metadata.tasks
    ]
    by_name = {queue.name: queue for queue in (*defined, *body.metadata.queues)}
    for name, queue in sorted(by_name.items()):
        limit = queue.concurrency_limit
        await queues.ensure_queue(
            tx, environment, name=name, concurrency_key="", now=now, concurrency_limit=limit
        )
        await queues.set_limit(tx, environment, name=name, limit=limit, now=now)
        await rate_limits.set_rate_limits(tx, environment, name=name, limits=queue.rate_limits)


def _task_row(task: TaskManifest) -> dict[str, object]:
    return {
        "task_id": task.id,
        "description": task.description,
        "file_path": task.file_path,
        "export_name": task.export_name,
        "queue_name": task.queue.name if task.queue else task_queue_name(task.id),
        "retry": task.retry.model_dump(by_alias=True),
        "machine": task.machine.preset,
        "max_duration": task.max_duration,
        "ttl_seconds": _ttl_seconds(task),
        "keep_process": task.keep_process,
        "payload_schema": task.payload_schema,
        **_schedule_columns(task),
    }


def _schedule_columns(task: TaskManifest) -> dict[str, object]:
    if task.schedule is None:
        return {"is_scheduled": task.trigger_source == "schedule", "schedule": None}
    # One that can't be is refused here, with the task that declares it.
    schedules.declared_rule(task.id, task.schedule)
    return {
        "is_scheduled": True,
        "schedule": task.schedule.model_dump(mode="json", by_alias=True),
    }


def _ttl_seconds(task: TaskManifest) -> int | None:
    if task.ttl is None:
        return None
    try:
        seconds = round(parse_duration(task.ttl).total_seconds())
    except ValueError as error:
        raise RequestError(422, f"the ttl of task {task.id}: {error}") from None
    return min(seconds, MAX_DURATION_SECONDS)
