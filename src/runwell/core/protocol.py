"""Messages between server, supervisor and child; task manifests.

Every call of a worker may be sent again when its answer was lost: `dequeue` by its request id,
reports because a lease takes one end, `connect` and `heartbeat` by nature.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic.alias_generators import to_camel

from runwell.core.errors import TaskRunError
from runwell.core.machines import DEFAULT_MACHINE, MachineName
from runwell.core.metadata import Operation
from runwell.core.payloads import JSON_TYPE, Json
from runwell.core.schedules import ScheduleManifest
from runwell.core.spans import CapturedLine, Span
from runwell.core.timing import Instant, RetryOptions

#: A supervisor says that it lives this often; after the lease without a word its runs go elsewhere.
HEARTBEAT_SECONDS = 5
LEASE_SECONDS = 15
MAX_POLL_MS = 20_000
MAX_RATE_LIMIT = 1_000_000
MAX_RATE_WINDOW_SECONDS = 366 * 24 * 3600
MAX_RUNS_PER_DEQUEUE = 100
#: Log lines of a run beyond this are dropped with a mark, so that one run can't fill the disk.
MAX_LOG_LINES_PER_RUN = 100_000
MAX_LOG_MESSAGE_CHARACTERS = 4_096
MAX_LOG_BYTES_PER_RUN = 32 * 1024 * 1024
#: The attributes of one line, as JSON; beyond it they are left out with a mark.
MAX_LOG_ATTRIBUTES_BYTES = 16 * 1024

# What the database's columns hold; a century of milliseconds is within a JavaScript number too.
_MAX_INTEGER = 2**31 - 1
_MAX_MILLISECONDS = 2**53 - 1
#: The snapshot that names a lease.
SnapshotId = Annotated[int, Field(ge=0, le=2**63 - 1)]

TaskId = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
QueueName = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_/\-]+$")
]

_NOT_IN_QUEUE_NAMES = re.compile(r"[^A-Za-z0-9_/\-]")


def clean_queue_name(name: str) -> str:
    """A name without what queue names can't have; it may be empty then."""
    return _NOT_IN_QUEUE_NAMES.sub("", name)[:128]


def task_queue_name(task_id: str) -> str:
    """The queue of a task that names none: `task/<id>`."""
    return clean_queue_name(f"task/{task_id}")


class WireModel(BaseModel):
    """Camel case on the wire; unknown fields are ignored, so that versions can differ."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class RateLimitManifest(WireModel):
    """At most `limit` starts in any window of that length: of the queue, or of each of its keys."""

    limit: int = Field(ge=1, le=MAX_RATE_LIMIT)
    window_seconds: int = Field(ge=1, le=MAX_RATE_WINDOW_SECONDS)
    per: Literal["queue", "key"] = "queue"


class QueueManifest(WireModel):
    """A queue as the code defines it; without a limit only the environment's limit holds."""

    name: QueueName
    concurrency_limit: int | None = Field(default=None, ge=0, le=100_000)
    rate_limits: list[RateLimitManifest] = []

    @field_validator("rate_limits")
    @classmethod
    def _check_rate_limits(cls, limits: list[RateLimitManifest]) -> list[RateLimitManifest]:
        if len({limit.per for limit in limits}) < len(limits):
            raise ValueError("a queue has one rate limit of its own, and one for each key")
        return limits


class MachineManifest(WireModel):
    """The machine a task asks for."""

    preset: MachineName = DEFAULT_MACHINE


class TaskManifest(WireModel):
    """One task as indexing found it. `queue` of None means the task's own, `task/<id>`."""

    id: TaskId
    description: str | None = None
    file_path: str
    export_name: str
    queue: QueueManifest | None = None
    retry: RetryOptions = RetryOptions()
    machine: MachineManifest = MachineManifest()
    max_duration: int | None = Field(default=None, ge=5, le=2_147_483_647)
    ttl: str | int | None = None
    payload_schema: dict[str, Json] | None = None
    # Processes are kept for several runs of this task (docs of ours, no counterpart there).
    keep_process: bool = False
    # `schedule` for a task that schedules trigger; the schedule that its code declares, if any.
    trigger_source: str | None = None
    schedule: ScheduleManifest | None = None


class WorkerMetadata(WireModel):
    """What a version consists of."""

    package_version: str
    content_hash: Annotated[str, StringConstraints(min_length=8, max_length=128)]
    tasks: list[TaskManifest]
    queues: list[QueueManifest] = []
    # The project that the config file names; without it, the one that the worker's key belongs to.
    project_ref: str | None = None


class RegisterBody(WireModel):
    """`POST /api/v1/projects/{ref}/background-workers`: a new version of a project's tasks."""

    local_only: bool = False
    metadata: WorkerMetadata


class RegisterAnswer(WireModel):
    """The registered version; an unchanged content hash gives the version that has it."""

    id: str
    version: str
    content_hash: str


class ConnectBody(WireModel):
    """`POST /engine/v1/worker-actions/connect`: a supervisor starts, perhaps in a `region`.

    What a killed one with the same state folder, `previous_worker_id`, had is taken from it now.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    capacity: int = Field(ge=1, le=10_000)
    package_version: str
    previous_worker_id: str | None = None
    region: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\-.]{1,64}$")] | None = None


class OrganizationContext(WireModel):
    """The organisation of a run."""

    id: str
    slug: str
    name: str


class ProjectContext(WireModel):
    """The project of a run."""

    id: str
    ref: str
    slug: str
    name: str


class EnvironmentContext(WireModel):
    """The environment of a run; `type` is DEVELOPMENT, STAGING or PRODUCTION."""

    id: str
    slug: str
    type: str


class ConnectAnswer(WireModel):
    """Who the supervisor is and where it works."""

    worker_id: str
    organization: OrganizationContext
    project: ProjectContext
    environment: EnvironmentContext
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    lease_seconds: float = LEASE_SECONDS


class DequeueBody(WireModel):
    """`POST /engine/v1/worker-actions/dequeue`: ask for runs of the versions that one can run.

    Answers at once when there are runs, else after at most `wait_ms`. The same `request_id` again
    gives the same runs again, so that a lost answer loses nothing.
    """

    worker_id: str
    request_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    background_worker_ids: list[str] = Field(max_length=100)
    max_runs: int = Field(ge=1, le=MAX_RUNS_PER_DEQUEUE)
    wait_ms: int = Field(default=0, ge=0, le=MAX_POLL_MS)


class QueueContext(WireModel):
    """The queue of a run."""

    id: str
    name: str


class DequeuedRun(WireModel):
    """A run handed to a worker. Reports on it must carry this `snapshot_id`: it is the fence."""

    run_id: str
    snapshot_id: SnapshotId
    task_id: str
    background_worker_id: str
    version: str
    attempt_id: str
    attempt_number: int
    #: Attempts so far that count towards `max_attempts`: not those that were handed back.
    counted_attempts: int | None = None
    payload: str | None = None
    payload_type: str = JSON_TYPE
    metadata: dict[str, Json] | None = None
    tags: list[str] = []
    is_test: bool = False
    idempotency_key: str | None = None
    max_attempts: int
    max_duration: int | None = None
    machine: MachineName = DEFAULT_MACHINE
    queue: QueueContext
    created_at: datetime
    started_at: datetime | None = None
    duration_ms: int = 0
    batch_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    traceparent: str | None = None
    context: Json = None


class DequeueAnswer(WireModel):
    """The runs that are now this worker's, and which environment variables they are to find."""

    runs: list[DequeuedRun]
    variables_version: int | None = None


class HeldRun(WireModel):
    """A run that a supervisor says it holds."""

    run_id: str
    snapshot_id: SnapshotId


class HeartbeatBody(WireModel):
    """`POST /engine/v1/worker-actions/heartbeat`: all runs that the supervisor holds.

    The lease is renewed on arrival; the answer waits up to `wait_ms` for a run to be canceled.
    `background_worker_ids` are the versions whose runs it can run; None when it doesn't say.
    """

    worker_id: str
    runs: list[HeldRun]
    background_worker_ids: list[str] | None = Field(default=None, max_length=1_000)
    wait_ms: int = Field(default=0, ge=0, le=MAX_POLL_MS)


class HeartbeatAnswer(WireModel):
    """`canceled`: stop these and report `canceled`. `lost`: stop these, they are another's now."""

    canceled: list[str] = []
    lost: list[str] = []


class MetadataUpdate(WireModel):
    """Changes of metadata that a run's code made, numbered from 1 on under each lease.

    Those of one number are applied once, in the order own, parent's, root's.
    """

    seq: int = Field(ge=1, le=_MAX_INTEGER)
    operations: list[Operation] = Field(default_factory=list[Operation])
    parent_operations: list[Operation] = Field(default_factory=list[Operation])
    root_operations: list[Operation] = Field(default_factory=list[Operation])

    @property
    def changes_relatives(self) -> bool:
        """Whether it is about the parent or the root too."""
        return bool(self.parent_operations or self.root_operations)


class _RunReport(WireModel):
    run_id: str
    snapshot_id: SnapshotId
    # Changes of metadata until this happened.
    metadata: MetadataUpdate | None = None


class StartReport(_RunReport):
    """The attempt's code is about to run."""

    type: Literal["start"] = "start"
    started_at: Instant


class LogsReport(_RunReport):
    """What an attempt wrote, and its spans; what is sent twice is stored once."""

    type: Literal["logs"] = "logs"
    attempt_number: int = Field(ge=0, le=_MAX_INTEGER)
    lines: list[CapturedLine]
    spans: list[Span] = []


class MetadataReport(_RunReport):
    """The attempt's code changed metadata."""

    type: Literal["metadata"] = "metadata"


class CompleteReport(_RunReport):
    """The task returned; `started_at` stands in for a start report that was lost."""

    type: Literal["complete"] = "complete"
    output: str | None = None
    output_type: str = JSON_TYPE
    started_at: Instant
    finished_at: Instant
    duration_ms: int = Field(ge=0, le=_MAX_MILLISECONDS)


class FailReport(_RunReport):
    """The attempt failed; the server decides whether another one follows.

    With `retry_at` one follows then, also when the task's options allow no further one.
    """

    type: Literal["fail"] = "fail"
    error: TaskRunError
    skip_retrying: bool = False
    retry_at: Instant | None = None
    started_at: Instant
    finished_at: Instant
    duration_ms: int = Field(ge=0, le=_MAX_MILLISECONDS)


class HandBackReport(_RunReport):
    """The worker shuts down and gives the run back: it starts elsewhere at once."""

    type: Literal["hand-back"] = "hand-back"
    reason: str


class CanceledReport(_RunReport):
    """A canceled run has stopped."""

    type: Literal["canceled"] = "canceled"


RunReport = Annotated[
    StartReport
    | LogsReport
    | MetadataReport
    | CompleteReport
    | FailReport
    | HandBackReport
    | CanceledReport,
    Field(discriminator="type"),
]


class ReportBody(WireModel):
    """`POST /engine/v1/worker-actions/report`: what happened to runs, in the order it happened."""

    worker_id: str
    reports: list[RunReport] = Field(max_length=10_000)


class ReportAnswer(WireModel):
    """One word per report: `accepted`, or `stale` when the run is no longer the worker's.

    Either way the worker is done with it and must not send it again.
    """

    results: list[Literal["accepted", "stale"]]


class DisconnectBody(WireModel):
    """`POST /engine/v1/worker-actions/disconnect`: the supervisor ends; what it holds goes back."""

    worker_id: str
