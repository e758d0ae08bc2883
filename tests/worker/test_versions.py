"""Versions of a project: indexing, problems, replacing, retiring."""

import os
import signal
from pathlib import Path

import pytest

from runwell.core.errors import InternalError
from runwell.worker.events import (
    ImportOutput,
    ImportProblems,
    VersionRegistered,
    VersionRetired,
)
from tests.support.waiting import wait_until
from tests.worker.support.fake_server import serving
from tests.worker.support.watched_worker import WatchedWorker, working, write_project

ONE = '@task(id="one")\ndef one() -> str:\n    return "first"\n'


async def test_a_broken_file_is_shown_and_the_others_work(tmp_path: Path) -> None:
    write_project(tmp_path, good=ONE, broken="def f(:\n", raising="x = 1\nraise ValueError('no')\n")
    async with working(tmp_path) as worker:
        problems = worker.seen(ImportProblems)[0]
        assert problems.kept_version is None
        found = {Path(p.file).name: (p.line, p.message) for p in problems.problems}
        assert found["broken.py"][0] == 3
        assert found["broken.py"][1].startswith("SyntaxError")
        assert found["raising.py"] == (4, "ValueError: no")
        assert (await worker.server.run("one")).output == "first"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def f(:\n", "SyntaxError"),
        ("import os\nos._exit(3)\n", "ended the process (exit code 3)"),
        ("import os\nos.kill(os.getpid(), 11)\n", "ended the process (signal 11)"),
        ("import sys\nsys.exit('bye')\n", "SystemExit"),
        ("import time\ntime.sleep(1000)\n", "took more than 1 seconds"),
    ],
)
async def test_without_anything_to_import_the_last_version_stays(
    tmp_path: Path, source: str, text: str
) -> None:
    write_project(tmp_path, tasks=ONE)
    async with working(tmp_path, import_seconds=20) as worker:
        object.__setattr__(worker.settings, "import_seconds", 1 if "sleep" in source else 20)
        write_project(tmp_path, tasks=source)
        assert not await worker.supervisor.add_version()
        problems = worker.seen(ImportProblems)[0]
        assert problems.kept_version == "20260101.1"
        assert text in problems.problems[0].message
        assert (await worker.server.run("one")).output == "first"


async def test_the_server_is_told_which_versions_a_worker_has(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=ONE)
    async with working(tmp_path) as worker:
        await wait_until(
            lambda: worker.server.told_versions == worker.supervisor.usable_versions() != [],
            "a heartbeat names the version",
        )


async def test_a_folder_without_a_config_file_is_a_problem(tmp_path: Path) -> None:
    async with serving() as server:
        worker = WatchedWorker(server, tmp_path)
        await worker.supervisor.start()
        assert not await worker.supervisor.add_version()
        await worker.supervisor.stop(0)
        assert "trigger_config.py" in worker.seen(ImportProblems)[0].problems[0].message


async def test_a_problem_in_one_file_keeps_the_last_good_version(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=ONE, other='@task(id="two")\ndef two() -> int: return 2\n')
    async with working(tmp_path) as worker:
        write_project(tmp_path, other="def f(:\n")
        assert not await worker.supervisor.add_version()
        assert (await worker.server.run("two")).output == 2


async def test_running_runs_finish_on_their_version(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    source = f"""
    import pathlib, time

    @task(id="one")
    def one() -> str:
        print("here")
        while not pathlib.Path({str(gate)!r}).exists():
            time.sleep(0.01)
        return VERSION
    """
    write_project(tmp_path, tasks=source + "\n    VERSION = 'first'\n")
    async with working(tmp_path) as worker:
        old = worker.server.trigger("one")
        await worker.server.notify()
        await worker.server.until(lambda: bool(old.messages), "it runs")
        write_project(tmp_path, tasks=source + "\n    VERSION = 'second'\n")
        assert await worker.supervisor.add_version()
        assert worker.supervisor.current_version == "20260101.2"
        new = worker.server.trigger("one")
        await worker.server.notify()
        await worker.server.until(lambda: bool(new.messages), "the new one runs")
        gate.touch()
        await worker.server.until(lambda: bool(old.end and new.end), "both end")
        assert (old.output, new.output) == ("first", "second")


async def test_saving_without_a_change_keeps_the_warm_version(tmp_path: Path) -> None:
    write_project(tmp_path, tasks="import os\n" + ONE.replace('"first"', "str(os.getppid())"))
    async with working(tmp_path) as worker:
        first = (await worker.server.run("one")).output
        assert await worker.supervisor.add_version()
        assert (await worker.server.run("one")).output == first
        assert [e.version for e in worker.seen(VersionRegistered)] == ["20260101.1"] * 2


async def test_old_versions_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runwell.worker.supervisor._HOUSEKEEPING_SECONDS", 0.05)
    write_project(tmp_path, tasks=ONE)
    async with working(tmp_path, retire_after_seconds=0) as worker:
        await worker.server.run("one")
        write_project(tmp_path, tasks=ONE.replace("first", "second"))
        assert await worker.supervisor.add_version()
        assert (await worker.event(VersionRetired)).version == "20260101.1"
        assert (await worker.server.run("one")).output == "second"


async def test_what_an_import_prints_is_told(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=ONE + "print('at import')\n")
    async with working(tmp_path) as worker:
        assert (await worker.event(ImportOutput)).text == "at import"


async def test_an_import_that_starts_threads_is_run_in_fresh_interpreters(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os, threading

        threading.Thread(target=threading.Event().wait, daemon=True, name="background").start()

        @task(id="one")
        def one() -> int:
            return os.getpid()
        """,
    )
    async with working(tmp_path) as worker:
        assert worker.seen(VersionRegistered)[0].mode == "spawn"
        first, second = [(await worker.server.run("one")).number for _ in range(2)]
        assert first != second


async def test_spawned_processes_do_what_forked_ones_do(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import asyncio, os, sys, time

        @task(id="one")
        async def one(number: int, ctx: runwell.RunContext) -> list[object]:
            print("line", number)
            logger.info("logged")
            await asyncio.sleep(0)
            return [os.getpid(), ctx.run.id, os.getcwd()]

        @task(id="kept", keep_process=True)
        def kept() -> int:
            return os.getpid()

        @task(id="dies")
        def dies() -> None:
            os.kill(os.getpid(), 11)

        @task(id="sleeps")
        def sleeps() -> None:
            print("sleeping")
            time.sleep(100)
        """,
    )
    async with working(tmp_path, mode="spawn") as worker:
        runs = [await worker.server.run("one", number) for number in range(2)]
        assert [run.items[1:] for run in runs] == [[run.run_id, str(tmp_path)] for run in runs]
        assert runs[0].items[0] != runs[1].items[0]
        assert [run.messages for run in runs] == [["line 0", "logged"], ["line 1", "logged"]]
        assert (await worker.server.run("kept")).output == (await worker.server.run("kept")).output
        error = (await worker.server.run("dies")).failure.error
        assert isinstance(error, InternalError)
        assert error.code == "TASK_PROCESS_SIGSEGV"
        canceled = worker.server.trigger("sleeps")
        await worker.server.notify()
        await worker.server.until(lambda: bool(canceled.messages), "it sleeps")
        await worker.server.cancel(canceled)
        await worker.server.until(lambda: canceled.end is not None, "it ends")
        assert canceled.end is not None
        assert canceled.end.type == "canceled"


async def test_a_spawned_process_refuses_files_that_changed(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=ONE)
    async with working(tmp_path, mode="spawn", min_spares=0) as worker:
        write_project(tmp_path, tasks=ONE.replace("first", "second"))
        run = worker.server.trigger("one")
        await worker.server.notify()
        await worker.server.until(lambda: bool(run.hand_backs), "it is handed back")
        assert await worker.supervisor.add_version()
        run.options["version"] = worker.server.current_version
        await worker.server.notify()
        await worker.server.until(lambda: run.end is not None, "the new version takes it")
        assert run.output == "second"


async def test_a_killed_warm_parent_in_spawn_mode_takes_its_children_along(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_project(
        tmp_path,
        tasks=f"""
        import os, pathlib, time

        @task(id="waits")
        def waits() -> str:
            print(os.getppid())
            while not pathlib.Path({str(gate)!r}).exists():
                time.sleep(0.01)
            return "through"
        """,
    )
    async with working(tmp_path, mode="spawn") as worker:
        run = worker.server.trigger("waits")
        await worker.server.notify()
        await worker.server.until(lambda: bool(run.messages), "it runs")
        os.kill(int(run.messages[0]), signal.SIGKILL)
        await worker.server.until(lambda: bool(run.hand_backs), "it is handed back")
        gate.touch()
        await worker.server.until(lambda: run.end is not None, "it runs again")
        assert run.output == "through"
