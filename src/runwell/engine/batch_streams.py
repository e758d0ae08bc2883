"""Batches in two steps: first how many runs there will be, then their items, some at a time.

Each item has a number, and is taken once however often it comes in, also from two streams at once:
whoever adds items holds the lock of the batch. The batch is sealed when all of them are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from runwell.core.errors import RequestError
from runwell.core.ids import RunId
from runwell.engine import batches
from runwell.engine.batches import MAX_ITEMS, BatchFailure, EarlierBatch, NewBatch
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import DEFAULT_KEY_LIFETIME, TriggerRequest
from runwell.engine.triggering import Triggered, trigger_many

_sql = load_queries("batch_streams")


@dataclass(frozen=True, kw_only=True)
class BatchOpening:
    """A batch of so many runs, to which the items are to come.

    `parent_run_id` is the parent of its runs, and waits for them if it `is_awaited`.
    """

    run_count: int
    parent_run_id: RunId | None = None
    is_awaited: bool = False
    request_key: str | None = None
    idempotency_key: str | None = None
    key_lifetime: timedelta = DEFAULT_KEY_LIFETIME


@dataclass(frozen=True, kw_only=True)
class OpenedBatch:
    """`is_cached`: it has all of its items, and no more may be sent."""

    id: str
    run_count: int
    is_cached: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberedItem:
    """An item by its place in its batch, from 0 on."""

    index: int
    request: TriggerRequest


@dataclass(frozen=True, kw_only=True)
class AddedItems:
    """How many items were new, how many of all are there, and whether those are all."""

    accepted: int
    deduplicated: int
    enqueued: int
    expected: int
    is_sealed: bool


async def open_batch(
    db: Database, environment: Environment, opening: BatchOpening, *, now: datetime
) -> OpenedBatch:
    """Make a batch without items, or find the one that the request or the key has already.

    One whose items never all came in is given again, so that the rest can be sent. Raises
    RequestError 400 for a bad number of runs, and 422 when such a batch has another number.
    """
    if not 1 <= opening.run_count <= MAX_ITEMS:
        raise RequestError(
            400, f"runCount: a batch takes 1 to {MAX_ITEMS:,} runs, not {opening.run_count}"
        )
    if opening.is_awaited and opening.parent_run_id is None:
        raise RequestError(
            400, "resumeParentOnCompletion: say with parentRunId which run waits for the batch"
        )
    new = NewBatch(
        run_count=opening.run_count,
        request_key=opening.request_key,
        idempotency_key=opening.idempotency_key,
        key_lifetime=opening.key_lifetime,
        sealed_at=None,
        parent_run_id=opening.parent_run_id,
        is_awaited=opening.is_awaited,
    )

    async def act(tx: Transaction) -> str | EarlierBatch:
        made = await batches.insert_batch(tx, environment, new, now=now)
        if opening.is_awaited and isinstance(made, str):
            await _check_parent(tx, environment, opening.parent_run_id or "")
        return made

    made = await db.run(act)
    if not isinstance(made, EarlierBatch):
        return OpenedBatch(id=made, run_count=opening.run_count, is_cached=False)
    if not made.is_sealed and made.run_count != opening.run_count:
        raise RequestError(
            422,
            f"the batch {made.id} of this idempotency key waits for the items of "
            f"{made.run_count} runs, and now there are {opening.run_count}: use another key",
        )
    return OpenedBatch(id=made.id, run_count=made.run_count, is_cached=made.is_sealed)


async def add_items(
    db: Database,
    environment: Environment,
    batch_id: str,
    items: Sequence[NumberedItem],
    *,
    now: datetime,
) -> AddedItems:
    """Trigger the runs of those items that the batch hasn't yet; seal it when they are all there.

    An item that can't be a run is noted with its reason, and counts as there. Raises RequestError
    404 without the batch, and 400 for a number that is no place in it.
    """
    try:
        return await db.run(lambda tx: _add(tx, environment, batch_id, items, now=now))
    except _ItemError:
        pass
    # One of them can't be: each by itself says which.
    accepted = deduplicated = 0
    added = AddedItems(accepted=0, deduplicated=0, enqueued=0, expected=0, is_sealed=False)
    for item in items:
        try:
            added = await db.run(
                lambda tx, one=item: _add(tx, environment, batch_id, [one], now=now)
            )
        except _ItemError as found:
            failure = BatchFailure(
                index=item.index,
                task_id=item.request.task_id,
                status=found.error.status,
                message=str(found.error).removeprefix("items[0]").lstrip(".: "),
            )
            added = await db.run(
                lambda tx, one=failure: _add_failure(tx, environment, batch_id, one, now=now)
            )
        accepted += added.accepted
        deduplicated += added.deduplicated
    return replace(added, accepted=accepted, deduplicated=deduplicated)


async def _check_parent(tx: Transaction, environment: Environment, run_id: RunId) -> None:
    if not await tx.fetch_value(_sql.is_going_on, run_id=run_id, environment_id=environment.id):
        raise RequestError(
            422,
            f"parentRunId: the run {run_id[:64]} can't wait for a batch: it isn't in the "
            f"environment {environment.slug}, or has ended",
        )


class _ItemError(Exception):
    """An item can't be a run; what was done in the transaction is to be undone."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(str(error))
        self.error = error


async def _add(
    tx: Transaction,
    environment: Environment,
    batch_id: str,
    items: Sequence[NumberedItem],
    *,
    now: datetime,
) -> AddedItems:
    batch = await _lock(tx, environment, batch_id)
    _check_places(batch, [item.index for item in items])
    new = await _choose_new(tx, batch_id, items)
    if new:
        triggered = await _trigger(tx, environment, batch, new, now=now)
        await tx.execute(
            _sql.add_items,
            batch_id=batch_id,
            indexes=[item.index for item in new],
            run_ids=[made.run_id for made in triggered],
            is_cached=[made.is_cached for made in triggered],
        )
    return await _finish(tx, batch, accepted=len(new), given=len(items), now=now)


async def _add_failure(
    tx: Transaction,
    environment: Environment,
    batch_id: str,
    failure: BatchFailure,
    *,
    now: datetime,
) -> AddedItems:
    batch = await _lock(tx, environment, batch_id)
    known = await tx.fetch(_sql.list_known_indexes, batch_id=batch_id, indexes=[failure.index])
    if not known:
        await tx.execute(
            _sql.add_failures,
            batch_id=batch_id,
            indexes=[failure.index],
            task_ids=[failure.task_id],
            statuses=[failure.status],
            messages=[failure.message],
        )
    return await _finish(tx, batch, accepted=0 if known else 1, given=1, now=now)


async def _lock(tx: Transaction, environment: Environment, batch_id: str) -> Row:
    batch = await tx.fetch_one(_sql.lock_batch, batch_id=batch_id, environment_id=environment.id)
    if batch is None:
        raise batches.no_such_batch(batch_id, environment)
    return batch


def _check_places(batch: Row, indexes: Sequence[int]) -> None:
    for index in indexes:
        if not 0 <= index < batch["run_count"]:
            raise RequestError(
                400,
                f"index: {index} is no place in the batch {batch['id']}, which has the places 0 to "
                f"{batch['run_count'] - 1}",
            )


async def _choose_new(
    tx: Transaction, batch_id: str, items: Sequence[NumberedItem]
) -> list[NumberedItem]:
    by_index = {item.index: item for item in reversed(items)}
    rows = await tx.fetch(_sql.list_known_indexes, batch_id=batch_id, indexes=list(by_index))
    for row in rows:
        by_index.pop(row["index"], None)
    return [by_index[index] for index in sorted(by_index)]


async def _trigger(
    tx: Transaction,
    environment: Environment,
    batch: Row,
    items: Sequence[NumberedItem],
    *,
    now: datetime,
) -> list[Triggered]:
    for item in items:
        options = item.request.body.options
        options.parent_run_id = options.parent_run_id or batch["parent_run_id"]
        if batch["is_awaited"]:
            options.resume_parent_on_completion = True
    try:
        return await trigger_many(
            tx, environment, [item.request for item in items], batch_id=batch["id"], now=now
        )
    except RequestError as error:
        raise _ItemError(error) from None


async def _finish(
    tx: Transaction, batch: Row, *, accepted: int, given: int, now: datetime
) -> AddedItems:
    enqueued = await tx.fetch_value(_sql.count_items, batch_id=batch["id"])
    is_sealed = enqueued >= batch["run_count"]
    if is_sealed and batch["sealed_at"] is None:
        await tx.execute(_sql.seal_batch, batch_id=batch["id"], now=now)
    return AddedItems(
        accepted=accepted,
        deduplicated=given - accepted,
        enqueued=enqueued,
        expected=batch["run_count"],
        is_sealed=is_sealed,
    )
