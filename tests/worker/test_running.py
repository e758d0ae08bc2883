"""Runs in processes of their own: what comes back of them."""

import json
from pathlib import Path

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
