"""What runs came to, as whoever waits for them outside of a run asks for it (`protocol.md` 2.8)."""

from dataclasses import dataclass
from typing import Final

from runwell.core.errors import ErrorCode, InternalError, RequestError, TaskRunError
from runwell.core.ids import RunId
from runwell.core.payloads import JSON_TYPE
from runwell.core.statuses import ExecutionStatus, RunStatus
from runwell.engine.batches import no_such_batch
from runwell.engine.db import Row, Transaction
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries
from runwell.engine.run_errors import decode_error

_sql = load_queries("results")

#: So many are read at once: outputs may be large.
PAGE: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a run came to; `error` is None if and only if it completed.

    `index` is its place in the batch that was asked for.
    """

    index: int
    run_id: RunId
    task_id: str
    output: str | None
    output_type: str
    error: TaskRunError | None
    duration_ms: int


async def list_results(
    tx: Transaction, environment: Environment, batch_id: str, *, after: int = -1
) -> list[RunResult]:
    """What some of a batch's runs came to, from behind an item on; none when there are no more.

    A run that goes on is left out. Raises RequestError 404 when there is no such batch.
    """
    if not await tx.fetch_value(_sql.has_batch, batch_id=batch_id, environment_id=environment.id):
        raise no_such_batch(batch_id, environment)
    rows = await tx.fetch(_sql.list_ended_items, batch_id=batch_id, after=after, most=PAGE)
    return [_result(row) for row in rows]


async def get_result(tx: Transaction, environment: Environment, run_id: str) -> RunResult:
    """What a run came to; raises RequestError 404 without the run, and while it goes on."""
    row = await tx.fetch_one(_sql.find_ended_run, run_id=run_id, environment_id=environment.id)
    if row is None:
        raise no_such_run(run_id, environment)
    if row["execution_status"] != ExecutionStatus.FINISHED:
        raise RequestError(404, f"the run {run_id} has no result yet: it has not ended")
    return _result(row)


def _result(row: Row) -> RunResult:
    error = None
    if row["status"] != RunStatus.COMPLETED:
        error = decode_error(row["error"])
        if error is None or row["status"] == RunStatus.CANCELED:
            error = InternalError(code=ErrorCode.TASK_RUN_CANCELLED)
    return RunResult(
        index=row["index"],
        run_id=row["id"],
        task_id=row["task_id"],
        output=row["output"],
        output_type=row["output_type"] or JSON_TYPE,
        error=error,
        duration_ms=row["duration_ms"],
    )
