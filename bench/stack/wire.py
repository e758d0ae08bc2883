"""The two wire formats under test: the same messages as pydantic models and as msgspec structs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Protocol

import msgspec
from pydantic import BaseModel

from runwell.core.protocol import (
    DequeueAnswer,
    DequeueBody,
    DequeuedRun,
    QueueContext,
    ReportBody,
)
from runwell.core.schemas import TriggerAnswer, TriggerBody


@dataclass(slots=True)
class NewRun:
    """What a trigger stores."""

    payload: str
    payload_type: str
    tags: list[str]
    max_attempts: int | None


@dataclass(slots=True)
class Exchange:
    """What a dequeue-and-complete asks for: runs to take, and completions as columns."""

    max_runs: int
    worker_id: str
    run_ids: list[str]
    snapshot_ids: list[int]
    outputs: list[str | None]
    durations: list[int]


@dataclass(slots=True)
class ClaimedRun:
    """A run as a row."""

    id: str
    snapshot_id: int
    task_id: str
    payload: str | None
    payload_type: str
    tags: list[str]
    attempt_number: int
    created_at: datetime


class Wire(Protocol):
    """A wire format: bytes to what the database needs, and back."""

    def read_trigger(self, body: bytes) -> NewRun:
        """Validate the body of a trigger."""
        ...

    def write_trigger(self, run_id: str) -> bytes:
        """The answer to a trigger."""
        ...

    def read_exchange(self, body: bytes) -> Exchange:
        """Validate the body of a dequeue-and-complete."""
        ...

    def write_exchange(self, runs: list[ClaimedRun]) -> bytes:
        """The answer to a dequeue-and-complete."""
        ...


class _ExchangeBody(BaseModel):
    dequeue: DequeueBody
    report: ReportBody


class PydanticWire:
    """The models of `runwell.core`, as the server uses them."""

    def read_trigger(self, body: bytes) -> NewRun:
        """Validate the body of a trigger."""
        parsed = TriggerBody.model_validate_json(body)
        options = parsed.options
        return NewRun(
            str(parsed.payload),
            options.payload_type,
            options.tags,
            options.max_attempts,
        )

    def write_trigger(self, run_id: str) -> bytes:
        """The answer to a trigger."""
        answer = TriggerAnswer(id=run_id, is_cached=False)
        return answer.model_dump_json(by_alias=True).encode()

    def read_exchange(self, body: bytes) -> Exchange:
        """Validate the body of a dequeue-and-complete."""
        parsed = _ExchangeBody.model_validate_json(body)
        reports = [report for report in parsed.report.reports if report.type == "complete"]
        return Exchange(
            max_runs=parsed.dequeue.max_runs,
            worker_id=parsed.dequeue.worker_id,
            run_ids=[report.run_id for report in reports],
            snapshot_ids=[report.snapshot_id for report in reports],
            outputs=[report.output for report in reports],
            durations=[report.duration_ms for report in reports],
        )

    def write_exchange(self, runs: list[ClaimedRun]) -> bytes:
        """The answer to a dequeue-and-complete."""
        queue = QueueContext(id="queue_1", name="task/hello")
        answer = DequeueAnswer(
            runs=[
                DequeuedRun(
                    run_id=run.id,
                    snapshot_id=run.snapshot_id,
                    task_id=run.task_id,
                    background_worker_id="worker_1",
                    version="20250101.1",
                    attempt_id="attempt_1",
                    attempt_number=run.attempt_number,
                    payload=run.payload,
                    payload_type=run.payload_type,
                    tags=run.tags,
                    max_attempts=3,
                    queue=queue,
                    created_at=run.created_at,
                )
                for run in runs
            ]
        )
        return answer.model_dump_json(by_alias=True).encode()


class _Struct(msgspec.Struct, rename="camel"):
    pass


_Json = msgspec.Raw | None
_Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Queue(_Struct):
    name: str | None = None
    concurrency_limit: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None


class _Options(_Struct, forbid_unknown_fields=True):
    payload_type: Literal[
        "application/json", "application/super+json", "text/plain", "application/store"
    ] = "application/json"
    queue: _Queue | None = None
    concurrency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)] | None = None
    idempotency_key_ttl: str | None = msgspec.field(default=None, name="idempotencyKeyTTL")
    delay: str | None = None
    ttl: str | int | None = None
    tags: list[_Tag] | str = []
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=250)] | None = None
    metadata: _Json = None
    metadata_type: str | None = None
    max_duration: Annotated[float, msgspec.Meta(gt=0)] | None = None
    machine: str | None = None
    test: bool = False
    lock_to_version: str | None = None
    parent_attempt: str | None = None
    dependent_attempt: str | None = None
    parent_batch: str | None = None
    dependent_batch: str | None = None
    parent_run_id: str | None = None
    resume_parent_on_completion: bool | None = None
    priority: float | None = None
    region: str | None = None
    debounce: _Json = None
    idempotency_key_options: _Json = None
    payload_size: int | None = None
    external_deployment_id: str | None = None
    bulk_action_id: str | None = None
    gates: _Json = None
    concurrency: _Json = None


class _Trigger(_Struct):
    payload: object = None
    context: _Json = None
    options: _Options = msgspec.field(default_factory=_Options)


class _Triggered(_Struct):
    id: str
    is_cached: bool


class _Dequeue(_Struct):
    worker_id: str
    request_id: _RequestId
    background_worker_ids: Annotated[list[str], msgspec.Meta(max_length=100)]
    max_runs: Annotated[int, msgspec.Meta(ge=1, le=100)]
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=20_000)] = 0


class _Start(_Struct, tag="start", tag_field="type"):
    run_id: str
    snapshot_id: int
    started_at: datetime


class _Complete(_Struct, tag="complete", tag_field="type"):
    run_id: str
    snapshot_id: int
    started_at: datetime
    finished_at: datetime
    duration_ms: Annotated[int, msgspec.Meta(ge=0)]
    output: str | None = None
    output_type: str = "application/json"


class _Report(_Struct):
    worker_id: str
    reports: Annotated[list[_Start | _Complete], msgspec.Meta(max_length=10_000)]


class _Exchange(_Struct):
    dequeue: _Dequeue
    report: _Report


class _QueueContext(_Struct):
    id: str
    name: str


class _Dequeued(_Struct):
    run_id: str
    snapshot_id: int
    task_id: str
    background_worker_id: str
    version: str
    attempt_id: str
    attempt_number: int
    max_attempts: int
    queue: _QueueContext
    created_at: datetime
    payload: str | None = None
    payload_type: str = "application/json"
    metadata: _Json = None
    tags: list[str] = []
    is_test: bool = False
    idempotency_key: str | None = None
    max_duration: int | None = None
    machine: str = "small-1x"
    started_at: datetime | None = None
    duration_ms: int = 0
    batch_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    context: _Json = None


class _DequeueAnswer(_Struct):
    runs: list[_Dequeued]


class MsgspecWire:
    """The same messages as structs, with the same constraints."""

    def __init__(self) -> None:
        """Build decoders and encoder once."""
        self._trigger = msgspec.json.Decoder(_Trigger)
        self._exchange = msgspec.json.Decoder(_Exchange)
        self._encode = msgspec.json.Encoder().encode

    def read_trigger(self, body: bytes) -> NewRun:
        """Validate the body of a trigger."""
        parsed = self._trigger.decode(body)
        options = parsed.options
        tags = [options.tags] if isinstance(options.tags, str) else options.tags
        return NewRun(str(parsed.payload), options.payload_type, tags, options.max_attempts)

    def write_trigger(self, run_id: str) -> bytes:
        """The answer to a trigger."""
        return self._encode(_Triggered(id=run_id, is_cached=False))

    def read_exchange(self, body: bytes) -> Exchange:
        """Validate the body of a dequeue-and-complete."""
        parsed = self._exchange.decode(body)
        reports = [item for item in parsed.report.reports if isinstance(item, _Complete)]
        return Exchange(
            max_runs=parsed.dequeue.max_runs,
            worker_id=parsed.dequeue.worker_id,
            run_ids=[report.run_id for report in reports],
            snapshot_ids=[report.snapshot_id for report in reports],
            outputs=[report.output for report in reports],
            durations=[report.duration_ms for report in reports],
        )

    def write_exchange(self, runs: list[ClaimedRun]) -> bytes:
        """The answer to a dequeue-and-complete."""
        queue = _QueueContext(id="queue_1", name="task/hello")
        return self._encode(
            _DequeueAnswer(
                runs=[
                    _Dequeued(
                        run_id=run.id,
                        snapshot_id=run.snapshot_id,
                        task_id=run.task_id,
                        background_worker_id="worker_1",
                        version="20250101.1",
                        attempt_id="attempt_1",
                        attempt_number=run.attempt_number,
                        payload=run.payload,
                        payload_type=run.payload_type,
                        tags=run.tags,
                        max_attempts=3,
                        queue=queue,
                        created_at=run.created_at,
                    )
                    for run in runs
                ]
            )
        )


def open_wire(name: str) -> Wire:
    """The wire format called `pydantic` or `msgspec`."""
    return {"pydantic": PydanticWire, "msgspec": MsgspecWire}[name]()
