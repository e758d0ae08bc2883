"""Rescheduling: a delayed run gets a new delay (docs `runs.md`, `protocol.md` 3.4)."""

from datetime import datetime

from runwell.core.errors import RequestError
from runwell.core.statuses import ExecutionStatus
from runwell.core.timing import parse_duration, parse_instant
from runwell.engine.attempts import lock_run
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries
from runwell.engine.runs import Run, get_run

_sql = load_queries("rescheduling")


async def reschedule_run(
    db: Database, environment: Environment, run_id: str, delay: str, *, now: datetime
) -> Run:
    """Have a delayed run enqueued at another time; returns the run as it is then.

    `delay` counts from `now`, or is a date. Raises RequestError 404 without the run, and 400 when
    the run isn't delayed any more, or the delay is unreadable or over already.
    """
    until = _read_delay(delay, now)

    async def act(tx: Transaction) -> Run:
        held = await lock_run(tx, run_id)
        if held is None or held.environment_id != environment.id:
            raise no_such_run(run_id, environment)
        if held.status is not ExecutionStatus.DELAYED:
            run = await get_run(tx, environment, run_id)
            raise RequestError(
                400, f"run {run_id} is {run.status}: only a delayed run can be rescheduled"
            )
        await tx.execute(_sql.reschedule_run, run_id=run_id, delayed_until=until, now=now)
        return await get_run(tx, environment, run_id)

    return await db.run(act)


def _read_delay(delay: str, now: datetime) -> datetime:
    try:
        until = now + parse_duration(delay)
    except ValueError:
        try:
            until = parse_instant(delay)
        except ValueError:
            raise RequestError(
                400,
                f"delay: {delay[:64]!r} is neither a duration ('30s', '1h30m', '2d') nor an ISO "
                "date ('2027-01-31T09:00:00Z')",
            ) from None
    if until <= now:
        raise RequestError(400, f"delay: {delay[:64]!r} is over already: give one that is to come")
    return until
