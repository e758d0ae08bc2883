"""Bodies of the public API about batches (`protocol.md` 2.3, 2.4, 2.8 and 4)."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runwell.core.errors import TaskRunError
from runwell.core.payloads import Json
from runwell.core.schemas import ApiModel, TriggerBody


class BatchItemBody(TriggerBody):
    """One item of a batch: a trigger, with the id of its task."""

    task: str


class PendingItemBody(ApiModel):
    """A trigger in the transaction of an application that shares the database; it names its run.

    `key_seconds` is how long its idempotency key holds.
    """

    id: str
    task: str
    body: TriggerBody
    key_seconds: float | None = None


class BatchBody(ApiModel):
    """`POST /api/v1/tasks/batch` and `/api/v2/tasks/batch`.

    With `dependent_attempt`, or with `parent_run_id` and `resume_parent_on_completion`, that run
    waits for the batch.
    """

    items: list[BatchItemBody]
    parent_run_id: str | None = None
    dependent_attempt: str | None = None
    resume_parent_on_completion: bool | None = None


class TaskBatchBody(ApiModel):
    """`POST /api/v1/tasks/{taskId}/batch`, the oldest form: items of one task."""

    items: list[TriggerBody]
    parent_attempt: str | None = None
    dependent_attempt: str | None = None


class TaskBatchAnswer(ApiModel):
    """What that answers: the ids of the runs in the order of the items."""

    batch_id: str
    runs: list[str]


class BatchOpeningBody(ApiModel):
    """`POST /api/v3/batches`: how many items will be sent to the batch."""

    run_count: int
    task_identifiers: list[str] | None = None
    parent_run_id: str | None = None
    resume_parent_on_completion: bool | None = None
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    idempotency_key_options: Json = None


class OpenedBatchAnswer(ApiModel):
    """The batch to send items to; with `is_cached` it has them already."""

    id: str
    run_count: int
    is_cached: bool
    idempotency_key: str | None = None


class NumberedItemBody(BatchItemBody):
    """One line of `POST /api/v3/batches/{batchId}/items`: an item by its place in the batch."""

    index: int = Field(ge=0)


class AddedItemsAnswer(ApiModel):
    """How many of the sent items are new; the batch is sealed when all of its items are there."""

    id: str
    items_accepted: int
    items_deduplicated: int
    sealed: bool
    enqueued_count: int
    expected_count: int


class BatchRunAnswer(ApiModel):
    """The run of one item of a batch."""

    id: str
    task_identifier: str
    is_cached: bool
    idempotency_key: str | None = None


class BatchAnswer(ApiModel):
    """What a batch trigger answers; `runs` in the order of the items."""

    id: str
    is_cached: bool
    run_count: int
    idempotency_key: str | None = None
    runs: list[BatchRunAnswer]


class BatchItemError(ApiModel):
    """An item that could not be triggered."""

    index: int
    task_identifier: str
    error: str
    error_code: str | None = None


class BatchProcessing(ApiModel):
    """How the making of a batch went, as clients of 4.x ask for it."""

    completed_at: datetime | None = None
    errors: list[BatchItemError] = Field(default_factory=list[BatchItemError])


class BatchObject(ApiModel):
    """A batch as it is now; `runs` has the ids in the order of the items."""

    id: str
    status: Literal["PENDING", "PROCESSING", "COMPLETED", "PARTIAL_FAILED", "ABORTED"]
    run_count: int
    idempotency_key: str | None = None
    created_at: datetime
    updated_at: datetime
    runs: list[str]
    processing: BatchProcessing | None = None


class RunUsage(ApiModel):
    """How long a run executed."""

    duration_ms: int


class RunResultObject(ApiModel):
    """What a run came to (`protocol.md` 2.8): `output` when it is `ok`, `error` when it isn't."""

    ok: bool
    id: str
    task_identifier: str
    output: str | None = None
    output_type: str | None = None
    error: TaskRunError | None = None
    usage: RunUsage


class BatchResults(ApiModel):
    """What the runs of a batch came to, in the order of its items, without those that go on."""

    id: str
    items: list[RunResultObject]
