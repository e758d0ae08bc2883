"""The spans of an attempt on their way from its process to the server."""

from datetime import UTC, datetime

from pydantic import ValidationError

from runwell.core.spans import MAX_SPANS_PER_RUN, Span
from runwell.worker.texts import clean_json

_MARK_ID = "f" * 16


class SpanCollector:
    """Spans that are to be sent; the end of one takes the place of its start."""

    def __init__(self) -> None:
        self._waiting: dict[str, Span] = {}
        self._count = 0

    @property
    def has_some(self) -> bool:
        """Whether there is something to send."""
        return bool(self._waiting)

    def add(self, body: bytes) -> int:
        """A span as its process wrote it; returns how much there is more to send, in bytes.

        What is no span was written by somebody whose bytes only look like one.
        """
        if self._count > MAX_SPANS_PER_RUN:
            return 0
        try:
            span = Span.model_validate_json(body)
        except ValidationError:
            return 0
        if b"\\u" in body:
            # The one place where a NUL or a lone surrogate can hide, which no report can hold.
            span = Span.model_validate(clean_json(span.model_dump(mode="json")))
        if span.ended_at is None:
            self._count += 1
            if self._count > MAX_SPANS_PER_RUN:
                span = _mark(span)
        self._waiting[span.span_id] = span
        return len(body)

    def take(self) -> list[Span]:
        """What is to be sent now."""
        taken, self._waiting = self._waiting, {}
        return list(taken.values())


def _mark(last: Span) -> Span:
    now = datetime.now(UTC)
    return Span(
        span_id=_MARK_ID,
        name=f"[more than {MAX_SPANS_PER_RUN:,} spans: what follows is not kept]",
        level="WARN",
        started_at=max(last.started_at, now),
        ended_at=max(last.started_at, now),
    )
