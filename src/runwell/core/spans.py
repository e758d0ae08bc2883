"""Captured lines and spans of a run's trace: their form, their ids, and what is cut off.

A trace needs no row of its own: the id of a trace, and those of the spans that stand for a run, its
attempts and the delays of retries, follow from the run's id. Sources: `protocol.md` section 9,
limits.md.
"""

import hashlib
import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from runwell.core.payloads import Json
from runwell.core.timing import Instant

MAX_ATTRIBUTES: Final = 256
MAX_VALUE_CHARACTERS: Final = 1_028
#: Payloads and outputs among the attributes may be longer.
MAX_PACKET_CHARACTERS: Final = 128 * 1024
MAX_EVENTS: Final = 10
MAX_LINKS: Final = 2
#: Of one event or link.
MAX_ITEM_ATTRIBUTES: Final = 10
MAX_NAME_CHARACTERS: Final = 512
#: Spans of a run beyond this are dropped with a mark.
MAX_SPANS_PER_RUN: Final = 20_000
#: Says on a span what was left out.
CLIPPED: Final = "$clipped"
#: All zeros: what W3C trace context reserves for "none".
_NO_SPAN: Final = "0" * 16
_NO_TRACE: Final = "0" * 32
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_LONG_VALUES = ("$payload", "$output")

SpanKind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
LineLevel = Literal["TRACE", "DEBUG", "LOG", "INFO", "WARN", "ERROR"]
SpanLevel = Literal["SPAN", "TRACE", "DEBUG", "LOG", "INFO", "WARN", "ERROR"]
SpanId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class CapturedLine(_Wire):
    """One log line; `seq` numbers the lines of an attempt from 1."""

    seq: int = Field(ge=0, le=2**31 - 1)
    time: Instant
    level: LineLevel
    message: str
    attributes: dict[str, Json] | None = None
    span_id: SpanId | None = None


class SpanEvent(_Wire):
    """Something that happened at an instant of a span."""

    name: str
    time: Instant
    attributes: dict[str, Json] = {}


class SpanLink(_Wire):
    """A span of another trace that a span has to do with."""

    trace_id: str
    span_id: str
    attributes: dict[str, Json] = {}


class Span(_Wire):
    """A span, or a log record that became one (its `level` says so, and it has no length).

    Without `ended_at` it goes on still, as far as its sender knows: it is partial. Without a parent
    it is right under its attempt.
    """

    span_id: SpanId
    parent_span_id: SpanId | None = None
    name: str
    kind: SpanKind = "INTERNAL"
    level: SpanLevel = "SPAN"
    started_at: Instant
    ended_at: Instant | None = None
    is_error: bool = False
    is_canceled: bool = False
    attributes: dict[str, Json] = {}
    events: list[SpanEvent] = []
    links: list[SpanLink] = []


def trace_id_of(run_id: str, traceparent: str | None) -> str:
    """The trace of a run: that of whoever triggered it, else one of its own.

    >>> trace_id_of("run_1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    '0af7651916cd43dd8448eb211c80319c'
    """
    parsed = parse_traceparent(traceparent)
    return _digest(run_id, "trace")[:32] if parsed is None else parsed[0]


def run_span_id(run_id: str) -> str:
    """The span that stands for a run."""
    return _digest(run_id, "run")[:16]


def attempt_span_id(run_id: str, attempt_number: int) -> str:
    """The span that stands for an attempt of a run."""
    return _digest(run_id, f"attempt-{attempt_number}")[:16]


def retry_span_id(trace_id: str, attempt_number: int) -> str:
    """The span of the delay after an attempt, by the rule of `protocol.md` section 9.3."""
    named = f"{trace_id}retry-{attempt_number + 1}".encode()
    return hashlib.sha1(named, usedforsecurity=False).hexdigest()[:16]


def make_traceparent(trace_id: str, span_id: str) -> str:
    """A W3C trace context that says: sampled."""
    return f"00-{trace_id}-{span_id}-01"


def parse_traceparent(text: str | None) -> tuple[str, str] | None:
    """Trace id and span id of a W3C trace context; None for what is none.

    >>> parse_traceparent("00-00000000000000000000000000000000-b7ad6b7169203331-01") is None
    True
    """
    found = None if text is None else _TRACEPARENT.fullmatch(text.strip().lower())
    if found is None or found[1] == _NO_TRACE or found[2] == _NO_SPAN:
        return None
    return found[1], found[2]


def is_span_id(text: str) -> bool:
    """Whether a text is the id of a span: 16 hexadecimal digits that are not all zero.

    >>> is_span_id("b7ad6b7169203331"), is_span_id("0" * 16)
    (True, False)
    """
    return _SPAN_ID.fullmatch(text) is not None and text != _NO_SPAN


def clip_span(span: Span) -> Span:
    """A span within the limits; its attribute `$clipped` says what is gone."""
    notes: list[str] = []
    events, links = span.events[:MAX_EVENTS], span.links[:MAX_LINKS]
    for kept, given, what in ((events, span.events, "events"), (links, span.links, "links")):
        if len(given) > len(kept):
            notes.append(f"{len(given) - len(kept)} {what}")
    attributes = _clip_attributes(span.attributes, MAX_ATTRIBUTES, notes, "attributes")
    for item in (*events, *links):
        item.attributes = _clip_attributes(
            item.attributes, MAX_ITEM_ATTRIBUTES, notes, "attributes of an event or link"
        )
    if notes:
        attributes[CLIPPED] = f"left out: {', '.join(dict.fromkeys(notes))}"
    return span.model_copy(
        update={
            "name": clip_text(span.name, MAX_NAME_CHARACTERS),
            "attributes": attributes,
            "events": events,
            "links": links,
        }
    )


def clip_text(text: str, most: int) -> str:
    """A text of at most so many characters; one that was longer says so at its end.

    >>> clip_text("a" * 100, 50)
    'aaaaaaaaaaaaaaaaaaaa... [80 characters cut]'
    """
    if len(text) <= most:
        return text
    kept = max(0, most - 30)
    return f"{text[:kept]}... [{len(text) - kept} characters cut]"


def _clip_attributes(
    attributes: dict[str, Json], most: int, notes: list[str], what: str
) -> dict[str, Json]:
    if len(attributes) > most:
        notes.append(f"{len(attributes) - most} {what}")
    kept = list(attributes.items())[:most]
    return {clip_text(name, MAX_NAME_CHARACTERS): _clip_value(name, value) for name, value in kept}


def _clip_value(name: str, value: Json) -> Json:
    most = MAX_PACKET_CHARACTERS if name.startswith(_LONG_VALUES) else MAX_VALUE_CHARACTERS
    if isinstance(value, str):
        return clip_text(value, most)
    if isinstance(value, list | dict):
        text = str(value)
        return value if len(text) <= most else clip_text(text, most)
    return value


def _digest(run_id: str, what: str) -> str:
    return hashlib.blake2b(f"{run_id} {what}".encode(), digest_size=16).hexdigest()
