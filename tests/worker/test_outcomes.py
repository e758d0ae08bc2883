"""What a run reports of its end: outputs, errors, and which of them are retried."""

from pathlib import Path

from runwell.core.errors import BuiltInError, ErrorCode, InternalError
from tests.worker.support.watched_worker import working, write_project


async def test_an_error_is_reported_from_the_users_first_frame_on(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        def inner() -> None:
            raise ValueError("no such thing")

        @task(id="fails")
        async def fails() -> None:
            inner()

        @task(id="fails-plainly")
        def fails_plainly() -> None:
            inner()
        """,
    )
    async with working(tmp_path) as worker:
        for task_id in ("fails", "fails-plainly"):
            failure = (await worker.server.run(task_id)).failure
            assert isinstance(failure.error, BuiltInError)
            assert (failure.error.name, failure.error.message) == ("ValueError", "no such thing")
            lines = failure.error.stack_trace.splitlines()
            assert lines[0] == "Traceback (most recent call last):"
            assert f'File "{tmp_path}/trigger/tasks.py"' in lines[1]
            assert "runwell/worker" not in failure.error.stack_trace
            assert lines[-1] == "ValueError: no such thing"
            assert not failure.skip_retrying


async def test_errors_that_another_attempt_can_not_mend_are_not_retried(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="aborts")
        async def aborts() -> None:
            raise runwell.AbortTaskRunError("the account is closed")

        @task(id="strict")
        async def strict(number: int) -> None:
            pass
        """,
    )
    async with working(tmp_path) as worker:
        aborted = (await worker.server.run("aborts")).failure
        assert isinstance(aborted.error, BuiltInError)
        assert aborted.error.name == "AbortTaskRunError"
        assert aborted.skip_retrying
        refused = (await worker.server.run("strict", "no number")).failure
        assert isinstance(refused.error, BuiltInError)
        assert refused.error.name == "TaskPayloadParsedError"
        assert refused.skip_retrying


async def test_whatever_a_task_raises_ends_in_a_clear_report(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks=r"""
        import sys, os, asyncio

        class Unspeakable(Exception):
            def __str__(self) -> str:
                raise RuntimeError("I have no text")

        class Unpicklable(Exception):
            def __init__(self, a, b) -> None:
                super().__init__(lambda: a)

        def endless() -> None:
            endless()

        @task(id="raises")
        def raises(how: str) -> object:
            match how:
                case "exit": sys.exit(3)
                case "exit0": sys.exit()
                case "interrupt": raise KeyboardInterrupt
                case "base": raise BaseException("base")
                case "recursion": endless()
                case "unspeakable": raise Unspeakable()
                case "unpicklable": raise Unpicklable(1, 2)
                case "group": raise ExceptionGroup("several", [ValueError("a"), TypeError("b")])
                case "nul": raise ValueError("a\x00b \ud800")
                case "long": raise ValueError("x" * 1_000_000)
                case "generator": raise StopIteration
                case "cancelled": raise asyncio.CancelledError("by myself")

        @task(id="raises-async")
        async def raises_async(how: str) -> object:
            return raises.function(how)
        """,
    )
    expected = {
        "interrupt": ("KeyboardInterrupt", ""),
        "base": ("BaseException", "base"),
        "recursion": ("RecursionError", "maximum recursion depth exceeded"),
        "unspeakable": ("Unspeakable", "<Unspeakable whose str() failed>"),
        "unpicklable": ("Unpicklable", None),
        "group": ("ExceptionGroup", "several (2 sub-exceptions)"),
        "nul": ("ValueError", "a\ufffdb ?"),
        "long": ("ValueError", None),
        "cancelled": ("CancelledError", "by myself"),
    }
    async with working(tmp_path) as worker:
        for task_id in ("raises", "raises-async"):
            for how, (name, message) in expected.items():
                error = (await worker.server.run(task_id, how)).failure.error
                assert isinstance(error, BuiltInError), how
                assert error.name == name
                assert message is None or error.message == message
                assert len(error.message) + len(error.stack_trace) < 40_000
            for how, call in (("exit", "sys.exit(3)"), ("exit0", "sys.exit()")):
                error = (await worker.server.run(task_id, how)).failure.error
                assert isinstance(error, InternalError)
                assert error.code == ErrorCode.TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE
                assert error.message is not None
                assert call in error.message
        plain = (await worker.server.run("raises", "generator")).failure.error
        assert isinstance(plain, BuiltInError)
        assert plain.name == "StopIteration"


async def test_an_output_that_is_not_json_names_its_place(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        class Odd:
            pass

        @task(id="odd")
        def odd() -> object:
            return {"users": [{"name": Odd()}]}

        @task(id="infinite")
        def infinite() -> object:
            return {"ratio": float("nan")}

        @task(id="circular")
        def circular() -> object:
            ring: list[object] = []
            ring.append(ring)
            return ring

        @task(id="huge")
        def huge() -> str:
            return "x" * (11 * 1024 * 1024)

        @task(id="coroutine")
        def coroutine() -> object:
            async def later() -> None: ...
            return later()
        """,
    )
    async with working(tmp_path) as worker:
        for task_id, text in (
            ("odd", "users[0].name"),
            ("infinite", "ratio"),
            ("circular", "Circular"),
            ("huge", "11,534,338 bytes"),
            ("coroutine", "coroutine"),
        ):
            error = (await worker.server.run(task_id)).failure.error
            assert isinstance(error, InternalError)
            assert error.code == ErrorCode.TASK_OUTPUT_ERROR
            assert error.message is not None
            assert text in error.message


async def test_a_payload_that_can_not_be_read_is_an_input_error(tmp_path: Path) -> None:
    write_project(tmp_path, tasks='@task(id="any")\ndef any_(payload: object) -> None: ...\n')
    async with working(tmp_path) as worker:
        run = worker.server.trigger("any")
        run.payload = "{not json"
        await worker.server.notify()
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.code == ErrorCode.TASK_INPUT_ERROR


async def test_a_task_that_the_version_lacks_is_a_system_failure(tmp_path: Path) -> None:
    write_project(tmp_path, tasks='@task(id="any")\ndef any_(payload: object) -> None: ...\n')
    async with working(tmp_path) as worker:
        error = (await worker.server.run("other")).failure.error
        assert isinstance(error, InternalError)
        assert error.code == ErrorCode.COULD_NOT_FIND_TASK
