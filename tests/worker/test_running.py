"""Runs in processes of their own: what comes back of them."""

import json
from pathlib import Path

from runwell.core.errors import BuiltInError, ErrorCode, InternalError
from runwell.worker.events import RunEnded, RunStarted
from tests.worker.support.watched_worker import working, write_project


async def test_a_run_returns_its_output(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="add")
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        @task(id="double")
        def double(number: int) -> int:
            return 2 * number

        @task(id="nothing")
        def nothing() -> None:
            pass
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("add", [1, 2])
        assert run.output == 3
        assert (await worker.server.run("double", 4)).output == 8
        assert (await worker.server.run("nothing")).output is None
        ended = await worker.event(RunEnded)
        assert (ended.run_id, ended.result, ended.version) == (
            run.run_id,
            "completed",
            "20260101.1",
        )
        assert worker.seen(RunStarted)[0].task_id == "add"


async def test_each_run_has_a_process_and_a_session_of_its_own(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os

        counter = 0

        @task(id="who")
        def who() -> list[int]:
            global counter
            counter += 1
            return [os.getpid(), os.getsid(0), counter]
        """,
    )
    async with working(tmp_path) as worker:
        first = (await worker.server.run("who")).output
        second = (await worker.server.run("who")).output
        assert isinstance(first, list)
        assert isinstance(second, list)
        assert first[0] == first[1] != second[0] == second[1]
        assert first[2] == second[2] == 1


async def test_a_task_knows_its_run(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os
        from runwell import RunContext

        @task(id="context")
        async def context(payload: None, ctx: RunContext) -> dict[str, object]:
            return {
                "run": ctx.run.id,
                "attempt": ctx.attempt.number,
                "tags": ctx.run.tags,
                "environment": ctx.environment.slug,
                "machine": ctx.machine.name,
                "file": ctx.task.file_path,
                "url": os.environ["TRIGGER_API_URL"],
                "key": os.environ["TRIGGER_SECRET_KEY"],
                "version": os.environ.get("TRIGGER_VERSION"),
                "folder": os.getcwd(),
            }
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("context", None, tags=["a"], machine="micro")
        assert run.output == {
            "run": run.run_id,
            "attempt": 1,
            "tags": ["a"],
            "environment": "dev",
            "machine": "micro",
            "file": "trigger/tasks.py",
            "url": worker.server.url,
            "key": worker.settings.secret_key,
            "version": None,
            "folder": str(tmp_path),
        }


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


async def test_large_payloads_and_outputs_pass(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="echo")
        def echo(text: str) -> str:
            return text * 2
        """,
    )
    async with working(tmp_path) as worker:
        text = "ä\n" * 1_000_000
        assert (await worker.server.run("echo", text)).output == text * 2


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


async def test_asyncio_works_in_a_task_as_it_does_elsewhere(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import asyncio, contextvars

        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

        @task(id="asyncio")
        async def asyncio_(payload: None, ctx: runwell.RunContext) -> dict[str, object]:
            seen: dict[str, object] = {}
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            except TimeoutError:
                seen["timeout"] = True
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.sleep(0, n)) for n in range(3)]
            seen["group"] = [task.result() for task in tasks]
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(10))
                    raise ValueError
            except* ValueError:
                seen["failed group"] = True
            seen["gathered"] = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
            current = asyncio.current_task()
            seen["task"] = type(current).__name__, current.get_name()
            variable.set(5)
            seen["thread"] = await asyncio.to_thread(variable.get)
            logger.info("in a thread is the same run")
            await asyncio.to_thread(logger.info, "from a thread")
            process = await asyncio.create_subprocess_exec(
                "echo", "hello", stdout=asyncio.subprocess.PIPE
            )
            seen["subprocess"] = (await process.communicate())[0].decode()
            return seen
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("asyncio")
        assert run.output == {
            "timeout": True,
            "group": [0, 1, 2],
            "failed group": True,
            "gathered": [1, 2],
            "task": ["Task", "run"],
            "thread": 5,
            "subprocess": "hello\n",
        }
        assert run.messages == ["in a thread is the same run", "from a thread"]


async def test_what_a_task_leaves_running_is_cancelled_and_cleans_up(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import asyncio

        async def background() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                print("background ends")

        async def numbers():
            try:
                yield 1
                yield 2
            finally:
                print("generator ends")

        kept = []

        @task(id="leaves")
        async def leaves() -> int:
            kept.append(asyncio.create_task(background()))
            kept.append(numbers())
            await anext(kept[1])
            await asyncio.sleep(0)
            return 1
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("leaves")
        assert run.output == 1
        assert run.messages == ["background ends", "generator ends"]


async def test_a_task_that_forks_completes_once(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os, multiprocessing

        @task(id="forks")
        def forks() -> str:
            pid = os.fork()
            if pid == 0:
                return "child"
            os.waitpid(pid, 0)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                return f"parent {sum(pool.map(abs, [-1, -2]))}"
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("forks")
        assert run.output == "parent 3"
        await worker.server.run("forks")
        assert len(run.ends) == 1


async def test_runs_run_at_once_up_to_the_capacity(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_project(
        tmp_path,
        tasks=f"""
        import asyncio, pathlib

        @task(id="waits")
        async def waits() -> None:
            print("here")
            while not pathlib.Path({json.dumps(str(gate))}).exists():
                await asyncio.sleep(0.01)
        """,
    )
    async with working(tmp_path, capacity=3) as worker:
        runs = [worker.server.trigger("waits") for _ in range(5)]
        await worker.server.notify()
        started = lambda: [run for run in runs if run.messages]  # noqa: E731
        await worker.server.until(lambda: len(started()) == 3, "three run")
        assert worker.supervisor.running == 3
        assert [run.status for run in runs if run not in started()] == ["QUEUED", "QUEUED"]
        gate.touch()
        await worker.server.until(lambda: all(run.end for run in runs), "all end")
