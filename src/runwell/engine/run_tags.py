"""Tags that a run gets after its trigger (docs `tags.md`, `protocol.md` 3.4)."""

from collections.abc import Sequence
from datetime import datetime

from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.payloads import check_text
from runwell.core.schemas import MAX_TAGS
from runwell.engine.attempts import lock_run
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries

_sql = load_queries("run_tags")


async def add_tags(
    db: Database, environment: Environment, run_id: str, tags: Sequence[str], *, now: datetime
) -> int:
    """Add tags that a run doesn't have yet, and return how many these were.

    All are added or none. Raises RequestError 404 without the run, and 422 when it would have more
    than ten tags.
    """
    for tag in tags:
        try:
            check_text(tag, what=f"the tag {tag[:64]!r}")
        except InvalidPayloadError as error:
            raise RequestError(400, str(error)) from None

    async def act(tx: Transaction) -> int:
        held = await lock_run(tx, run_id)
        if held is None or held.environment_id != environment.id:
            raise no_such_run(run_id, environment)
        there: list[str] = await tx.fetch_value(_sql.read_tags, run_id=run_id)
        wanted = list(dict.fromkeys([*there, *tags]))
        if len(wanted) > MAX_TAGS:
            raise RequestError(
                422,
                f"a run has at most {MAX_TAGS} tags: run {run_id} has {len(there)}, and "
                f"{len(wanted) - len(there)} more can't be added",
            )
        if len(wanted) > len(there):
            await tx.execute(_sql.set_tags, run_id=run_id, tags=wanted, now=now)
        return len(wanted) - len(there)

    return await db.run(act)
