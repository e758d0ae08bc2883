"""Bodies of the public API, as clients write and read them (`protocol.md` sections 2 and 3)."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from runwell.core.explanations import ExplanationReason
from runwell.core.machines import MachineName
from runwell.core.metadata import Operation
from runwell.core.payloads import JSON_TYPE, Json
from runwell.core.schedules import RunSchedule

MAX_TAGS = 10
MAX_TAG_CHARACTERS = 128


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


PayloadType = Literal[
    "application/json", "application/super+json", "text/plain", "application/store"
]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TAG_CHARACTERS)]
Tags = Annotated[list[Tag], BeforeValidator(_one_or_many)]


class ApiModel(BaseModel):
    """Camel case on the wire, snake case in Python."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class QueueOption(ApiModel):
    """The queue of a run; a `concurrency_limit` that was sent (also null) changes the queue."""

    name: str | None = None
    concurrency_limit: int | None = Field(default=None, ge=0, le=100_000)


class DebounceOption(ApiModel):
    """One delayed run for `key`: each trigger pushes it by `delay`, by `max_delay` in all."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    delay: str
    mode: Literal["leading", "trailing"] = "leading"
    max_delay: str | None = None


class TriggerOptions(ApiModel):
    """Options of a trigger. Every field that any documented client sends is named here.

    A field that no client is known to send is ignored.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", strict=True
    )

    payload_type: PayloadType = JSON_TYPE
    queue: QueueOption | None = None
    concurrency_key: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    idempotency_key_ttl: str | None = Field(default=None, alias="idempotencyKeyTTL")
    delay: str | None = None
    ttl: str | int | None = None
    tags: Tags = []
    max_attempts: int | None = Field(default=None, ge=1, le=250)
    metadata: Json = None
    metadata_type: str | None = None
    max_duration: float | None = Field(default=None, gt=0)
    machine: MachineName | None = None
    test: bool = False
    lock_to_version: str | None = None
    parent_attempt: str | None = None
    dependent_attempt: str | None = None
    parent_batch: str | None = None
    dependent_batch: str | None = None
    parent_run_id: str | None = None
    resume_parent_on_completion: bool | None = None
    priority: float | None = None
    region: Annotated[str, StringConstraints(max_length=64)] | None = None
    debounce: DebounceOption | None = None
    idempotency_key_options: Json = None
    payload_size: int | None = None
    external_deployment_id: str | None = None
    bulk_action_id: str | None = None
    gates: Json = None
    concurrency: Json = None


class TriggerBody(ApiModel):
    """`POST /api/v1/tasks/{taskId}/trigger`; the payload is a text, or any JSON value."""

    payload: Json = None
    context: Json = None
    options: TriggerOptions = TriggerOptions()


class TriggerAnswer(ApiModel):
    """What a trigger answers: the run's id, and whether it was there already."""

    id: str
    is_cached: bool


class ResetKeyBody(ApiModel):
    """`POST /api/v1/idempotencyKeys/{key}/reset`: the task whose key it is."""

    task_identifier: str


class ResetKeyAnswer(ApiModel):
    """What a reset answers: the key, and whether it was taken (ours, no counterpart there)."""

    id: str
    was_taken: bool


class EnvironmentName(ApiModel):
    """The environment of a run in a list."""

    id: str
    name: str
    user: str | None = None


class RunError(ApiModel):
    """An error as the API shows it."""

    message: str
    name: str | None = None
    stack_trace: str | None = None


class AttemptObject(ApiModel):
    """One attempt of a run."""

    id: str
    status: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: RunError | None = None
    machine: str | None = None


class RunSummary(ApiModel):
    """The fields that every form of a run has (`protocol.md` 3.1); absent fields are left out."""

    id: str
    status: str
    task_identifier: str
    idempotency_key: str | None = None
    version: str | None = None
    is_queued: bool
    is_executing: bool
    is_waiting: bool = False
    is_completed: bool
    is_success: bool
    is_failed: bool
    is_cancelled: bool
    is_test: bool
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    delayed_until: datetime | None = None
    expired_at: datetime | None = None
    ttl: str | None = None
    tags: list[str] = []
    cost_in_cents: float = 0
    base_cost_in_cents: float = 0
    duration_ms: int = 0
    batch_id: str | None = None
    metadata: dict[str, Json] | None = None


class RunListItem(RunSummary):
    """A run in a list."""

    env: EnvironmentName


class RelatedRun(RunSummary):
    """A parent, root or child of a run."""

    depth: int = 0
    trigger_function: str = "trigger"


class RelatedRuns(ApiModel):
    """The relatives of a run."""

    root: RelatedRun | None = None
    parent: RelatedRun | None = None
    children: list[RelatedRun] = []


class RunExplanation(ApiModel):
    """Why a run is not executing (ours, no counterpart there).

    `run_ids` are some of the `run_count` runs that have what it needs, or that it waits for.
    `until` is when it may go on, where that is known; `ahead` counts the runs that come before it.
    """

    reason: ExplanationReason
    message: str
    run_ids: list[str] | None = None
    run_count: int | None = None
    until: datetime | None = None
    ahead: int | None = None


class RunObject(RunSummary):
    """A run as `GET /api/v3/runs/{runId}` answers it."""

    depth: int = 0
    trigger_function: str = "trigger"
    payload: Json = None
    payload_presigned_url: str | None = None
    output: Json = None
    output_presigned_url: str | None = None
    error: RunError | None = None
    related_runs: RelatedRuns = RelatedRuns()
    schedule: RunSchedule | None = None
    attempts: list[AttemptObject] = []
    attempt_count: int = 0
    region: str | None = None
    #: The run that this one is a replay of (ours, no counterpart there).
    replay_of: str | None = None
    #: Why it is not executing; absent for a run that is (ours, no counterpart there).
    explanation: RunExplanation | None = None


class Pagination(ApiModel):
    """Cursors; a side without further rows is left out."""

    next: str | None = None
    previous: str | None = None


class RunList(ApiModel):
    """`GET /api/v1/runs`."""

    data: list[RunListItem]
    pagination: Pagination


class LogLine(ApiModel):
    """One captured line of a run."""

    attempt: int
    seq: int
    time: datetime
    level: str
    message: str
    attributes: dict[str, Json] | None = None


class LogPage(ApiModel):
    """`GET /api/v1/runs/{runId}/logs`; `next` goes into `after` to read on, also when empty."""

    data: list[LogLine]
    next: str


class PacketUrl(ApiModel):
    """Where a large payload or output is to be sent or fetched, without any further key.

    `storage_path` is what a trigger gives as its payload, with the type `application/store`.
    """

    presigned_url: str
    storage_path: str | None = None


class CanceledRun(ApiModel):
    """What a cancel answers."""

    id: str


class ReplayBody(ApiModel):
    """`POST /api/v1/runs/{runId}/replay`: what is to differ from the original; may be left out."""

    payload: Json = None
    payload_type: PayloadType = JSON_TYPE


class ReplayedRun(ApiModel):
    """What a replay answers: the new run."""

    id: str


class RescheduleBody(ApiModel):
    """`POST /api/v1/runs/{runId}/reschedule`: a duration from now, or a date."""

    delay: str


class TagsBody(ApiModel):
    """`POST /api/v1/runs/{runId}/tags`."""

    tags: Tags


class MetadataBody(ApiModel):
    """`PUT /api/v1/runs/{runId}/metadata`: changes, in their order.

    `metadata` replaces the run's own before the operations.
    """

    metadata: dict[str, Json] | None = None
    operations: list[Operation] = Field(default_factory=list[Operation])
    parent_operations: list[Operation] = Field(default_factory=list[Operation])
    root_operations: list[Operation] = Field(default_factory=list[Operation])


class MetadataAnswer(ApiModel):
    """The metadata of a run; `flushed` names the last update that its worker reported."""

    metadata: dict[str, Json]
    flushed: str | None = None


class CreatedStream(ApiModel):
    """How a stream is to be written: `v1` is by POST to the URL that was asked."""

    version: str


class MessageAnswer(ApiModel):
    """What was done, as a sentence."""

    message: str


class ErrorBody(ApiModel):
    """Every error answer: `error` is a sentence for a person."""

    error: str
    details: list[Json] | None = None
    #: Of refusals for lack of permission.
    code: str | None = None
    param: str | None = None
    type: str | None = None
