"""Messages about waits: a run tells what it waits for, and gets the results when it may go on.

They belong to `core.protocol`: a call may be sent again when its answer was lost. The run names its
waits, and a result is given again until the run's worker says that it was received.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runwell.core.errors import TaskRunError
from runwell.core.payloads import JSON_TYPE
from runwell.core.protocol import MAX_POLL_MS, SnapshotId, WireModel
from runwell.core.timing import Instant

#: The most runs that one wait can be on: a batch has no more.
MAX_AWAITED_RUNS = 1_000
#: The most waits that a run can have at once.
MAX_WAITS = 10_000

WaitId = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_\-]+$")
]


class RunsWait(WireModel):
    """Wait until all of these runs have ended; the results come in their order."""

    type: Literal["runs"] = "runs"
    wait_id: WaitId
    run_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_AWAITED_RUNS)]


class DateWait(WireModel):
    """Wait until an instant."""

    type: Literal["date"] = "date"
    wait_id: WaitId
    date: Instant


class TokenWait(WireModel):
    """Wait until a token is completed or has timed out."""

    type: Literal["token"] = "token"
    wait_id: WaitId
    token_id: str


Wait = Annotated[RunsWait | DateWait | TokenWait, Field(discriminator="type")]


class WaitBody(WireModel):
    """`POST /engine/v1/worker-actions/wait`: a run begins waits, and is perhaps blocked by them.

    With `is_blocked` the run can do nothing until one of its waits is complete: it gives its slots
    back. `received` names waits of which it has the results; `started_at` stands in for a start
    report that is still to come.
    """

    worker_id: str
    run_id: str
    snapshot_id: SnapshotId
    started_at: Instant
    waits: list[Wait] = Field(default=[], max_length=MAX_WAITS)
    is_blocked: bool = False
    received: list[WaitId] = Field(default=[], max_length=MAX_WAITS)


class WaitRefusal(WireModel):
    """A wait that can't be, and why: it raises in the task."""

    wait_id: str
    error: TaskRunError


class WaitAnswer(WireModel):
    """`is_blocked` is false when a wait is complete already; `is_lost` when another has the run."""

    is_lost: bool = False
    is_blocked: bool = False
    refused: list[WaitRefusal] = Field(default_factory=list[WaitRefusal])


class ReceivedWait(WireModel):
    """A run has the result of a wait."""

    run_id: str
    snapshot_id: SnapshotId
    wait_id: WaitId


class ResumeBody(WireModel):
    """`POST /engine/v1/worker-actions/resume`: ask for the results of a worker's waiting runs.

    Answers at once when there are some, else after at most `wait_ms`.
    """

    worker_id: str
    received: list[ReceivedWait] = Field(default=[], max_length=MAX_WAITS)
    wait_ms: int = Field(default=0, ge=0, le=MAX_POLL_MS)


class WaitResult(WireModel):
    """What one waited-for thing came to: the run's output or error, or the token's output.

    An output or error that `is_left_out`, since there were too many, is that of the run's result.
    """

    is_ok: bool
    output: str | None = None
    output_type: str = JSON_TYPE
    error: TaskRunError | None = None
    run_id: str | None = None
    task_id: str | None = None
    status: str | None = None
    is_left_out: bool = False


class WaitOutcome(WireModel):
    """How a wait of a run ended: it is complete, or can't be (`error`)."""

    wait_id: str
    results: list[WaitResult] = Field(default_factory=list[WaitResult])
    error: TaskRunError | None = None


class CompletedWait(WireModel):
    """A wait whose things have all come: a date gives no results, a batch one for each run."""

    run_id: str
    snapshot_id: SnapshotId
    wait_id: str
    results: list[WaitResult] = Field(default_factory=list[WaitResult])


class ResumeAnswer(WireModel):
    """The waits that are complete, of runs that may go on."""

    waits: list[CompletedWait]
