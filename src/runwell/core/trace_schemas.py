"""Bodies of the API about the trace of a run."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from runwell.core.payloads import Json
from runwell.core.spans import SpanEvent, SpanKind, SpanLevel, SpanLink


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class TraceSpanData(_Answer):
    """What a span is about. `duration` is in nanoseconds; of a partial one, it is what is known.

    A log line is a span without a length: its `level` is not SPAN.
    """

    message: str
    task_slug: str | None = None
    kind: SpanKind = "INTERNAL"
    level: SpanLevel = "SPAN"
    icon: str | None = None
    start_time: datetime
    duration: int = 0
    attempt_number: int | None = None
    is_error: bool = False
    is_partial: bool = False
    is_cancelled: bool = False
    properties: dict[str, Json] = {}
    events: list[SpanEvent] = []
    links: list[SpanLink] = []


class TraceSpan(_Answer):
    """A span in its tree. `run_id` differs from the trace's for a run that was triggered there.

    `children` are those that were asked for; `has_children` says whether there are any.
    """

    id: str
    parent_id: str | None = None
    run_id: str
    data: TraceSpanData
    has_children: bool = False
    children: list["TraceSpan"] = []


class Trace(_Answer):
    """The tree of a run; `is_truncated`: there is more, to be read in parts."""

    trace_id: str
    root_span: TraceSpan
    is_truncated: bool = False


class TraceAnswer(_Answer):
    """`GET /api/v1/runs/{runId}/trace`."""

    trace: Trace


class SpanPage(_Answer):
    """A part of what is right under a span, in the order of time; `next` is the cursor to go on."""

    data: list[TraceSpan]
    next: str | None = None


class EventPage(_Answer):
    """A part of a run's spans and lines, flat, in the order of time; `next`: where to go on."""

    events: list[TraceSpan]
    next: str | None = None
