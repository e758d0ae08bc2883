"""Bodies of the API of bulk actions, which is ours (docs `bulk-actions.md` have none)."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runwell.core.payloads import Json
from runwell.core.schemas import ApiModel

MAX_BULK_IDS = 1_000

_RunId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class BulkActionBody(ApiModel):
    """`POST /api/v1/bulk-actions`: cancel or replay runs.

    Either `run_ids`, or `filter` with the names of the list's filters: `{"status": "FAILED",
    "createdAt": {"period": "1d"}}`. An empty filter means all runs, and has to be there.
    """

    action: Literal["cancel", "replay"]
    run_ids: Annotated[list[_RunId], Field(min_length=1, max_length=MAX_BULK_IDS)] | None = None
    filter: dict[str, Json] | None = None


class BulkFailure(ApiModel):
    """A run for which it could not be done."""

    run_id: str
    error: str


class BulkActionObject(ApiModel):
    """A bulk action as far as it is.

    `total` is how many runs there were when it began; `skipped` had ended before it came to them.
    """

    id: str
    action: Literal["cancel", "replay"]
    status: Literal["PENDING", "COMPLETED", "ABORTED"]
    total: int
    succeeded: int
    skipped: int
    failed: int
    created_at: datetime
    completed_at: datetime | None = None
    failures: list[BulkFailure] = Field(default_factory=list[BulkFailure])


class BulkActionList(ApiModel):
    """`GET /api/v1/bulk-actions`: the newest hundred."""

    data: list[BulkActionObject]


class RunCount(ApiModel):
    """How many runs a bulk action would be about."""

    count: int
