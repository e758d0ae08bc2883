"""The tasks of an environment as its current version has them, with what they did lately."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runwell.engine.db import Row, Transaction, allow_any_plan
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("tasks")


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """A task of the current version."""

    id: str
    description: str | None
    file_path: str
    export_name: str
    queue: str
    machine: str
    is_scheduled: bool
    payload_schema: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What runs of a task did in one interval, by when they were triggered."""

    task_id: str
    begins_at: datetime
    total: int
    failed: int
    running: int
    queue_ms: float | None
    duration_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a project's tasks."""

    id: str
    version: str
    created_at: datetime
    is_current: bool
    task_count: int


async def list_tasks(tx: Transaction, environment: Environment) -> list[TaskSummary]:
    """The tasks of the current version by their ids; none before the first version."""
    rows = await tx.fetch(_sql.list_tasks, environment_id=environment.id)
    return [_task(row) for row in rows]


async def list_versions(tx: Transaction, environment: Environment, *, most: int) -> list[Version]:
    """The newest versions."""
    rows = await tx.fetch(_sql.list_versions, environment_id=environment.id, most=most)
    return [
        Version(
            id=row["public_id"],
            version=row["version"],
            created_at=row["created_at"],
            is_current=row["is_current"],
            task_count=row["task_count"],
        )
        for row in rows
    ]


async def read_activity(
    tx: Transaction, environment: Environment, *, since: datetime, interval: timedelta
) -> list[Activity]:
    """What the runs triggered since then did, by task and interval; empty intervals are left out.

    Reads the newest 200,000 runs at most.
    """
    await allow_any_plan(tx)
    rows = await tx.fetch(
        _sql.read_activity,
        environment_id=environment.id,
        since=since,
        interval=interval,
        most=200_000,
    )
    return [
        Activity(
            task_id=row["task_id"],
            begins_at=row["begins_at"],
            total=row["total"],
            failed=row["failed"],
            running=row["running"],
            queue_ms=row["queue_ms"],
            duration_ms=row["duration_ms"],
        )
        for row in rows
    ]


def _task(row: Row) -> TaskSummary:
    schema = row["payload_schema"]
    return TaskSummary(
        id=row["task_id"],
        description=row["description"],
        file_path=row["file_path"],
        export_name=row["export_name"],
        queue=row["queue_name"],
        machine=row["machine"],
        is_scheduled=row["is_scheduled"],
        payload_schema=None if schema is None else json.loads(schema),
    )
