"""The steps of bulk actions: some runs are chosen, and it is done to them; then the next ones.

Runs are canceled in the transaction that notes them. A replay is noted with the id that the new run
is to have, and made after that: a server that dies in between has another one make the same run.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from runwell.core.errors import RequestError
from runwell.core.ids import make_run_ids
from runwell.engine import environments
from runwell.engine.bulk_actions import BulkAct, list_next_runs
from runwell.engine.canceling import CANCELED_BY_USER, Canceled, cancel_runs
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.queries import load_queries
from runwell.engine.replays import replay_run

_sql = load_queries("bulk_steps")

#: So many runs are chosen by one step.
BATCH = 50
# A server that died leaves its step to another one after this.
_CLAIM = timedelta(seconds=10)
_KEPT = timedelta(days=30)
_MOST_DELETED = 10
_MOST_ERROR_CHARACTERS = 500


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step has done: to how many runs, what is to be stopped, and who has new runs."""

    runs: int = 0
    canceled: list[Canceled] = field(default_factory=list[Canceled])
    environment_ids: set[int] = field(default_factory=set[int])


async def take_step(db: Database, *, now: datetime) -> Step | None:
    """Go on with a bulk action that nobody works on; None when there is none.

    Every server may do it at once, and again after a crash.
    """
    chosen = await db.run(lambda tx: _choose(tx, now))
    if chosen is None:
        return None
    row, items, step = chosen
    if items:
        await _replay(db, row, items, now=now)
        step = Step(runs=len(items), environment_ids={row["environment_id"]})
    await db.fetch(_sql.release_bulk_action, id=row["id"], now=now)
    return step


async def delete_old_bulk_actions(db: Database, *, now: datetime) -> None:
    """Forget bulk actions that were over a month ago."""
    async with db.connection() as tx:
        await tx.execute(_sql.delete_old_bulk_actions, before=now - _KEPT, most=_MOST_DELETED)


async def _choose(tx: Transaction, now: datetime) -> tuple[Row, list[Row], Step] | None:
    row = await tx.fetch_one(_sql.claim_bulk_action, claimed_until=now + _CLAIM, now=now)
    if row is None:
        return None
    items = await tx.fetch(_sql.list_pending_items, id=row["id"], most=BATCH)
    if items:
        return row, items, Step()
    run_ids = await list_next_runs(tx, row, most=BATCH)
    if not run_ids:
        await tx.execute(_sql.complete_bulk_action, id=row["id"], now=now)
        return row, [], Step()
    match BulkAct(row["action"]):
        case BulkAct.CANCEL:
            canceled = await cancel_runs(tx, run_ids, reason=CANCELED_BY_USER, now=now)
            done = {one.run_id for one in canceled}
            statuses = ["SUCCEEDED" if run_id in done else "SKIPPED" for run_id in run_ids]
            await _note(tx, row, run_ids, statuses, [None] * len(run_ids))
            return row, [], Step(runs=len(run_ids), canceled=canceled)
        case BulkAct.REPLAY:
            new_ids = make_run_ids(len(run_ids), now)
            await _note(tx, row, run_ids, ["PENDING"] * len(run_ids), new_ids[::-1])
            return row, await tx.fetch(_sql.list_pending_items, id=row["id"], most=BATCH), Step()


async def _note(
    tx: Transaction,
    row: Row,
    run_ids: list[str],
    statuses: list[str],
    new_run_ids: list[str | None] | list[str] | list[None],
) -> None:
    await tx.execute(
        _sql.insert_items,
        id=row["id"],
        run_ids=run_ids,
        statuses=statuses,
        new_run_ids=new_run_ids,
    )
    await tx.execute(
        _sql.note_chosen,
        id=row["id"],
        after_id=run_ids[-1],
        succeeded=statuses.count("SUCCEEDED"),
        skipped=statuses.count("SKIPPED"),
    )


async def _replay(db: Database, row: Row, items: list[Row], *, now: datetime) -> None:
    async with db.connection() as tx:
        environment = await environments.get_by_id(tx, row["environment_id"])
    errors: list[str | None] = []
    for item in items:
        try:
            await replay_run(
                db, environment, item["run_id"], new_run_id=item["new_run_id"], now=now
            )
        except RequestError as error:
            errors.append(str(error)[:_MOST_ERROR_CHARACTERS])
        else:
            errors.append(None)
    await db.fetch(
        _sql.end_items,
        id=row["id"],
        run_ids=[item["run_id"] for item in items],
        statuses=["SUCCEEDED" if error is None else "FAILED" for error in errors],
        errors=errors,
    )
