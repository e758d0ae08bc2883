"""Spans: ids that follow from a run's, W3C trace context, and what is cut off."""

from datetime import UTC, datetime
from typing import Any

import pytest

from runwell.core.spans import (
    CLIPPED,
    MAX_PACKET_CHARACTERS,
    Span,
    SpanEvent,
    SpanLink,
    attempt_span_id,
    clip_span,
    clip_text,
    is_span_id,
    make_traceparent,
    parse_traceparent,
    retry_span_id,
    run_span_id,
    trace_id_of,
)

_NOW = datetime(2025, 1, 1, tzinfo=UTC)
_TRACE, _SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def span(**fields: Any) -> Span:
    """A span."""
    return Span(span_id=_SPAN, name="a", started_at=_NOW, **fields)


def test_ids_follow_from_the_run_and_differ() -> None:
    ids = [run_span_id("run_1"), run_span_id("run_2")]
    ids += [attempt_span_id("run_1", number) for number in (1, 2)]
    ids.append(retry_span_id(_TRACE, 1))
    assert len(set(ids)) == len(ids)
    assert all(is_span_id(one) for one in ids)
    assert run_span_id("run_1") == ids[0]


def test_a_run_without_a_trace_context_has_a_trace_of_its_own() -> None:
    assert trace_id_of("run_1", None) != trace_id_of("run_2", None)
    assert trace_id_of("run_1", "nonsense") == trace_id_of("run_1", None)
    assert trace_id_of("run_1", make_traceparent(_TRACE, _SPAN)) == _TRACE


@pytest.mark.parametrize(
    "text", [None, "", "00-0-0-01", f"00-{'0' * 32}-{_SPAN}-01", f"00-{_TRACE}-{'0' * 16}-01"]
)
def test_what_is_no_trace_context_is_none(text: str | None) -> None:
    assert parse_traceparent(text) is None


def test_a_trace_context_is_read_in_any_case() -> None:
    assert parse_traceparent(f" {make_traceparent(_TRACE, _SPAN).upper()} ") == (_TRACE, _SPAN)


def test_a_span_within_the_limits_stays_as_it_is() -> None:
    given = span(attributes={"a": 1, "b": [1, 2]}, events=[SpanEvent(name="e", time=_NOW)])
    assert clip_span(given) == given


def test_what_is_too_much_is_left_out_and_said() -> None:
    event = SpanEvent(name="e", time=_NOW, attributes={str(number): 1 for number in range(12)})
    link = SpanLink(trace_id=_TRACE, span_id=_SPAN)
    found = clip_span(
        span(
            attributes={f"k{number}": 1 for number in range(300)},
            events=[event] + [SpanEvent(name="e", time=_NOW)] * 10,
            links=[link] * 3,
        )
    )
    assert len(found.attributes) == 257
    assert (len(found.events), len(found.links)) == (10, 2)
    assert len(found.events[0].attributes) == 10
    assert found.attributes[CLIPPED] == (
        "left out: 1 events, 1 links, 44 attributes, 2 attributes of an event or link"
    )


def test_long_values_are_cut_with_a_mark_and_payloads_may_be_longer() -> None:
    found = clip_span(
        span(attributes={"a": "x" * 2_000, "b": ["x" * 2_000], "$payload": "x" * 2_000})
    ).attributes
    assert str(found["a"]).endswith("... [1002 characters cut]")
    assert str(found["b"]).endswith("characters cut]")
    assert found["$payload"] == "x" * 2_000
    long = "x" * (MAX_PACKET_CHARACTERS + 1)
    assert clip_span(span(attributes={"$output": long})).attributes["$output"] != long


def test_a_text_is_cut_to_its_length() -> None:
    assert clip_text("abc", 3) == "abc"
    assert clip_text("a" * 40, 35) == "aaaaa... [35 characters cut]"
    assert clip_text("a" * 40, 10) == "... [40 characters cut]"


@pytest.mark.parametrize("text", ["", "0" * 16, "b7ad6b716920333", "B7AD6B7169203331", "z" * 16])
def test_what_is_no_span_id(text: str) -> None:
    assert not is_span_id(text)
