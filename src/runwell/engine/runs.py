"""Runs as a whole: reading and listing them, and what ends them by itself."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runwell.core.errors import TaskRunError
from runwell.core.payloads import Json
from runwell.core.schemas import LogPage
from runwell.core.statuses import AttemptStatus, RunStatus
from runwell.engine import logs, queues, schedules
from runwell.engine.db import Row, Transaction, allow_any_plan
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries
from runwell.engine.run_errors import decode_error

_sql = load_queries("runs")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One execution of a run."""

    id: str
    number: int
    status: AttemptStatus
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error: TaskRunError | None
    machine: str | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One triggering of a task. Relatives carry no relatives or attempts themselves."""

    id: str
    task_id: str
    status: RunStatus
    version: str | None
    queue_id: int
    concurrency_key: str | None
    idempotency_key: str | None
    is_test: bool
    tags: list[str]
    metadata: dict[str, Json] | None
    payload: str | None
    payload_type: str
    output: str | None
    output_type: str | None
    error: TaskRunError | None
    ttl: str | None
    depth: int
    trigger_function: str
    batch_id: str | None
    replay_of: str | None
    region: str | None
    attempt_number: int
    duration_ms: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    delayed_until: datetime | None
    expired_at: datetime | None
    attempts: Sequence[Attempt] = ()
    schedule: schedules.Schedule | None = None
    parent: "Run | None" = None
    root: "Run | None" = None
    children: "Sequence[Run]" = ()


@dataclass(frozen=True, kw_only=True)
class RunFilters:
    """Which runs a list shows; None lets all pass."""

    statuses: list[RunStatus] | None = None
    task_ids: list[str] | None = None
    versions: list[str] | None = None
    tags: list[str] | None = None
    batch_id: str | None = None
    schedule_id: str | None = None
    bulk_action_id: str | None = None
    is_test: bool | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which part of a list: cursors are run ids, and `before` wins over `after`."""

    size: int = 25
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """A part of a list, the newest first; a cursor is None where nothing follows."""

    runs: list[Run]
    next: str | None
    previous: str | None


async def get_run(tx: Transaction, environment: Environment, run_id: str) -> Run:
    """A run with its attempts and relatives; raises RequestError 404 when there is none."""
    row = await tx.fetch_one(_sql.find_run, run_id=run_id, environment_id=environment.id)
    if row is None:
        raise no_such_run(run_id, environment)
    parent_id, root_id = row["parent_run_id"], row["root_run_id"]
    relatives: dict[str, Row] = {}
    if row["has_children"] or parent_id is not None or root_id is not None:
        rows = await tx.fetch(
            _sql.find_relatives,
            environment_id=environment.id,
            run_id=run_id,
            parent_run_id=parent_id,
            root_run_id=root_id,
        )
        relatives = {found["id"]: found for found in rows}
    schedule = None
    if row["schedule_id"] is not None:
        schedule = await schedules.find_schedule(tx, environment, row["schedule_id"])
    return _run(
        row,
        schedule=schedule,
        attempts=[_attempt(run_id, found) for found in json.loads(row["attempts"] or "[]")],
        parent=_run(relatives[parent_id]) if parent_id in relatives else None,
        root=_run(relatives[root_id]) if root_id in relatives else None,
        children=[_run(found) for found in relatives.values() if found["parent_run_id"] == run_id],
    )


async def list_runs(
    tx: Transaction, environment: Environment, filters: RunFilters, page: Page
) -> RunPage:
    """A page of an environment's runs (`protocol.md` 3.2)."""
    values: dict[str, Any] = {
        "environment_id": environment.id,
        "statuses": filters.statuses,
        "task_ids": filters.task_ids,
        "versions": filters.versions,
        "tags": filters.tags,
        "batch_id": filters.batch_id,
        "schedule_id": filters.schedule_id,
        "bulk_action_id": filters.bulk_action_id,
        "is_test": filters.is_test,
        "created_from": filters.created_from,
        "created_to": filters.created_to,
        "most": page.size + 1,
    }
    await allow_any_plan(tx)
    if page.before is not None:
        rows = await tx.fetch(_sql.list_newer_runs, before=page.before, **values)
        has_more = len(rows) > page.size
        found = [_run(row) for row in reversed(rows[: page.size])]
        return RunPage(
            runs=found,
            next=found[-1].id if found else None,
            previous=found[0].id if found and has_more else None,
        )
    rows = await tx.fetch(_sql.list_older_runs, after=page.after, **values)
    found = [_run(row) for row in rows[: page.size]]
    return RunPage(
        runs=found,
        next=found[-1].id if len(rows) > page.size else None,
        previous=found[0].id if found and page.after is not None else None,
    )


def merge_pages(pages: Sequence[RunPage], page: Page) -> RunPage:
    """One page of the same part of several lists: cursors are ids, which sort by time anywhere."""
    goes_back = page.before is not None
    runs = sorted((run for one in pages for run in one.runs), key=lambda run: run.id)
    chosen = runs[: page.size] if goes_back else runs[-page.size :]
    chosen.reverse()
    has_more = len(runs) > page.size
    if goes_back:
        has_previous = has_more or any(one.previous is not None for one in pages)
        has_next = bool(chosen)
    else:
        has_next = has_more or any(one.next is not None for one in pages)
        has_previous = page.after is not None
    return RunPage(
        runs=chosen,
        next=chosen[-1].id if chosen and has_next else None,
        previous=chosen[0].id if chosen and has_previous else None,
    )


async def expire_runs(tx: Transaction, run_ids: Sequence[str], *, now: datetime) -> None:
    """End runs whose time to live passed; the caller holds their locks."""
    await tx.execute(_sql.expire_runs, run_ids=list(run_ids), now=now)
    await queues.unqueue_runs(tx, run_ids)


async def read_logs(
    tx: Transaction, environment: Environment, run_id: str, *, after: str | None, limit: int
) -> LogPage:
    """A page of what a run's attempts wrote; raises RequestError 404 or 400."""
    if not await tx.fetch_value(_sql.has_run, run_id=run_id, environment_id=environment.id):
        raise no_such_run(run_id, environment)
    return await logs.read_lines(tx, run_id, after=after, limit=limit)


def _run(
    row: Row,
    *,
    schedule: schedules.Schedule | None = None,
    attempts: Sequence[Attempt] = (),
    parent: Run | None = None,
    root: Run | None = None,
    children: Sequence[Run] = (),
) -> Run:
    return Run(
        id=row["id"],
        task_id=row["task_id"],
        status=RunStatus(row["status"]),
        version=row["version"],
        queue_id=row["queue_id"],
        concurrency_key=row["concurrency_key"],
        idempotency_key=row["idempotency_key"],
        is_test=row["is_test"],
        tags=row["tags"],
        metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
        payload=row["payload"],
        payload_type=row["payload_type"],
        output=row["output"],
        output_type=row["output_type"],
        error=decode_error(row["error"]),
        ttl=row["ttl"],
        depth=row["depth"],
        trigger_function=row["trigger_function"],
        batch_id=row["batch_id"],
        replay_of=row["replay_of"],
        region=row["region"],
        attempt_number=row["attempt_number"],
        duration_ms=row["duration_ms"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        delayed_until=row["delayed_until"],
        expired_at=row["expired_at"],
        schedule=schedule,
        attempts=attempts,
        parent=parent,
        root=root,
        children=children,
    )


def _attempt(run_id: str, found: dict[str, Any]) -> Attempt:
    return Attempt(
        id=queues.make_attempt_id(run_id, found["number"]),
        number=found["number"],
        status=AttemptStatus(found["status"]),
        created_at=datetime.fromisoformat(found["created_at"]),
        updated_at=datetime.fromisoformat(found["updated_at"]),
        started_at=_instant(found["started_at"]),
        completed_at=_instant(found["completed_at"]),
        error=None if found["error"] is None else decode_error(json.dumps(found["error"])),
        machine=found["machine"],
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
