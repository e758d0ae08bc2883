"""Bulk actions: runs, named by their ids or by filters, are all canceled or replayed.

Here they are made, shown and aborted; `bulk_steps` does what they say. Source: docs
`bulk-actions.md`, which have a page of the dashboard for it: the HTTP API is ours.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from runwell.core.errors import RequestError
from runwell.core.ids import id_for_key, make_id
from runwell.core.statuses import FINAL_RUN_STATUSES, RunStatus
from runwell.engine.db import Database, Row, Transaction, allow_any_plan
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.runs import RunFilters

_sql = load_queries("bulk_actions")

#: So many runs may be named by their ids.
MOST_IDS = 1_000
_MOST_COUNTED = 1_000_000
_MOST_LISTED = 100
_MOST_FAILURES = 20
_CANCELABLE = sorted(set(RunStatus) - FINAL_RUN_STATUSES)


class BulkAct(StrEnum):
    """What is done to each run."""

    CANCEL = "CANCEL"
    REPLAY = "REPLAY"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which runs: those with these ids, or without ids those that pass the filters."""

    filters: RunFilters
    run_ids: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class BulkAction:
    """A bulk action as far as it is; `total` is how many runs there were when it began."""

    id: str
    action: BulkAct
    status: str
    total: int
    succeeded: int
    skipped: int
    failed: int
    created_at: datetime
    completed_at: datetime | None
    failures: Sequence[tuple[str, str]] = ()


async def create_bulk_action(
    db: Database,
    environment: Environment,
    action: BulkAct,
    selection: Selection,
    *,
    request_key: str | None = None,
    now: datetime,
) -> BulkAction:
    """Begin a bulk action; a loop goes on with it. The same request key gives the same one.

    Runs that are triggered later aren't part of it. Raises RequestError 404 for unknown ids.
    """
    public_id = make_id("bulk", now)
    if request_key is not None:
        public_id = id_for_key("bulk", environment.id, request_key)
    selection = narrow(action, selection, now=now)

    async def act(tx: Transaction) -> BulkAction:
        await _check_ids(tx, environment, selection.run_ids)
        await tx.execute(
            _sql.insert_bulk_action,
            public_id=public_id,
            environment_id=environment.id,
            action=action.value,
            filters=_encode(selection.filters),
            run_ids=selection.run_ids,
            total=await _count(tx, environment.id, selection),
            now=now,
        )
        return await get_bulk_action(tx, environment, public_id)

    return await db.run(act)


async def count_runs(
    tx: Transaction,
    environment: Environment,
    action: BulkAct,
    selection: Selection,
    *,
    now: datetime,
) -> int:
    """How many runs a bulk action would be about; raises RequestError 404 for unknown ids."""
    await _check_ids(tx, environment, selection.run_ids)
    return await _count(tx, environment.id, narrow(action, selection, now=now))


async def get_bulk_action(tx: Transaction, environment: Environment, public_id: str) -> BulkAction:
    """A bulk action with the first of its failures; raises RequestError 404 when there is none."""
    row = await tx.fetch_one(
        _sql.find_bulk_action, public_id=public_id, environment_id=environment.id
    )
    if row is None:
        raise RequestError(404, f"there is no bulk action {public_id[:64]} in this environment")
    failures: list[Row] = []
    if row["failed"]:
        failures = await tx.fetch(_sql.list_failed_items, id=row["id"], most=_MOST_FAILURES)
    return _bulk_action(row, [(item["run_id"], item["error"]) for item in failures])


async def list_bulk_actions(tx: Transaction, environment: Environment) -> list[BulkAction]:
    """The newest bulk actions, a hundred at most."""
    rows = await tx.fetch(_sql.list_bulk_actions, environment_id=environment.id, most=_MOST_LISTED)
    return [_bulk_action(row) for row in rows]


async def abort_bulk_action(
    db: Database, environment: Environment, public_id: str, *, now: datetime
) -> BulkAction:
    """Leave the runs alone for which it isn't done yet; one that is over stays as it is.

    A step that is under way is finished. Raises RequestError 404 when there is none.
    """

    async def act(tx: Transaction) -> BulkAction:
        await tx.execute(
            _sql.abort_bulk_action, public_id=public_id, environment_id=environment.id, now=now
        )
        return await get_bulk_action(tx, environment, public_id)

    return await db.run(act)


async def list_next_runs(tx: Transaction, row: Row, *, most: int) -> list[str]:
    """The next runs of a bulk action, behind those that were chosen before."""
    await allow_any_plan(tx)
    rows = await tx.fetch(
        _sql.list_matching_runs,
        id=row["id"],
        environment_id=row["environment_id"],
        run_ids=row["run_ids"],
        after=row["after_id"],
        most=most,
        **asdict(_decode(row["filters"])),
    )
    return [found["id"] for found in rows]


def narrow(action: BulkAct, selection: Selection, *, now: datetime) -> Selection:
    """The same runs, without those that come later and those that have ended if it is a cancel."""
    filters = selection.filters
    last = now if filters.created_to is None else min(now, filters.created_to)
    statuses = filters.statuses
    if action is BulkAct.CANCEL:
        given = _CANCELABLE if statuses is None else statuses
        statuses = [status for status in given if status not in FINAL_RUN_STATUSES]
    return replace(selection, filters=replace(filters, created_to=last, statuses=statuses))


async def _check_ids(
    tx: Transaction, environment: Environment, run_ids: Sequence[str] | None
) -> None:
    if run_ids is None:
        return
    missing = await tx.fetch(
        _sql.find_missing_runs, run_ids=list(run_ids), environment_id=environment.id
    )
    if missing:
        ids = ", ".join(row["id"][:64] for row in missing)
        raise RequestError(
            404, f"there are no such runs in the environment {environment.slug}: {ids}"
        )


async def _count(tx: Transaction, environment_id: int, selection: Selection) -> int:
    await allow_any_plan(tx)
    return await tx.fetch_value(
        _sql.count_matching_runs,
        environment_id=environment_id,
        run_ids=selection.run_ids,
        most=_MOST_COUNTED,
        **asdict(selection.filters),
    )


def _encode(filters: RunFilters) -> str:
    return json.dumps(asdict(filters), default=datetime.isoformat)


def _decode(text: str) -> RunFilters:
    values: dict[str, Any] = json.loads(text)
    for name in ("created_from", "created_to"):
        if values[name] is not None:
            values[name] = datetime.fromisoformat(values[name])
    return RunFilters(**values)


def _bulk_action(row: Row, failures: Sequence[tuple[str, str]] = ()) -> BulkAction:
    return BulkAction(
        id=row["public_id"],
        action=BulkAct(row["action"]),
        status=row["status"],
        total=row["total"],
        succeeded=row["succeeded"],
        skipped=row["skipped"],
        failed=row["failed"],
        created_at=row["created_at"],
        completed_at=row["completed_at"],
        failures=failures,
    )
