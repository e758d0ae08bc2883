"""Hooks of tasks and projects, in the processes of real runs: order, arguments, errors."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from runwell.core.errors import BuiltInError, ErrorCode, InternalError
from runwell.core.protocol import CanceledReport
from tests.worker.support.fake_server import FakeRun
from tests.worker.support.watched_worker import WatchedWorker, working, write_project

# Hooks of a task that say when they are called, for an `async def` task and for a `def` one.
HOOKED = """
import asyncio, contextvars, sys, time
from runwell import AbortTaskRunError, Retry

place = contextvars.ContextVar("place", default="nowhere")

def give_hooks(one):
    @one.on_start
    def on_start(payload, ctx):
        print("on_start", payload, ctx.attempt.number)
    @one.init
    async def init(payload):
        await asyncio.sleep(0)
        print("init", payload)
        place.set("here")
        return {"task": 1}
    @one.middleware
    async def middleware(payload, call_next, init):
        print("middleware", init)
        output = await call_next()
        print("middleware got", output)
        return "not the output"
    @one.on_success
    async def on_success(payload, output, ctx, init):
        print("on_success", payload, output, init)
    @one.on_failure
    def on_failure(payload, error, init):
        print("on_failure", type(error).__name__, error)
    @one.on_complete
    def on_complete(output, error):
        print("on_complete", output, error)
    @one.on_cancel
    async def on_cancel(payload):
        await asyncio.sleep(0)
        print("on_cancel", payload)
    @one.cleanup
    def cleanup(init):
        print("cleanup", init)

@task(id="later", retry=Retry(max_attempts=2))
async def later(payload: str, init: dict) -> str:
    await asyncio.sleep(0)
    print("runs", payload, place.get(), init)
    if payload == "fails":
        raise ValueError("no")
    if payload == "hangs":
        print("waiting")
        await asyncio.sleep(100)
    return payload.upper()

@task(id="now", retry=Retry(max_attempts=2))
def now(payload: str, init: dict) -> str:
    print("runs", payload, place.get(), init)
    if payload == "fails":
        raise ValueError("no")
    if payload == "hangs":
        print("waiting")
        time.sleep(100)
    return payload.upper()

give_hooks(later)
give_hooks(now)

@task(id="plain")
def plain() -> str:
    asyncio.run(asyncio.sleep(0))
    return "done"
"""
CONFIG = """
from runwell import define_config

async def on_start(ctx):
    print("project on_start", ctx.task.id)
def init():
    return {"project": 2}
async def middleware(call_next):
    print("project middleware")
    await call_next()
def on_success(output):
    print("project on_success", output)
def on_failure(error):
    print("project on_failure", error)
def on_complete(): print("project on_complete")
def cleanup(): print("project cleanup")
def on_cancel(): print("project on_cancel")
config = define_config(ON, log_level="debug")
"""
OF_PROJECT = ", ".join(
    f"{name}={name}"
    for name in (
        "on_start",
        "init",
        "middleware",
        "on_success",
        "on_failure",
        "on_complete",
        "cleanup",
        "on_cancel",
    )
)
BEGIN = [
    "on_start {0} 1",
    "init {0}",
    "middleware {{'task': 1}}",
    "runs {0} here {{'task': 1}}",
]


def begin(payload: str) -> list[str]:
    return [line.format(payload) for line in BEGIN]


def write_config(folder: Path, text: str) -> None:
    (folder / "trigger_config.py").write_text(text)


async def run_later_attempt(worker: WatchedWorker, task_id: str, payload: object) -> FakeRun:
    """A run in its second attempt."""
    return await worker.server.run(
        task_id,
        payload,
        counted_attempts=2,
        max_attempts=2,
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


@pytest.mark.parametrize("task_id", ["later", "now"])
async def test_hooks_of_a_run_that_succeeds_are_called_in_order(
    tmp_path: Path, task_id: str
) -> None:
    write_project(tmp_path, tasks=HOOKED)
    async with working(tmp_path) as worker:
        run = await worker.server.run(task_id, "goes")
        assert run.messages == [
            *begin("goes"),
            "middleware got GOES",
            "on_success goes GOES {'task': 1}",
            "on_complete GOES None",
            "cleanup {'task': 1}",
        ]
        assert run.output == "GOES"


@pytest.mark.parametrize("task_id", ["later", "now"])
async def test_on_failure_is_called_after_the_last_attempt_only(
    tmp_path: Path, task_id: str
) -> None:
    write_project(tmp_path, tasks=HOOKED)
    async with working(tmp_path) as worker:
        first = await worker.server.run(task_id, "fails", counted_attempts=1, max_attempts=2)
        assert first.messages == [*begin("fails"), "cleanup {'task': 1}"]
        error = first.failure.error
        assert isinstance(error, BuiltInError)
        assert (error.name, error.message) == ("ValueError", "no")
        assert "hooks.py" not in error.stack_trace
        assert not first.failure.skip_retrying
        assert first.failure.retry_at is None
        second = await run_later_attempt(worker, task_id, "fails")
        assert second.messages == [
            *begin("fails")[1:],
            "on_failure ValueError no",
            "on_complete None no",
            "cleanup {'task': 1}",
        ]


@pytest.mark.parametrize("task_id", ["later", "now"])
async def test_on_cancel_is_called_within_the_grace_period(tmp_path: Path, task_id: str) -> None:
    write_project(tmp_path, tasks=HOOKED)
    async with working(tmp_path) as worker:
        run = worker.server.trigger(task_id, "hangs")
        await worker.server.notify()
        await worker.server.until(lambda: "waiting" in run.messages, "it runs")
        await worker.server.cancel(run)
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert isinstance(run.end, CanceledReport)
        assert run.messages == [
            *begin("hangs"),
            "waiting",
            "on_cancel hangs",
            "cleanup {'task': 1}",
        ]


@pytest.mark.parametrize("task_id", ["later", "now"])
async def test_a_run_over_its_time_has_failed(tmp_path: Path, task_id: str) -> None:
    write_project(tmp_path, tasks=HOOKED)
    async with working(tmp_path) as worker:
        run = await worker.server.run(task_id, "hangs", max_duration=1)
        error = run.failure.error
        assert isinstance(error, InternalError)
        assert error.code is ErrorCode.MAX_DURATION_EXCEEDED
        assert run.messages[len(BEGIN) :] == [
            "waiting",
            "on_failure AsyncRunTimedOut the run exceeded its max duration",
            "on_complete None the run exceeded its max duration",
            "cleanup {'task': 1}",
        ]


async def test_hooks_of_the_project_are_around_those_of_the_task(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=HOOKED)
    write_config(tmp_path, CONFIG.replace("ON", OF_PROJECT))
    both = "{'project': 2, 'task': 1}"
    async with working(tmp_path) as worker:
        run = await worker.server.run("later", "goes")
        assert run.messages == [
            "project on_start later",
            "on_start goes 1",
            "init goes",
            "project middleware",
            f"middleware {both}",
            f"runs goes here {both}",
            "middleware got GOES",
            f"on_success goes GOES {both}",
            "project on_success GOES",
            "on_complete GOES None",
            "project on_complete",
            f"cleanup {both}",
            "project cleanup",
        ]
        failed = await run_later_attempt(worker, "now", "fails")
        assert failed.messages[-6:] == [
            "on_failure ValueError no",
            "project on_failure no",
            "on_complete None no",
            "project on_complete",
            f"cleanup {both}",
            "project cleanup",
        ]


async def test_a_blocking_task_runs_outside_of_the_loop_of_asynchronous_hooks(
    tmp_path: Path,
) -> None:
    write_project(tmp_path, tasks=HOOKED)
    # A file, since what a warm parent prints is not a line of any run.
    calls = tmp_path / "calls"
    noting = CONFIG.replace("ON", "on_start=on_start, on_success=on_success").replace(
        "async def on_start(ctx):",
        f"async def on_start(ctx):\n    open({str(calls)!r}, 'a').write('.')",
    )
    write_config(tmp_path, noting)
    async with working(tmp_path) as worker:
        run = await worker.server.run("plain")
        assert calls.read_text() == "."
        assert run.output == "done"
        assert run.messages == ["project on_start plain", "project on_success done"]


async def test_a_task_that_swallows_the_cancel_is_still_told_of_it(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import asyncio, time

        @task(id="swallows")
        async def swallows() -> str:
            print("waiting")
            try:
                await asyncio.sleep(100)
            except runwell.RunCanceled:
                pass
            return "I go on"

        @swallows.on_success
        def on_success():
            print("on_success")

        @swallows.on_cancel
        async def on_cancel():
            async with asyncio.timeout(5):
                await asyncio.sleep(0.01)
            print("on_cancel")

        @task(id="slow-hook")
        def slow_hook() -> None: ...

        @slow_hook.on_success
        async def waits():
            print("waiting")
            await asyncio.sleep(100)

        @slow_hook.on_cancel
        def canceled():
            print("on_cancel")
            time.sleep(100)
        """,
    )
    async with working(tmp_path, cancel_grace_seconds=0.5) as worker:
        for task_id in ("swallows", "slow-hook"):
            run = worker.server.trigger(task_id)
            await worker.server.notify()
            await worker.server.until(lambda run=run: run.messages == ["waiting"], "it runs")
            await worker.server.cancel(run)
            await worker.server.until(lambda run=run: run.end is not None, "it ends")
            assert isinstance(run.end, CanceledReport)
            assert run.messages == ["waiting", "on_cancel"]


async def test_a_blocking_middleware_around_an_async_task_is_a_problem_of_the_task(
    tmp_path: Path,
) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="fine")
        async def fine() -> int:
            return 1
        """,
        other="""
        @task(id="blocked")
        async def blocked() -> None: ...

        @blocked.middleware
        def middleware(call_next):
            call_next()
        """,
    )
    async with working(tmp_path) as worker:
        assert (await worker.server.run("fine")).output == 1
        assert any("make the middleware an `async def`" in str(event) for event in worker.events)


async def test_a_kept_process_calls_the_hooks_of_each_run(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import asyncio, os

        @task(id="kept", keep_process=True)
        async def kept(init: int) -> list[int]:
            return [os.getpid(), init]

        @kept.init
        def init(ctx) -> int:
            return int(ctx.run.id.partition("_")[2])
        """,
    )
    async with working(tmp_path) as worker:
        runs = [await worker.server.run("kept") for _ in range(3)]
        assert [run.items[1] for run in runs] == [1, 2, 3]
        assert len({run.items[0] for run in runs}) == 1
