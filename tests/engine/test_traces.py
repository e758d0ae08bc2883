"""Traces: spans are stored once, the tree says what is true, and is read in parts."""

from datetime import timedelta

import pytest

from runwell.core.errors import RequestError
from runwell.core.protocol import DequeuedRun, LogsReport
from runwell.core.schemas import TriggerBody, TriggerOptions
from runwell.core.spans import (
    CapturedLine,
    Span,
    SpanEvent,
    attempt_span_id,
    make_traceparent,
    retry_span_id,
    run_span_id,
    trace_id_of,
)
from runwell.core.trace_schemas import TraceSpan
from runwell.engine import spans, traces
from runwell.engine.db import Database
from runwell.engine.trigger_options import TriggerRequest
from runwell.engine.triggering import trigger_run
from tests.support.factories import (
    NOW,
    Scene,
    canceled,
    complete,
    fail,
    make_scene,
    make_task,
    read,
    write_lines,
)

_SECOND = timedelta(seconds=1)


def span(number: int, **fields: object) -> Span:
    """The span with this number, which started so many seconds after the run."""
    given: dict[str, object] = {
        "span_id": f"{number:016x}",
        "name": f"span {number}",
        "started_at": NOW + number * _SECOND,
        **fields,
    }
    return Span.model_validate(given)


def write_spans(run: DequeuedRun, *found: Span, lines: tuple[CapturedLine, ...] = ()) -> LogsReport:
    """A worker's report of spans."""
    return LogsReport(
        run_id=run.run_id,
        snapshot_id=run.snapshot_id,
        attempt_number=run.attempt_number,
        lines=list(lines),
        spans=list(found),
    )


def outline(root: TraceSpan) -> dict[str, object]:
    """The messages of a tree."""
    return {child.data.message: outline(child) for child in root.children}


async def tree(scene: Scene, run_id: str, limit: int = 1000) -> TraceSpan:
    """The root of a run's trace."""
    async with scene.db.connection() as tx:
        answer = await traces.read_trace(tx, scene.environment, run_id, limit=limit)
    return answer.trace.root_span


async def test_a_run_its_attempts_spans_and_lines_are_one_tree(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    inner = span(2, parent_span_id=f"{1:016x}", ended_at=NOW + 3 * _SECOND)
    line = CapturedLine(seq=2, time=NOW, level="INFO", message="in it", span_id=f"{1:016x}")
    await worker.report(
        write_lines(run, "outside"),
        write_spans(run, span(1, ended_at=NOW + 4 * _SECOND), inner, lines=(line,)),
        complete(run),
    )
    root = await tree(scene, run.run_id)
    assert root.id == run_span_id(run.run_id)
    assert not root.data.is_partial
    assert outline(root) == {
        "Attempt 1": {"outside": {}, "span 1": {"in it": {}, "span 2": {}}},
    }
    (attempt,) = root.children
    assert attempt.id == attempt_span_id(run.run_id, 1)
    assert attempt.children[1].data.duration == 3_000_000_000


async def test_a_late_partial_span_never_hides_its_end(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_spans(run, span(1)))
    (attempt,) = (await tree(scene, run.run_id)).children
    assert attempt.children[0].data.is_partial
    ended = span(1, ended_at=NOW + 2 * _SECOND, name="ended")
    await worker.report(write_spans(run, ended))
    await worker.report(write_spans(run, span(1)))
    (attempt,) = (await tree(scene, run.run_id)).children
    assert [(one.data.message, one.data.is_partial) for one in attempt.children] == [
        ("ended", False)
    ]


async def test_the_start_and_the_end_of_a_span_in_one_report_are_one_span(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_spans(run, span(1), span(1, ended_at=NOW + 2 * _SECOND), span(1)))
    (attempt,) = (await tree(scene, run.run_id)).children
    assert [one.data.is_partial for one in attempt.children] == [False]


async def test_what_is_open_when_its_run_is_canceled_has_been_canceled(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_spans(run, span(1)))
    await scene.cancel(run.run_id)
    await worker.report(canceled(run))
    root = await tree(scene, run.run_id)
    (attempt,) = root.children
    (left,) = attempt.children
    assert [one.data.is_cancelled for one in (root, attempt, left)] == [True] * 3
    assert [one.data.is_partial for one in (root, attempt, left)] == [False] * 3
    assert [event.name for event in root.data.events] == ["cancellation"]


async def test_a_failed_attempt_has_its_exception_and_the_delay_after_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_spans(run, span(1)), fail(run))
    root = await tree(scene, run.run_id)
    first, delay = root.children
    assert first.data.is_error
    (event,) = first.data.events
    assert event.attributes["exception.type"] == "ValueError"
    # What was open in an attempt that failed has failed, though the run goes on.
    assert [(one.data.is_error, one.data.is_partial) for one in first.children] == [(True, False)]
    assert delay.data.message == "Retry #1 delay"
    assert delay.id == retry_span_id(trace_id_of(run.run_id, None), 1)
    assert delay.data.is_partial


async def test_a_child_run_is_under_the_span_that_triggered_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_spans(run, span(1, ended_at=NOW + 2 * _SECOND)))
    trace_id = trace_id_of(run.run_id, None)
    wanted = TriggerRequest(
        task_id="add",
        body=TriggerBody(
            payload="1", options=TriggerOptions.model_validate({"parentRunId": run.run_id})
        ),
        traceparent=make_traceparent(trace_id, f"{1:016x}"),
    )
    child_id = (await trigger_run(db, scene.environment, wanted, now=scene.now)).run_id
    root = await tree(scene, run.run_id)
    (child,) = root.children[0].children[0].children
    assert (child.id, child.run_id) == (run_span_id(child_id), child_id)
    async with db.connection() as tx:
        answer = await traces.read_trace(tx, scene.environment, child_id, limit=10)
    assert answer.trace.trace_id == trace_id


async def test_many_lines_are_read_in_parts_each_once_and_in_order(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    texts = [f"line {number}" for number in range(25)]
    ended = [span(n, ended_at=NOW + n * _SECOND) for n in range(1, 6)]
    await worker.report(write_lines(run, *texts), write_spans(run, *ended))
    attempt_id = attempt_span_id(run.run_id, 1)
    seen: list[TraceSpan] = []
    after: str | None = None
    async with db.connection() as tx:
        while True:
            page = await traces.list_children(
                tx, scene.environment, run.run_id, attempt_id, after=after, limit=7
            )
            seen += page.data
            after = page.next
            if after is None:
                break
    lines = [one.data.message for one in seen if one.data.level != "SPAN"]
    assert lines == texts
    assert [one.data.message for one in seen if one.data.level == "SPAN"] == [
        f"span {number}" for number in range(1, 6)
    ]
    async with db.connection() as tx:
        answer = await traces.read_trace(tx, scene.environment, run.run_id, limit=10)
    assert answer.trace.is_truncated


async def test_events_are_all_spans_and_lines_in_the_order_of_time(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_spans(run, span(2), span(1)), write_lines(run, "a"))
    async with db.connection() as tx:
        page = await traces.list_events(tx, scene.environment, run.run_id, after=None, limit=2)
        rest = await traces.list_events(
            tx, scene.environment, run.run_id, after=page.next, limit=200
        )
    found = [one.data.message for one in (*page.events, *rest.events)]
    assert sorted(found) == ["Attempt 1", "a", "add", "span 1", "span 2"]
    assert found[-1] == "span 2"
    assert rest.next is None


@pytest.mark.parametrize("after", ["x", "1.2", "1.a.b.c", "9" * 40 + "..1.1", "1.\x00.1.1"])
async def test_a_cursor_that_no_page_gave_is_refused(db: Database, after: str) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    async with db.connection() as tx:
        with pytest.raises(RequestError, match=r"after: .* is not the `next`"):
            await traces.list_events(tx, scene.environment, run_id, after=after, limit=2)


async def test_one_span_is_shown_with_its_attributes(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    event = SpanEvent(name="hit\x00", time=NOW, attributes={"a": "b\x00"})
    inner = span(2, parent_span_id=f"{1:016x}")
    await worker.report(write_spans(run, span(1, attributes={"k": [1]}, events=[event]), inner))
    async with db.connection() as tx:
        found = await traces.get_span(tx, scene.environment, run.run_id, f"{1:016x}")
        root = await traces.get_span(tx, scene.environment, run.run_id, run_span_id(run.run_id))
        with pytest.raises(RequestError, match="has no span 'ff'"):
            await traces.get_span(tx, scene.environment, run.run_id, "ff")
        with pytest.raises(RequestError, match="there is no run 'run_x'"):
            await traces.get_span(tx, scene.environment, "run_x", "ff")
    assert found.data.properties == {"k": [1]}
    assert found.data.events[0].attributes == {"a": "b\ufffd"}
    assert found.has_children
    assert root.data.kind == "SERVER"


async def test_days_are_made_ahead_and_dropped_when_they_are_old(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await spans.keep_days(db, now=NOW, lifetime=None)
    old = span(1, started_at=NOW - timedelta(days=400))
    await worker.report(write_spans(run, old, span(2)))
    rows = await read(db, "SELECT tableoid::regclass::text AS kept FROM run_spans ORDER BY 1")
    assert sorted(row["kept"] for row in rows) == [f"run_spans_{NOW:%Y%m%d}", "run_spans_other"]
    # A day whose spans are in the default partition stays there.
    await spans.keep_days(db, now=NOW - timedelta(days=400), lifetime=None)
    await spans.keep_days(db, now=NOW + timedelta(days=30), lifetime=timedelta(days=40))
    assert len(await read(db, "SELECT 1 FROM run_spans")) == 1
    await spans.keep_days(db, now=NOW + timedelta(days=60), lifetime=timedelta(days=40))
    assert await read(db, "SELECT 1 FROM run_spans") == []


async def test_a_chain_of_spans_without_end_is_no_deeper_than_its_readers(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    chain = [span(n, parent_span_id=f"{n - 1:016x}" if n > 1 else None) for n in range(1, 400)]
    await worker.report(write_spans(run, *chain))
    async with db.connection() as tx:
        answer = await traces.read_trace(tx, scene.environment, run.run_id, limit=1000)
    text = answer.model_dump_json()
    assert all(f'"span {number}"' in text for number in range(1, 400))
