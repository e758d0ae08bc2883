"""Spans of a run's process: they nest across tasks and threads, and are there before they end."""

from pathlib import Path

from runwell.core.spans import Span, attempt_span_id
from tests.worker.support.fake_server import FakeRun
from tests.worker.support.watched_worker import working, write_project


def tree(run: FakeRun) -> dict[str, str]:
    """Each span's name, with the name of what it is under."""
    names = {span.span_id: span.name for span in run.spans.values()}
    names[attempt_span_id(run.run_id, run.attempt_number)] = "attempt"
    return {
        span.name: names.get(span.parent_span_id or "", "nothing") for span in run.spans.values()
    }


def find(run: FakeRun, name: str) -> Span:
    """The span with a name."""
    (found,) = [span for span in run.spans.values() if span.name == name]
    return found


async def test_blocks_nest_across_tasks_threads_and_pools(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import asyncio, threading
        from concurrent.futures import ThreadPoolExecutor

        def work(name):
            with logger.trace(name):
                logger.info("in " + name)

        @task(id="nests")
        async def nests() -> None:
            logger.info("in the attempt")
            async with logger.trace("outer", user=1, tags=["a"]) as span:
                span.set_attribute("more", {"b": None})
                span.add_event("halfway", at=2)
                print("in outer")

                async def child(name):
                    with logger.trace(name):
                        await asyncio.sleep(0)

                await asyncio.gather(child("first"), child("second"))
                await asyncio.to_thread(work, "to_thread")
                thread = threading.Thread(target=work, args=("thread",))
                thread.start()
                thread.join()
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(work, "pool").result()
            print("after it")

        @task(id="plain")
        def plain() -> None:
            with logger.trace("a"):
                with logger.trace("b"):
                    pass
            with logger.trace("c"):
                pass
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("nests")
        assert tree(run) == {
            "outer": "attempt",
            "first": "outer",
            "second": "outer",
            "to_thread": "outer",
            "thread": "outer",
            "pool": "outer",
        }
        outer = find(run, "outer")
        assert outer.ended_at is not None
        assert outer.attributes == {"user": 1, "tags.[0]": "a", "more.b": "$@null(("}
        assert [(event.name, event.attributes) for event in outer.events] == [
            ("halfway", {"at": 2})
        ]
        names = {span.span_id: span.name for span in run.spans.values()}
        places = {line.message: names.get(line.span_id or "") for line in run.lines.values()}
        assert places == {
            "in the attempt": None,
            "in outer": "outer",
            "in to_thread": "to_thread",
            "in thread": "thread",
            "in pool": "pool",
            "after it": None,
        }
        plain = await worker.server.run("plain")
        assert tree(plain) == {"a": "attempt", "b": "a", "c": "attempt"}


async def test_errors_mark_the_blocks_that_they_leave(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="fails")
        def fails() -> None:
            with logger.trace("outer"):
                with logger.trace("inner"):
                    raise ValueError("no")
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("fails")
        inner = find(run, "inner")
        assert inner.is_error
        assert find(run, "outer").is_error
        assert inner.events[0].attributes["exception.type"] == "ValueError"
        assert inner.events[0].attributes["exception.message"] == "no"


async def test_what_had_begun_is_known_of_a_process_that_was_killed(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os, signal

        @task(id="dies")
        def dies() -> None:
            with logger.trace("done"):
                pass
            with logger.trace("under way", long="x" * 9_000):
                logger.info("last")
                os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("dies")
        assert find(run, "done").ended_at is not None
        left = find(run, "under way")
        assert left.ended_at is None
        assert str(left.attributes["long"]).endswith("characters cut]")
        (line,) = run.lines.values()
        assert line.span_id == left.span_id


async def test_spans_of_opentelemetry_itself_go_the_same_way(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        from opentelemetry import trace

        tracer = trace.get_tracer("library")

        @task(id="traces")
        def traces() -> str:
            with tracer.start_as_current_span("GET /users", kind=trace.SpanKind.CLIENT) as span:
                span.set_attribute("http.status", 200)
                with logger.trace("in it"):
                    pass
            attributes = span.resource.attributes
            return f"{attributes['ctx.run.id']} {attributes['ctx.task.id']}"
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("traces")
        assert tree(run) == {"GET /users": "attempt", "in it": "GET /users"}
        assert find(run, "GET /users").kind == "CLIENT"
        assert run.output == f"{run.run_id} traces"


async def test_hooks_and_waits_are_spans(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="hooked")
        async def hooked() -> None:
            logger.info("in the task")

        @hooked.on_start
        async def begins() -> None:
            logger.info("in the hook")
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("hooked")
        assert tree(run) == {"on_start()": "attempt"}
        places = {line.message: line.span_id for line in run.lines.values()}
        assert places["in the hook"] == find(run, "on_start()").span_id
        assert places["in the task"] is None
