"""OpenTelemetry's spans on their way out of a run's process: onto its output pipe."""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from runwell.core.payloads import Json
from runwell.core.spans import Span, SpanEvent, SpanLink, clip_span
from runwell.core.spans import SpanKind as Kind
from runwell.worker.capture import OutputPipe

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final[dict[SpanKind, Kind]] = {
    SpanKind.INTERNAL: "INTERNAL",
    SpanKind.SERVER: "SERVER",
    SpanKind.CLIENT: "CLIENT",
    SpanKind.PRODUCER: "PRODUCER",
    SpanKind.CONSUMER: "CONSUMER",
}


class PipeWriter(SpanProcessor):
    """Writes each span twice: when it begins, so that no crash hides it, and when it ends."""

    def __init__(self) -> None:
        self._pipe: OutputPipe | None = None
        self._attempt_id = ""

    def begin(self, pipe: OutputPipe, attempt_id: str) -> None:
        """From here on spans belong to this attempt."""
        self._pipe, self._attempt_id = pipe, attempt_id

    def end(self) -> None:
        """The attempt is over."""
        self._pipe = None

    def on_start(
        self,
        span: SdkSpan,
        parent_context: otel_context.Context | None = None,  # noqa: ARG002 (the SDK gives it)
    ) -> None:
        """A span began."""
        self._write(span)

    def on_end(self, span: ReadableSpan) -> None:
        """A span ended."""
        self._write(span)

    def _write(self, span: ReadableSpan) -> None:
        # Tracing must not fail what it traces, whatever a user's attributes do.
        with contextlib.suppress(Exception):
            own = span.get_span_context()
            if self._pipe is None or own is None or f"{own.span_id:016x}" == self._attempt_id:
                return
            made = clip_span(_convert(span, own))
            self._pipe.write_span(
                made.model_dump_json(by_alias=True, exclude_defaults=True).encode(
                    "utf-8", "replace"
                )
            )


def _convert(span: ReadableSpan, own: SpanContext) -> Span:
    events = [_event(one.name, one.timestamp, one.attributes) for one in span.events]
    names = {event.name for event in events}
    return Span.model_construct(
        span_id=f"{own.span_id:016x}",
        parent_span_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        name=span.name,
        kind=_KINDS[span.kind],
        started_at=_instant(span.start_time or 0),
        ended_at=None if span.end_time is None else _instant(span.end_time),
        is_error=span.status.status_code is StatusCode.ERROR,
        is_canceled="cancellation" in names,
        attributes=_plain(span.attributes),
        events=events,
        links=[_link(one) for one in span.links],
    )


def _event(name: str, timestamp: int, attributes: Mapping[str, Any] | None) -> SpanEvent:
    return SpanEvent.model_construct(
        name=name, time=_instant(timestamp), attributes=_plain(attributes)
    )


def _link(link: Link) -> SpanLink:
    return SpanLink.model_construct(
        trace_id=f"{link.context.trace_id:032x}",
        span_id=f"{link.context.span_id:016x}",
        attributes=_plain(link.attributes),
    )


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Json]:
    return {
        name: list(cast("Sequence[Json]", value)) if isinstance(value, tuple) else value
        for name, value in (attributes or {}).items()
    }


def _instant(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1_000)
