"""The trace of a run: its spans and lines as a tree, whole or in parts.

The spans of a run, of its attempts and of the delays between them are made from the rows of the run
(`trace_spans`), so that they always say what is true, whoever died. What still seems to go on in an
attempt that has ended, has ended with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from runwell.core.errors import RequestError
from runwell.core.spans import attempt_span_id
from runwell.core.trace_schemas import EventPage, SpanPage, Trace, TraceAnswer, TraceSpan
from runwell.engine.db import Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trace_spans import (
    TracedRun,
    child_run_span,
    line_span,
    own_spans,
    read_run,
    stored_span,
)

_sql = load_queries("traces")

MAX_PAGE: Final = 1_000
#: A tree in one answer has no more than this; the rest is read in parts.
MAX_TREE: Final = 5_000
#: Runs that a run triggered, as spans of its trace.
MAX_CHILD_RUNS: Final = 1_000
# As deep as JSON is read everywhere.
_MAX_DEPTH = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_INTEGER = 2**31 - 1
_MAX_MICROSECONDS = 2**57


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """How far spans, and lines, have been read: the two are merged by their time."""

    microseconds: int = 0
    span_id: str = ""
    attempt: int = 0
    seq: int = 0

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """Read the `next` of a page; raises RequestError 400 for anything else."""
        if text is None:
            return cls()
        parts = text.split(".") if len(text) < 80 and text.isascii() else []
        if len(parts) == 4 and all(part.isdecimal() for part in (parts[0], *parts[2:])):
            microseconds, attempt, seq = int(parts[0]), int(parts[2]), int(parts[3])
            fits = microseconds <= _MAX_MICROSECONDS and max(attempt, seq) <= _MAX_INTEGER
            if fits and "\x00" not in parts[1]:
                return cls(microseconds=microseconds, span_id=parts[1], attempt=attempt, seq=seq)
        raise RequestError(400, f"after: {text[:80]!r} is not the `next` of a page of this trace")

    @property
    def time(self) -> datetime:
        """The start of the span that was read last."""
        return _EPOCH + self.microseconds * _MICROSECOND

    def __str__(self) -> str:
        """As a page's `next`."""
        return f"{self.microseconds}.{self.span_id}.{self.attempt}.{self.seq}"


async def read_trace(
    tx: Transaction, environment: Environment, run_id: str, *, limit: int
) -> TraceAnswer:
    """The tree of a run with at most `limit` stored spans and lines.

    Raises RequestError 404 when the environment has no such run.
    """
    run = await _get_run(tx, environment, run_id)
    own = [*own_spans(run), *await _child_runs(tx, environment, run)]
    found, following = await _read_flat(tx, run, Cursor(), limit)
    trace = Trace(
        trace_id=run.trace_id,
        root_span=_nest(own[0], [*own[1:], *found]),
        is_truncated=following is not None,
    )
    return TraceAnswer(trace=trace)


async def list_events(
    tx: Transaction, environment: Environment, run_id: str, *, after: str | None, limit: int
) -> EventPage:
    """Spans and lines of a run in the order of time, flat.

    The spans of the run itself and of the runs that it triggered are on the first page. Raises
    RequestError 404 when there is no such run, and 400 for a cursor that no page gave.
    """
    cursor = Cursor.parse(after)
    run = await _get_run(tx, environment, run_id)
    found, following = await _read_flat(tx, run, cursor, limit)
    if after is None:
        found = _sorted([*own_spans(run), *await _child_runs(tx, environment, run), *found])
    return EventPage(events=found, next=following)


async def list_children(
    tx: Transaction,
    environment: Environment,
    run_id: str,
    span_id: str,
    *,
    after: str | None,
    limit: int,
) -> SpanPage:
    """A page of what is right under a span.

    Attempts, and runs that were triggered, are on the first page. Raises RequestError 404 when
    there is no such run, and 400 for a cursor that no page gave.
    """
    cursor = Cursor.parse(after)
    run = await _get_run(tx, environment, run_id)
    spans = await tx.fetch(
        _sql.list_children,
        run_id=run_id,
        first_day=_first_day(run),
        parent_span_id=span_id,
        after_time=cursor.time,
        after_span_id=cursor.span_id,
        most=limit,
    )
    lines = await _lines_under(tx, run, span_id, cursor, limit)
    page, following = _merge(run, spans, lines, cursor, limit)
    runs = await _child_runs(tx, environment, run)
    if after is None:
        first = [span for span in (*own_spans(run)[1:], *runs) if span.parent_id == span_id]
        page = _sorted([*first, *page])
    await _mark_parents(tx, run, page, runs)
    return SpanPage(data=page, next=following)


async def get_span(
    tx: Transaction, environment: Environment, run_id: str, span_id: str
) -> TraceSpan:
    """One span, without what is under it; raises RequestError 404 when there is no such one."""
    run = await _get_run(tx, environment, run_id)
    found = next((span for span in own_spans(run) if span.id == span_id), None)
    if found is None:
        row = await tx.fetch_one(
            _sql.find_span, run_id=run_id, span_id=span_id, first_day=_first_day(run)
        )
        if row is None:
            raise RequestError(404, f"the trace of run {run_id} has no span {span_id[:40]!r}")
        found = stored_span(row, run)
    await _mark_parents(tx, run, [found], await _child_runs(tx, environment, run))
    return found


async def _get_run(tx: Transaction, environment: Environment, run_id: str) -> TracedRun:
    row = await tx.fetch_one(_sql.find_traced_run, run_id=run_id, environment_id=environment.id)
    if row is None:
        raise RequestError(404, f"there is no run {run_id!r} in this environment")
    return read_run(row)


async def _child_runs(tx: Transaction, environment: Environment, run: TracedRun) -> list[TraceSpan]:
    rows = await tx.fetch(
        _sql.list_child_runs,
        run_id=run.run_id,
        environment_id=environment.id,
        after="",
        most=MAX_CHILD_RUNS,
    )
    return [child_run_span(row, run) for row in rows]


async def _read_flat(
    tx: Transaction, run: TracedRun, cursor: Cursor, limit: int
) -> tuple[list[TraceSpan], str | None]:
    spans = await tx.fetch(
        _sql.list_spans,
        run_id=run.run_id,
        first_day=_first_day(run),
        after_time=cursor.time,
        after_span_id=cursor.span_id,
        most=limit,
    )
    lines = await tx.fetch(
        _sql.list_lines,
        run_id=run.run_id,
        after_attempt=cursor.attempt,
        after_seq=cursor.seq,
        most=limit,
    )
    return _merge(run, spans, lines, cursor, limit)


async def _lines_under(
    tx: Transaction, run: TracedRun, span_id: str, cursor: Cursor, limit: int
) -> list[Row]:
    for attempt in run.attempts:
        if attempt_span_id(run.run_id, attempt.number) == span_id:
            return await tx.fetch(
                _sql.list_lines_of_attempt,
                run_id=run.run_id,
                attempt_number=attempt.number,
                after_seq=cursor.seq,
                most=limit,
            )
    return await tx.fetch(
        _sql.list_lines_in_span,
        run_id=run.run_id,
        span_id=span_id,
        after_attempt=cursor.attempt,
        after_seq=cursor.seq,
        most=limit,
    )


def _merge(
    run: TracedRun, spans: list[Row], lines: list[Row], cursor: Cursor, limit: int
) -> tuple[list[TraceSpan], str | None]:
    """The first `limit` of both by time, and the cursor behind them; None when that was all."""
    found: list[tuple[datetime, int, Row]] = [
        *((row["started_at"], 0, row) for row in spans),
        *((row["logged_at"], 1, row) for row in lines),
    ]
    # A stable sort: each kind stays in its own order, in which a cursor goes on.
    found.sort(key=lambda one: one[:2])
    made: list[TraceSpan] = []
    for _, kind, row in found[:limit]:
        if kind == 0:
            made.append(stored_span(row, run))
            microseconds = (row["started_at"] - _EPOCH) // _MICROSECOND
            cursor = replace(cursor, microseconds=microseconds, span_id=row["span_id"])
        else:
            made.append(line_span(row, run.run_id))
            cursor = replace(cursor, attempt=row["attempt_number"], seq=row["seq"])
    return made, str(cursor) if len(found) >= limit else None


async def _mark_parents(
    tx: Transaction, run: TracedRun, page: list[TraceSpan], child_runs: list[TraceSpan]
) -> None:
    parents = {span.parent_id for span in child_runs}
    asked = [span.id for span in page if span.run_id == run.run_id and span.data.level == "SPAN"]
    rows = await tx.fetch(
        _sql.list_parents, run_id=run.run_id, span_ids=asked, first_day=_first_day(run)
    )
    parents.update(row["span_id"] for row in rows)
    for span in page:
        span.has_children = span.has_children or span.id in parents


def _nest(root: TraceSpan, others: Iterable[TraceSpan]) -> TraceSpan:
    """A tree of flat spans. What has a parent that isn't there is right under the root."""
    others = _sorted(others)
    by_id = {span.id: span for span in (root, *others)}
    for span in others:
        parent = by_id.get(span.parent_id or "")
        if parent is None or parent is span:
            parent = root
        parent.children.append(span)
        parent.has_children = True
    _flatten(root)
    return root


def _flatten(root: TraceSpan) -> None:
    """Put what is deeper than any reader follows onto the last level."""
    level = [root]
    for _ in range(_MAX_DEPTH):
        level = [child for span in level for child in span.children]
    for span in level:
        deeper = [*span.children]
        for child in deeper:
            deeper.extend(child.children)
            child.children = []
        span.children = deeper


def _sorted(spans: Iterable[TraceSpan]) -> list[TraceSpan]:
    return sorted(spans, key=lambda span: span.data.start_time)


def _first_day(run: TracedRun) -> date:
    # Spans may say that they started a little before their run, by another clock.
    return (run.created_at - timedelta(days=1)).date()
