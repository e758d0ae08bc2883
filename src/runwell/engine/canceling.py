"""Cancels: of one run, and of everything that it has triggered (docs `runs.md`).

A run is canceled in one transaction, and noted there if it may have children. What is noted is
worked off in batches, by whoever canceled and by a loop: each step cancels some children, which may
be noted in turn. A note goes when its run has ended and no child is left, so that children which
the run triggers while it is being stopped are found too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runwell.core.errors import StringError, TaskRunError
from runwell.engine import queues
from runwell.engine.attempts import lock_run, lock_runs
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries
from runwell.engine.run_errors import encode_error

_sql = load_queries("canceling")

CANCELED_BY_USER = StringError(raw="Run was canceled by a user")
_CANCELED_WITH_PARENT = StringError(raw="Run was canceled because its parent was")

#: So many notes, and so many children of each, are seen to in one transaction.
NOTES_AT_ONCE, CHILDREN_AT_ONCE = 10, 100
# A canceled run that is being stopped is looked at this often for what it still triggers.
_AGAIN = timedelta(seconds=1)
# The last look comes so long after its end: a trigger of it may still be on its way.
_LAST_LOOK = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Canceled:
    """A canceled run, and the worker that is to stop it."""

    run_id: str
    worker_id: str | None


async def cancel_run(
    db: Database, environment: Environment, run_id: str, *, now: datetime
) -> Canceled:
    """Cancel a run; one that has ended stays as it is. Raises RequestError 404."""

    async def act(tx: Transaction) -> Canceled:
        held = await lock_run(tx, run_id)
        if held is None or held.environment_id != environment.id:
            raise no_such_run(run_id, environment)
        canceled = await _cancel_locked(tx, [run_id], reason=CANCELED_BY_USER, now=now)
        return canceled[0] if canceled else Canceled(run_id=run_id, worker_id=None)

    return await db.run(act)


async def cancel_runs(
    tx: Transaction, run_ids: Sequence[str], *, reason: TaskRunError, now: datetime
) -> list[Canceled]:
    """Cancel those of these runs that haven't ended; returns these."""
    await lock_runs(tx, run_ids)
    return await _cancel_locked(tx, run_ids, reason=reason, now=now)


async def cancel_descendants(db: Database, *, now: datetime) -> list[Canceled]:
    """Cancel some of what canceled runs have triggered; empty when there is nothing to do now.

    Every server may do it at once, and again after a crash: a step is one transaction.
    """

    async def act(tx: Transaction) -> list[Canceled]:
        notes = await tx.fetch(_sql.claim_notes, now=now, most=NOTES_AT_ONCE)
        if not notes:
            return []
        found = {
            row["run_id"]: list[str](row["child_ids"] or [])
            for row in await tx.fetch(
                _sql.find_children,
                run_ids=[note["run_id"] for note in notes],
                after=[note["after_id"] for note in notes],
                most=CHILDREN_AT_ONCE,
            )
        }
        children = sorted(child for ids in found.values() for child in ids)
        canceled = await cancel_runs(tx, children, reason=_CANCELED_WITH_PARENT, now=now)
        await _move_on(tx, notes, found, now=now)
        return canceled

    return await db.run(act)


async def _move_on(
    tx: Transaction, notes: Sequence[Row], found: dict[str, list[str]], *, now: datetime
) -> None:
    done: list[str] = []
    run_ids: list[str] = []
    after: list[str] = []
    due_at: list[datetime] = []
    are_last: list[bool] = []
    for note in notes:
        children = found.get(note["run_id"], [])
        is_through = len(children) < CHILDREN_AT_ONCE
        if is_through and note["is_last_look"]:
            done.append(note["run_id"])
            continue
        run_ids.append(note["run_id"])
        after.append("" if is_through else children[-1])
        wait = _LAST_LOOK if note["has_ended"] else _AGAIN
        due_at.append(now + wait if is_through else now)
        are_last.append(note["has_ended"] if is_through else note["is_last_look"])
    if done:
        await tx.execute(_sql.delete_notes, run_ids=done)
    if run_ids:
        await tx.execute(
            _sql.update_notes, run_ids=run_ids, after=after, due_at=due_at, are_last=are_last
        )


async def _cancel_locked(
    tx: Transaction, run_ids: Sequence[str], *, reason: TaskRunError, now: datetime
) -> list[Canceled]:
    if not run_ids:
        return []
    rows = await tx.fetch(
        _sql.cancel_runs, run_ids=list(run_ids), error=encode_error(reason), now=now
    )
    await queues.unqueue_runs(tx, [row["id"] for row in rows if row["worker_id"] is None])
    return [Canceled(run_id=row["id"], worker_id=row["worker_id"]) for row in rows]
