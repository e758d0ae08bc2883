"""Metadata of runs: reading it, and changing that of a run, its parent and its root in one step.

Changes come by the API, or with the reports of the worker that holds the run. Neither is applied
twice: a request has a key, and a worker numbers its updates under a lease. Whoever applies changes
holds the locks of all runs that they are about. See `core.metadata` for what an operation does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.metadata import Metadata, Operation, UpdateOperation, apply_operations
from runwell.core.payloads import MAX_METADATA_BYTES, check_json, encode_json
from runwell.core.protocol import LogsReport, MetadataUpdate
from runwell.core.schemas import MetadataBody
from runwell.core.spans import CapturedLine
from runwell.core.statuses import ExecutionStatus
from runwell.engine import logs
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries

_sql = load_queries("run_metadata")

#: So many keys of requests are remembered for each run.
REMEMBERED_KEYS = 100
# Where a line about a dropped update goes among those of its attempt: behind them.
_FIRST_SEQ = 2_000_000_000
_RELATIVES = ("parent_run_id", "root_run_id")


@dataclass(frozen=True, kw_only=True)
class ReportedUpdate:
    """An update that a worker reported of a run that it holds."""

    run_id: str
    lease_id: int
    attempt_number: int
    update: MetadataUpdate


async def read_metadata(tx: Transaction, environment: Environment, run_id: str) -> Row:
    """A run's `metadata`, with `lease_id` and `seq` of the last update that its worker reported.

    Raises RequestError 404 without the run.
    """
    row = await tx.fetch_one(_sql.read_metadata, run_id=run_id, environment_id=environment.id)
    if row is None:
        raise no_such_run(run_id, environment)
    return row


async def change_metadata(
    db: Database,
    environment: Environment,
    run_id: str,
    body: MetadataBody,
    *,
    request_key: str | None,
    now: datetime,
) -> Metadata:
    """Apply a body's operations to a run, its parent and its root: all of them or none.

    The same request key again changes nothing. Without a parent or root the run itself stands for
    it. Returns the run's metadata. Raises RequestError 404 without the run, and 422 when it has
    ended, or when metadata would be too large.
    """

    async def act(tx: Transaction) -> Metadata:
        relatives = await tx.fetch_one(
            _sql.find_relatives, run_id=run_id, environment_id=environment.id
        )
        if relatives is None:
            raise no_such_run(run_id, environment)
        wanted = _by_run(relatives, _own(body), body.parent_operations, body.root_operations)
        rows = await lock_metadata(tx, {run_id, *wanted})
        if rows[run_id]["execution_status"] == ExecutionStatus.FINISHED:
            raise RequestError(422, f"run {run_id} has ended: its metadata stays as it is")
        metadata = _parse(rows[run_id]["metadata"])
        if not wanted or not await _remember(tx, run_id, rows[run_id], request_key):
            return metadata
        changed: dict[str, Metadata] = {}
        for changed_id, operations in wanted.items():
            if changed_id in rows and not _has_ended(rows[changed_id]):
                before = _parse(rows[changed_id]["metadata"])
                changed[changed_id] = apply_operations(before, operations)
                problem = _find_problem(changed_id, changed[changed_id])
                if problem is not None:
                    raise RequestError(422, problem)
        await _store(tx, changed, now=now)
        return changed.get(run_id, metadata)

    return await db.run(act)


async def list_relatives(tx: Transaction, run_ids: Sequence[str]) -> set[str]:
    """The ids of the parents and roots of these runs."""
    rows = await tx.fetch(_sql.list_relatives, run_ids=sorted(set(run_ids)))
    return {run_id for row in rows for name in _RELATIVES if (run_id := row[name]) is not None}


async def apply_updates(
    tx: Transaction, updates: Sequence[ReportedUpdate], *, now: datetime
) -> None:
    """Apply what workers reported, in its order; the caller holds the locks of all these runs.

    What has been applied before is passed over. Operations that can't be are dropped, with a line
    in the log of the run that made them: a worker must not report the same thing for ever.
    """
    run_ids = {update.run_id for update in updates}
    relatives = {
        row["id"]: row for row in await tx.fetch(_sql.list_relatives, run_ids=sorted(run_ids))
    }
    children = {one.run_id for one in updates if one.update.changes_relatives}
    changing = {relatives[child][name] for child in children for name in _RELATIVES} - {None}
    rows = await lock_metadata(tx, run_ids | changing)
    metadata = {run_id: _parse(row["metadata"]) for run_id, row in rows.items()}
    last = {run_id: (row["metadata_lease_id"], row["metadata_seq"]) for run_id, row in rows.items()}
    changed: dict[str, Metadata] = {}
    dropped: list[LogsReport] = []
    for one in updates:
        number = (one.lease_id, one.update.seq)
        if number <= last[one.run_id]:
            continue
        last[one.run_id] = number
        update = one.update
        wanted = _by_run(
            relatives[one.run_id],
            update.operations,
            update.parent_operations,
            update.root_operations,
        )
        for run_id, operations in wanted.items():
            if run_id not in rows or _has_ended(rows[run_id]):
                continue
            after = apply_operations(metadata[run_id], operations)
            problem = _find_problem(run_id, after)
            if problem is None:
                metadata[run_id] = changed[run_id] = after
            else:
                dropped.append(_line(one, problem, len(dropped), now))
    await _store(tx, changed, now=now)
    await tx.execute(
        _sql.note_updates,
        run_ids=sorted(run_ids),
        lease_ids=[last[run_id][0] for run_id in sorted(run_ids)],
        seqs=[last[run_id][1] for run_id in sorted(run_ids)],
    )
    await logs.insert_lines(tx, dropped)


async def lock_metadata(tx: Transaction, run_ids: set[str]) -> Mapping[str, Row]:
    """Lock runs in the order of their ids, and read their metadata."""
    rows = await tx.fetch(_sql.lock_metadata, run_ids=sorted(run_ids))
    return {row["id"]: row for row in rows}


def _own(body: MetadataBody) -> list[Operation]:
    if body.metadata is None:
        return body.operations
    return [UpdateOperation(value=body.metadata), *body.operations]


def _by_run(
    relatives: Row,
    own: Sequence[Operation],
    of_parent: Sequence[Operation],
    of_root: Sequence[Operation],
) -> dict[str, list[Operation]]:
    """The operations by the run that they change, in their order."""
    run_id = relatives["id"]
    wanted: dict[str, list[Operation]] = {}
    for target, operations in (
        (run_id, own),
        (relatives["parent_run_id"] or run_id, of_parent),
        (relatives["root_run_id"] or run_id, of_root),
    ):
        if operations:
            wanted.setdefault(target, []).extend(operations)
    return wanted


async def _remember(tx: Transaction, run_id: str, row: Row, request_key: str | None) -> bool:
    """Whether a request is new; it isn't from here on."""
    if request_key is None:
        return True
    number = await tx.fetch_value(
        _sql.remember_key, run_id=run_id, key=request_key, number=row["metadata_version"] + 1
    )
    if number is None:
        return False
    await tx.execute(
        _sql.forget_keys, run_id=run_id, before=row["metadata_version"] + 1 - REMEMBERED_KEYS
    )
    return True


def _find_problem(run_id: str, metadata: Metadata) -> str | None:
    what = f"the metadata of run {run_id}"
    try:
        check_json(metadata, what=what)
        size = len(encode_json(metadata).encode())
    except InvalidPayloadError as error:
        return str(error)
    if size > MAX_METADATA_BYTES:
        return f"{what} would be {size:,} bytes, and at most {MAX_METADATA_BYTES:,} are kept"
    return None


async def _store(tx: Transaction, changed: Mapping[str, Metadata], *, now: datetime) -> None:
    if changed:
        await tx.execute(
            _sql.store_metadata,
            run_ids=list(changed),
            metadata=[encode_json(metadata) for metadata in changed.values()],
            now=now,
        )


def _has_ended(row: Row) -> bool:
    return row["execution_status"] == ExecutionStatus.FINISHED


def _line(one: ReportedUpdate, problem: str, number: int, now: datetime) -> LogsReport:
    line = CapturedLine(
        seq=_FIRST_SEQ + (one.update.seq + number) % 100_000_000,
        time=now,
        level="WARN",
        message=f"an update was dropped: {problem}",
    )
    return LogsReport(
        run_id=one.run_id, snapshot_id=0, attempt_number=one.attempt_number, lines=[line]
    )


def _parse(text: str | None) -> Metadata:
    return {} if text is None else cast("Metadata", json.loads(text))
