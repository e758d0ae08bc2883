"""Spans in the process of a run: OpenTelemetry's, written to the output pipe as they begin and end.

One tracer provider, made in the warm parent, serves every run: what the user's code and their
instrumentations trace goes the same way as `logger.trace`. The span of the attempt is the server's
own and is only named here, so that a run without spans pays for none.
"""

import contextlib
import threading
from collections.abc import Generator, Mapping
from functools import cache
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

from runwell._version import __version__
from runwell.client.tracing import set_tracer
from runwell.core.machines import MACHINES
from runwell.core.payloads import Json
from runwell.core.protocol import DequeuedRun, TaskManifest
from runwell.core.spans import (
    attempt_span_id,
    make_traceparent,
    run_span_id,
    trace_id_of,
)
from runwell.core.waits import DateWait, RunsWait, TokenWait, Wait
from runwell.sdk.telemetry import Telemetry
from runwell.worker.capture import OutputPipe
from runwell.worker.exporting import Exporting, instrument
from runwell.worker.inheriting import inherit_spans
from runwell.worker.messages import Surroundings
from runwell.worker.span_writer import PipeWriter
from runwell.worker.texts import safe_text

_ICON: Final = "$style.icon"
# Attributes of a span are clipped with a mark, which the SDK's own limits don't leave.
_LIMITS: Final = SpanLimits(
    max_span_attributes=SpanLimits.UNSET, max_attribute_length=SpanLimits.UNSET
)


_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)


class RunTracing:
    """The tracing of the runs of this process, one after the other."""

    def __init__(self, pipe: OutputPipe, telemetry: Telemetry | None = None) -> None:
        """Write to this pipe, and to what the project exports to."""
        self._pipe = pipe
        self._provider, self._writer, self._resource = install()
        self._tracer = self._provider.get_tracer("runwell", __version__)
        self._exporting: Exporting | None = None
        if telemetry and (
            telemetry.span_processors or telemetry.exporters or telemetry.log_exporters
        ):
            self._exporting = Exporting(telemetry, self._provider, self._resource)

    @contextlib.contextmanager
    def attempt(self, run: DequeuedRun, resource: Mapping[str, Json]) -> Generator[None]:
        """Within the block, what is traced is under this attempt."""
        trace_id = trace_id_of(run.run_id, run.traceparent)
        span_id = attempt_span_id(run.run_id, run.attempt_number)
        self._resource.become(resource)
        own = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_SAMPLED)
        self._writer.begin(self._pipe, span_id)
        own_id = own.span_id

        def find_span() -> int:
            found = trace.get_current_span().get_span_context().span_id
            return 0 if found == own_id else found

        self._pipe.find_span = find_span
        set_tracer(self.begin_call)
        self._pipe.on_line = None if self._exporting is None else self._exporting.line_taker
        span = NonRecordingSpan(own) if self._exporting is None else self._begin_attempt(run, own)
        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            yield
        except Exception as error:
            _record(span, error)
            raise
        finally:
            span.end()
            self._pipe.on_line = None
            if self._exporting is not None:
                self._exporting.flush()
            otel_context.detach(token)
            set_tracer(None)
            self._pipe.find_span = None
            self._writer.end()

    def _begin_attempt(self, run: DequeuedRun, own: SpanContext) -> trace.Span:
        """The span of the attempt for exporters: it has the id by which the server knows it."""
        root = SpanContext(
            own.trace_id, int(run_span_id(run.run_id), 16), is_remote=True, trace_flags=_SAMPLED
        )
        _ids.next_span_id = own.span_id
        return self._tracer.start_span(
            f"Attempt {run.attempt_number}",
            context=trace.set_span_in_context(NonRecordingSpan(root)),
            kind=SpanKind.CONSUMER,
            attributes={"$span.attempt": True, _ICON: "attempt"},
        )

    def begin_block(self, name: str, attributes: Mapping[str, Json]) -> "BlockSpan":
        """A span of `logger.trace`: the current one until it ends."""
        return BlockSpan(self._start(name, SpanKind.INTERNAL, attributes), is_current=True)

    def begin_call(self, name: str) -> "BlockSpan":
        """The span of a trigger."""
        return BlockSpan(self._start(name, SpanKind.PRODUCER, {_ICON: "trigger"}))

    def begin_wait(self, wait: Wait) -> "BlockSpan":
        """The span of a wait."""
        attributes: dict[str, Json] = {_ICON: "wait", "wait.id": wait.wait_id}
        match wait:
            case DateWait():
                name = f"wait until {wait.date:%Y-%m-%d %H:%M:%S} UTC"
            case RunsWait():
                one = len(wait.run_ids) == 1
                name = (
                    f"wait for {wait.run_ids[0]}" if one else f"wait for {len(wait.run_ids)} runs"
                )
            case TokenWait():
                name = "wait for a token"
                attributes["wait.token"] = wait.token_id
        return BlockSpan(self._start(name, SpanKind.INTERNAL, attributes))

    def _start(self, name: str, kind: SpanKind, attributes: Mapping[str, Json]) -> trace.Span:
        return self._tracer.start_span(name, kind=kind, attributes=_flatten(attributes))


def describe_run(
    run: DequeuedRun, manifest: TaskManifest | None, surroundings: Surroundings
) -> dict[str, Json]:
    """The attributes of a run's resource: `protocol.md` section 9.2."""
    organization, project = surroundings.organization, surroundings.project
    preset = MACHINES[run.machine]
    found: dict[str, Json] = {
        "ctx.environment.id": surroundings.environment.id,
        "ctx.environment.type": surroundings.environment.type,
        "ctx.organization.id": organization.id,
        "ctx.organization.slug": organization.slug,
        "ctx.organization.name": organization.name,
        "ctx.project.id": project.id,
        "ctx.project.ref": project.ref,
        "ctx.project.title": project.name,
        "ctx.run.id": run.run_id,
        "ctx.run.isTest": run.is_test,
        "ctx.attempt.id": run.attempt_id,
        "ctx.attempt.number": run.attempt_number,
        "ctx.task.id": run.task_id,
        "ctx.queue.id": run.queue.id,
        "ctx.queue.name": run.queue.name,
        "ctx.machine.name": preset.name,
        "ctx.machine.cpu": preset.cpu,
        "ctx.machine.memory": preset.memory,
        "ctx.machine.centsPerMs": preset.cents_per_ms,
        "worker.id": run.background_worker_id,
        "worker.version": run.version,
    }
    if run.idempotency_key is not None:
        found["ctx.run.idempotencyKey"] = run.idempotency_key
    if run.batch_id is not None:
        found["ctx.batch.id"] = run.batch_id
    if manifest is not None:
        found["ctx.task.filePath"] = manifest.file_path
        found["ctx.task.exportName"] = manifest.export_name
    return found


class BlockSpan:
    """A span of ours that goes on."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span, *, is_current: bool = False) -> None:
        self._span = span
        self._token = otel_context.attach(trace.set_span_in_context(span)) if is_current else None

    @property
    def traceparent(self) -> str:
        """It as the parent of what another process does."""
        own = self._span.get_span_context()
        return make_traceparent(f"{own.trace_id:032x}", f"{own.span_id:016x}")

    def set(self, attributes: Mapping[str, Json]) -> None:
        """Attributes, in place of those with the same names."""
        self._span.set_attributes(_flatten(attributes))

    def add_event(self, name: str, attributes: Mapping[str, Json]) -> None:
        """Something happened now."""
        self._span.add_event(name, _flatten(attributes))

    def end(self, error: BaseException | None) -> None:
        """It is over."""
        if self._token is not None:
            otel_context.detach(self._token)
        if isinstance(error, Exception):
            _record(self._span, error)
        elif error is not None:
            # A cancel, a timeout: it did not fail by itself.
            self._span.add_event("cancellation", {"reason": type(error).__name__})
        self._span.end()


class RunResource(Resource):
    """The resource of the current run: tracers keep it, so it changes with the run."""

    def __init__(self) -> None:
        self._always: dict[str, Any] = {
            "$trigger": True,
            "service.name": "runwell",
            "sdk.language": "python",
            "sdk.version": __version__,
        }
        super().__init__(self._always)

    def become(self, attributes: Mapping[str, Json]) -> None:
        """Say the attributes of another run."""
        self._attributes = {**self._always, **_flatten(attributes)}  # pyright: ignore[reportAttributeAccessIssue] (the SDK has no other way)

    def merge(self, other: Resource) -> Resource:
        """Take more attributes: the SDK adds those of the process after a fork."""
        self._always.update(other.attributes)
        self.become({})
        return self


class RunIds(RandomIdGenerator):
    """Random ids, but for a span whose id is settled."""

    next_span_id: int | None = None

    def generate_span_id(self) -> int:
        """The settled id, once; else a random one."""
        settled, self.next_span_id = self.next_span_id, None
        return super().generate_span_id() if settled is None else settled


_ids: Final = RunIds()


class RunTracerProvider(TracerProvider):
    """A tracer provider that costs a fork nothing.

    The SDK's own looks for resource detectors in every new process: two milliseconds.
    """

    def _handle_fork(self) -> None:
        self._tracers_lock = threading.Lock()


def prepare(telemetry: Telemetry) -> None:
    """Set up tracing, and have libraries traced; before the first run of a process."""
    install()
    instrument(telemetry)


@cache
def install() -> tuple[TracerProvider, PipeWriter, RunResource]:
    """Make the tracer provider of this process, or join the one that the user has made."""
    writer, resource = PipeWriter(), RunResource()
    known = trace.get_tracer_provider()
    if isinstance(known, TracerProvider):
        provider = known
    else:
        provider = RunTracerProvider(
            resource=resource,
            sampler=ALWAYS_ON,
            span_limits=_LIMITS,
            id_generator=_ids,
            shutdown_on_exit=False,
        )
        trace.set_tracer_provider(provider)
    provider.add_span_processor(writer)
    inherit_spans()
    return provider, writer, resource


def _flatten(attributes: Mapping[str, Json]) -> dict[str, Any]:
    """Nested values by the rule of protocol.md section 9.2: `a.b`, `a.[0]`."""
    found: dict[str, Any] = {}
    for name, value in attributes.items():
        _flatten_one(name, value, found)
    return found


def _flatten_one(name: str, value: Json, found: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            _flatten_one(f"{name}.{key}", one, found)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            _flatten_one(f"{name}.[{number}]", one, found)
    else:
        found[name] = "$@null((" if value is None else value


def _record(span: trace.Span, error: Exception) -> None:
    """Note an exception in a span, also one that has no text: its own str() fails."""
    text = safe_text(error)
    try:
        span.record_exception(error)
    except Exception:  # noqa: BLE001 - a task's exception may raise anything when it is asked
        span.add_event(
            "exception",
            {"exception.type": type(error).__qualname__, "exception.message": text},
        )
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {text}"))
