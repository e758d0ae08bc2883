"""Errors in hooks, and the hook that handles errors: what follows and what is told."""

from datetime import UTC, datetime
from pathlib import Path

from runwell.core.errors import BuiltInError, ErrorCode, InternalError
from runwell.core.protocol import FailReport
from tests.worker.support.fake_server import FakeRun
from tests.worker.support.watched_worker import WatchedWorker, working, write_project


async def run_later_attempt(worker: WatchedWorker, task_id: str, payload: object) -> FakeRun:
    """A run in its second attempt."""
    return await worker.server.run(
        task_id,
        payload,
        counted_attempts=2,
        max_attempts=2,
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


async def test_errors_in_hooks_that_only_tell_are_logged(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import sys

        @task(id="unlucky")
        def unlucky(payload: str, init) -> str:
            if payload == "fails":
                raise ValueError("the task's own")
            return f"{payload} {init}"

        for name in ("on_start", "init", "on_success", "on_failure", "on_complete"):
            def hook(name=name):
                if name == "on_complete":
                    sys.exit(3)
                raise KeyError(name)
            hook.__signature__ = __import__("inspect").Signature()
            getattr(unlucky, name)(hook)
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("unlucky", "goes")
        assert run.output == "goes None"
        assert run.messages == [
            "the hook 'on_start' raised KeyError: 'on_start'",
            "the hook 'init' raised KeyError: 'init'",
            "the hook 'on_success' raised KeyError: 'on_success'",
            "the hook 'on_complete' raised SystemExit: 3",
        ]
        assert {line.level for line in run.lines.values()} == {"ERROR"}
        attributes = run.lines[1].attributes
        assert attributes is not None
        assert attributes["hook"] == "on_start"
        assert "trigger/tasks.py" in str(attributes["stack"])
        failed = await run_later_attempt(worker, "unlucky", "fails")
        assert failed.messages[1:] == [
            "the hook 'on_failure' raised KeyError: 'on_failure'",
            "the hook 'on_complete' raised SystemExit: 3",
        ]
        error = failed.failure.error
        assert isinstance(error, BuiltInError)
        assert error.message == "the task's own"


async def test_an_error_in_cleanup_or_middleware_fails_the_attempt(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="cleans")
        async def cleans(payload: str) -> None:
            if payload == "fails":
                raise ValueError("the task's own")

        @cleans.cleanup
        def cleanup():
            raise RuntimeError("can't clean up")

        @cleans.on_failure
        def on_failure(error):
            print("on_failure", error)

        @task(id="between")
        def between(payload: str) -> str:
            print("runs")
            return "output"

        @between.middleware
        def middleware(payload, call_next):
            if payload == "never":
                return
            call_next()
            if payload == "twice":
                call_next()
            raise LookupError("in the middle")

        @between.cleanup
        def clean():
            print("cleanup")

        @task(id="bad-output")
        def bad_output() -> object:
            return object()

        @bad_output.on_failure
        def told(error):
            print(type(error).__name__)
        """,
    )
    async with working(tmp_path) as worker:
        run = await run_later_attempt(worker, "cleans", "goes")
        error = run.failure.error
        assert isinstance(error, BuiltInError)
        assert (error.name, error.message) == ("RuntimeError", "can't clean up")
        assert run.messages == ["on_failure can't clean up"]
        run = await worker.server.run("cleans", "fails", max_attempts=2)
        error = run.failure.error
        assert isinstance(error, BuiltInError)
        assert error.message == "the task's own"
        assert run.messages == ["the hook 'cleanup' raised RuntimeError: can't clean up"]

        run = await worker.server.run("between", "once")
        error = run.failure.error
        assert isinstance(error, BuiltInError)
        assert error.name == "LookupError"
        assert run.messages == ["runs", "cleanup"]
        run = await worker.server.run("between", "twice")
        error = run.failure.error
        assert isinstance(error, BuiltInError)
        assert error.message == "call_next() was called a second time: a task runs once"
        run = await worker.server.run("between", "never")
        assert run.output is None
        assert run.messages == ["cleanup"]

        run = await run_later_attempt(worker, "bad-output", None)
        error = run.failure.error
        assert isinstance(error, InternalError)
        assert error.code is ErrorCode.TASK_OUTPUT_ERROR
        assert run.messages == ["InvalidPayloadError"]


async def test_a_payload_that_does_not_fit_fails_the_run_and_tells_the_hook(
    tmp_path: Path,
) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="counts")
        async def counts(number: int) -> None: ...

        @counts.on_start
        def on_start():
            print("on_start")

        @counts.on_failure
        def on_failure(number, error):
            print("on_failure", number, type(error).__name__)

        @counts.handle_error
        def handle_error():
            print("handle_error")

        @counts.cleanup
        def cleanup():
            print("cleanup")
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("counts", "seven")
        assert run.messages == ["on_failure seven TaskPayloadParsedError"]
        assert run.failure.skip_retrying


HANDLING = """
from datetime import UTC, datetime
from runwell import AbortTaskRunError, Retry

AT = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)

@task(id="handled", retry=Retry(max_attempts=2, min_timeout="20s", randomize=False))
async def handled(payload: str) -> None:
    if payload == "abort":
        raise AbortTaskRunError("enough")
    if payload == "memory":
        raise MemoryError
    raise ValueError(payload)

@handled.handle_error
async def handle_error(payload, error, ctx, retry, retry_at):
    print("handle_error", error, retry.max_attempts, retry_at is not None)
    return {
        "skip": {"skip_retrying": True},
        "at": {"retry_at": AT},
        "delay": {"retry_delay": "10m"},
        "more": {"retry": Retry(max_attempts=9, min_timeout="30s", randomize=False)},
        "fewer": {"retry": Retry(max_attempts=1)},
        "error": {"error": LookupError("another")},
        "final": {"error": AbortTaskRunError("final"), "retry_delay": "1s"},
        "naive": {"retry_at": datetime(2031, 1, 2)},
        "unknown": {"retryAt": AT},
        "kind": 5,
        "both": {"skip_retrying": True, "retry_at": AT},
    }[payload] if payload not in ("raises", "nothing") else 1 / 0 if payload == "raises" else None

@handled.on_failure
def on_failure(error):
    print("on_failure", type(error).__name__, error)
"""
AT = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_handle_error_decides_what_follows(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=HANDLING)
    async with working(tmp_path) as worker:

        async def fail(payload: str, attempts: int = 1) -> tuple[FailReport, list[str]]:
            run = await worker.server.run(
                "handled", payload, counted_attempts=attempts, max_attempts=2
            )
            return run.failure, run.messages[1:]

        def seconds(report: FailReport) -> float:
            assert report.retry_at is not None
            return round((report.retry_at - report.finished_at).total_seconds())

        report, messages = await fail("skip")
        assert (report.skip_retrying, report.retry_at) == (True, None)
        assert messages == ["on_failure ValueError skip"]
        # Also after the last attempt that the options allow.
        for attempts in (1, 2):
            report, messages = await fail("at", attempts)
            assert (report.skip_retrying, report.retry_at) == (False, AT)
            assert messages == []
        report, _ = await fail("delay", 2)
        assert seconds(report) == 600
        report, _ = await fail("more", 2)
        assert seconds(report) == 60
        report, messages = await fail("fewer")
        assert (report.skip_retrying, messages) == (True, ["on_failure ValueError fewer"])
        report, messages = await fail("both")
        assert (report.skip_retrying, report.retry_at) == (True, None)
        report, messages = await fail("nothing")
        assert seconds(report) == 20
        report, messages = await fail("nothing", 2)
        assert report.retry_at is None
        assert messages == ["on_failure ValueError nothing"]
        # What holds is the same for every attempt after the 250th: there is none.
        report, messages = await fail("at", 250)
        assert report.retry_at is None
        assert messages == ["on_failure ValueError at"]


async def test_handle_error_may_put_another_error_in_place(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=HANDLING)
    async with working(tmp_path) as worker:
        report = (await worker.server.run("handled", "error", max_attempts=2)).failure
        assert isinstance(report.error, BuiltInError)
        assert (report.error.name, report.error.message) == ("LookupError", "another")
        assert not report.skip_retrying
        run = await worker.server.run("handled", "final", max_attempts=2)
        assert run.failure.skip_retrying
        assert run.messages[1:] == ["on_failure AbortTaskRunError final"]


async def test_a_broken_handle_error_is_a_failure_of_its_own(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=HANDLING)
    wanted = {
        "raises": "the hook 'handle_error' failed: ZeroDivisionError: division by zero",
        "naive": "returned retry_at=datetime.datetime(2031, 1, 2, 0, 0): retry_at=",
        "unknown": "there is no such key, only skip_retrying, retry_at, retry_delay, retry, error",
        "kind": "it returned 5: return an ErrorHandling or None",
    }
    async with working(tmp_path) as worker:
        for payload, message in wanted.items():
            run = await worker.server.run("handled", payload, counted_attempts=2, max_attempts=2)
            error = run.failure.error
            assert isinstance(error, InternalError)
            assert error.code is ErrorCode.HANDLE_ERROR_ERROR
            assert message in (error.message or "")
            assert run.messages[-1] == f"on_failure ValueError {payload}"


async def test_aborts_and_spent_memory_are_not_for_handle_error(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=HANDLING)
    async with working(tmp_path) as worker:
        run = await worker.server.run("handled", "abort")
        assert run.messages == ["on_failure AbortTaskRunError enough"]
        assert run.failure.skip_retrying
        run = await worker.server.run("handled", "memory", counted_attempts=2, max_attempts=2)
        assert run.messages == []
        error = run.failure.error
        assert isinstance(error, InternalError)
        assert error.code is ErrorCode.TASK_PROCESS_OOM_KILLED


async def test_a_rate_limit_of_the_api_is_retried_when_it_ends(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import time
        from runwell import RateLimitError

        def limited(seconds: int) -> None:
            reset = str(int((time.time() + seconds) * 1000))
            raise RateLimitError("429", status=429, headers={"x-ratelimit-reset": reset})

        @task(id="limited")
        def without_hooks(seconds: int) -> None:
            limited(seconds)

        @task(id="limited-with-hooks")
        def with_hooks(seconds: int) -> None:
            limited(seconds)

        @with_hooks.on_failure
        def on_failure():
            print("on_failure")
        """,
    )
    async with working(tmp_path) as worker:
        for task_id in ("limited", "limited-with-hooks"):
            run = await worker.server.run(task_id, 60, max_attempts=2)
            assert run.failure.retry_at is not None
            delay = run.failure.retry_at - run.failure.finished_at
            assert 50 < delay.total_seconds() <= 60
            # One that has passed says nothing, and neither does one after the last attempt.
            assert (await worker.server.run(task_id, -60, max_attempts=2)).failure.retry_at is None
            last = await worker.server.run(task_id, 60, counted_attempts=2, max_attempts=2)
            assert last.failure.retry_at is None
        assert last.messages == ["on_failure"]
