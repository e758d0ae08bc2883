"""What the spans of a trace are made of: rows of spans and lines, and the rows of a run itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from runwell.core.payloads import Json
from runwell.core.spans import (
    SpanEvent,
    SpanLink,
    attempt_span_id,
    parse_traceparent,
    retry_span_id,
    run_span_id,
    trace_id_of,
)
from runwell.core.trace_schemas import TraceSpan, TraceSpanData
from runwell.engine.db import Row

_ERROR_STATUSES: Final = frozenset(
    {"FAILED", "CRASHED", "INTERRUPTED", "SYSTEM_FAILURE", "TIMED_OUT", "EXPIRED"}
)
_FINISHED = "FINISHED"


@dataclass(frozen=True, kw_only=True)
class TracedAttempt:
    """An attempt as its span needs it."""

    number: int
    status: str
    started_at: datetime
    completed_at: datetime | None
    error: dict[str, Json] | None
    machine: str | None


@dataclass(frozen=True, kw_only=True)
class TracedRun:
    """A run as its trace needs it; `due_at` is when its next attempt may start."""

    run_id: str
    task_id: str
    status: str
    created_at: datetime
    finished_at: datetime | None
    traceparent: str | None
    is_test: bool
    attempts: tuple[TracedAttempt, ...]
    due_at: datetime | None

    @property
    def trace_id(self) -> str:
        """The id of its trace."""
        return trace_id_of(self.run_id, self.traceparent)

    def end_of(self, attempt_number: int | None) -> datetime | None:
        """When an attempt ended, or the run when it is about none; None while it goes on."""
        for attempt in self.attempts:
            if attempt.number == attempt_number and attempt.completed_at is not None:
                return attempt.completed_at
        return self.finished_at


def read_run(row: Row) -> TracedRun:
    """The run of a row of `find_traced_run`."""
    attempts = tuple(
        TracedAttempt(
            number=found["number"],
            status=found["status"],
            started_at=datetime.fromisoformat(found["started_at"]),
            completed_at=None
            if found["completed_at"] is None
            else datetime.fromisoformat(found["completed_at"]),
            error=found["error"],
            machine=found["machine"],
        )
        for found in json.loads(row["attempts"] or "[]")
    )
    return TracedRun(
        run_id=row["id"],
        task_id=row["task_id"],
        status=row["status"],
        created_at=row["created_at"],
        finished_at=row["finished_at"] if row["execution_status"] == _FINISHED else None,
        traceparent=_traceparent(row),
        is_test=row["is_test"],
        attempts=attempts,
        due_at=row["due_at"],
    )


def own_spans(run: TracedRun) -> list[TraceSpan]:
    """The spans of the run itself, of its attempts, and of the delays between those."""
    parsed = parse_traceparent(run.traceparent)
    root = TraceSpan(
        id=run_span_id(run.run_id),
        parent_id=None if parsed is None else parsed[1],
        run_id=run.run_id,
        has_children=bool(run.attempts),
        data=_run_data(run.task_id, run.status, run.created_at, run.finished_at),
    )
    spans = [root]
    for number, attempt in enumerate(run.attempts, 1):
        following = run.attempts[number] if number < len(run.attempts) else None
        spans.append(_attempt_span(run, root, attempt))
        delay = _retry_span(run, root, attempt, following)
        if delay is not None:
            spans.append(delay)
    return spans


def child_run_span(row: Row, run: TracedRun) -> TraceSpan:
    """The span of a run that a run triggered: under the call that did it, if that is known."""
    parsed = parse_traceparent(_traceparent(row))
    if parsed is not None and parsed[0] == run.trace_id:
        parent_id = parsed[1]
    else:
        before = [one.number for one in run.attempts if one.started_at <= row["created_at"]]
        parent_id = attempt_span_id(run.run_id, before[-1]) if before else run_span_id(run.run_id)
    is_over = row["execution_status"] == _FINISHED
    finished_at = row["finished_at"] if is_over else None
    return TraceSpan(
        id=run_span_id(row["id"]),
        parent_id=parent_id,
        run_id=row["id"],
        has_children=True,
        data=_run_data(row["task_id"], row["status"], row["created_at"], finished_at),
    )


def stored_span(row: Row, run: TracedRun) -> TraceSpan:
    """A span that was sent in. One that seems to go on has ended with its attempt."""
    attempt = row["attempt_number"] or None
    ended_at: datetime | None = row["ended_at"]
    is_error, is_canceled = row["is_error"], row["is_canceled"]
    is_open = ended_at is None
    if is_open:
        ended_at = run.end_of(attempt)
        if ended_at is not None:
            is_canceled = is_canceled or run.status == "CANCELED"
            is_error = is_error or not (is_canceled or run.status == "COMPLETED")
    attributes: dict[str, Json] = json.loads(row["attributes"] or "{}")
    icon = attributes.get("$style.icon")
    return TraceSpan(
        id=row["span_id"],
        parent_id=row["parent_span_id"],
        run_id=run.run_id,
        data=TraceSpanData(
            message=row["name"],
            kind=row["kind"],
            level=row["level"],
            icon=icon if isinstance(icon, str) else None,
            start_time=row["started_at"],
            duration=_nanoseconds(row["started_at"], ended_at),
            attempt_number=attempt,
            is_error=is_error,
            is_partial=ended_at is None,
            is_cancelled=is_canceled,
            properties=attributes,
            events=[SpanEvent.model_validate(one) for one in json.loads(row["events"] or "[]")],
            links=[SpanLink.model_validate(one) for one in json.loads(row["links"] or "[]")],
        ),
    )


def line_span(row: Row, run_id: str) -> TraceSpan:
    """A captured line, as the leaf that it is in the trace."""
    attempt, seq = row["attempt_number"], row["seq"]
    return TraceSpan(
        id=f"{attempt:04x}{seq:012x}",
        parent_id=row["span_id"] or attempt_span_id(run_id, attempt),
        run_id=run_id,
        data=TraceSpanData(
            message=row["message"],
            level=row["level"],
            start_time=row["logged_at"],
            attempt_number=attempt,
            is_error=row["level"] == "ERROR",
            properties=json.loads(row["attributes"] or "{}"),
        ),
    )


def _run_data(
    task_id: str, status: str, created_at: datetime, finished_at: datetime | None
) -> TraceSpanData:
    is_canceled = status == "CANCELED"
    events: list[SpanEvent] = []
    if is_canceled and finished_at is not None:
        reason: dict[str, Json] = {"reason": "the run was canceled"}
        events.append(SpanEvent(name="cancellation", time=finished_at, attributes=reason))
    return TraceSpanData(
        message=task_id,
        task_slug=task_id,
        kind="SERVER",
        icon="task",
        start_time=created_at,
        duration=_nanoseconds(created_at, finished_at),
        is_error=status in _ERROR_STATUSES,
        is_partial=finished_at is None,
        is_cancelled=is_canceled,
        properties={"run.status": status, "$style.variant": "primary"},
        events=events,
    )


def _attempt_span(run: TracedRun, root: TraceSpan, attempt: TracedAttempt) -> TraceSpan:
    ended_at = attempt.completed_at or run.finished_at
    events: list[SpanEvent] = []
    if attempt.error is not None:
        events.append(
            SpanEvent(
                name="exception",
                time=ended_at or attempt.started_at,
                attributes=_exception_of(attempt.error),
            )
        )
    is_canceled = attempt.status == "CANCELED"
    if is_canceled and ended_at is not None:
        reason: dict[str, Json] = {"reason": "the run was canceled"}
        events.append(SpanEvent(name="cancellation", time=ended_at, attributes=reason))
    properties: dict[str, Json] = {"$span.attempt": True, "$style.icon": "attempt"}
    if attempt.machine is not None:
        properties["ctx.machine.name"] = attempt.machine
    return TraceSpan(
        id=attempt_span_id(run.run_id, attempt.number),
        parent_id=root.id,
        run_id=run.run_id,
        # Nobody knows without looking for lines, of which nearly every attempt has some.
        has_children=True,
        data=TraceSpanData(
            message=f"Attempt {attempt.number}",
            task_slug=run.task_id,
            kind="CONSUMER",
            icon="attempt",
            start_time=attempt.started_at,
            duration=_nanoseconds(attempt.started_at, ended_at),
            attempt_number=attempt.number,
            is_error=attempt.status == "FAILED",
            is_partial=ended_at is None,
            is_cancelled=is_canceled,
            properties=properties,
            events=events,
        ),
    )


def _retry_span(
    run: TracedRun, root: TraceSpan, attempt: TracedAttempt, following: TracedAttempt | None
) -> TraceSpan | None:
    """The delay after a failed attempt, until the next one started or may start."""
    if attempt.status != "FAILED" or attempt.completed_at is None:
        return None
    until = following.started_at if following is not None else run.due_at
    if until is None:
        return None
    properties: dict[str, Json] = {
        "retryAt": until.isoformat(),
        "$style.icon": "schedule-attempt",
    }
    name = f"Retry #{attempt.number} delay"
    machines = attempt.machine, None if following is None else following.machine
    if None not in machines and machines[0] != machines[1]:
        name = f"{name} after OOM"
        properties["previousMachine"], properties["nextMachine"] = machines
    is_waiting = following is None and run.finished_at is None
    return TraceSpan(
        id=retry_span_id(run.trace_id, attempt.number),
        parent_id=root.id,
        run_id=run.run_id,
        data=TraceSpanData(
            message=name,
            icon="schedule-attempt",
            start_time=attempt.completed_at,
            duration=_nanoseconds(attempt.completed_at, until),
            is_partial=is_waiting,
            properties=properties,
        ),
    )


def _exception_of(error: Mapping[str, Json]) -> dict[str, Json]:
    kind = error.get("name") or error.get("code") or "Error"
    message = error.get("message") or error.get("raw") or ""
    found: dict[str, Json] = {"exception.type": kind, "exception.message": message}
    if error.get("stackTrace"):
        found["exception.stacktrace"] = error["stackTrace"]
    return found


def _traceparent(row: Row) -> str | None:
    context: Any = json.loads(row["trace_context"] or "null")
    text = cast("dict[str, object]", context).get("traceparent") if context else None
    return text if isinstance(text, str) else None


def _nanoseconds(started_at: datetime, ended_at: datetime | None) -> int:
    if ended_at is None:
        return 0
    return max(0, (ended_at - started_at) // timedelta(microseconds=1) * 1_000)
