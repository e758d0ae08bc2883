"""The worker as a process: signals, kills, two of them beside each other."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tests.worker.support.fake_server import FakeRun, FakeServer, serving
from tests.worker.support.watched_worker import is_gone, write_project

TASKS = """
    import os, pathlib, subprocess, time

    @task(id="waits")
    def waits(gate: str) -> str:
        child = subprocess.Popen(["sleep", "1000"])
        print(os.getpid(), os.getppid(), child.pid)
        while not pathlib.Path(gate).exists():
            time.sleep(0.01)
        return "through"
"""


@contextlib.asynccontextmanager
async def worker_program(
    server: FakeServer, folder: Path, grace: float = 20
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A worker process; ended in any case."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.worker.support.worker_program",
        server.url,
        str(folder),
        str(grace),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_running(server: FakeServer, gate: Path, count: int = 1) -> list[FakeRun]:
    runs = [server.trigger("waits", str(gate)) for _ in range(count)]
    await server.notify()
    await server.until(lambda: all(run.messages for run in runs), "they run")
    return runs


async def test_a_terminated_worker_lets_its_runs_finish(tmp_path: Path) -> None:
    folder, gate = write_project(tmp_path, tasks=TASKS), tmp_path / "gate"
    async with serving() as server, worker_program(server, folder) as process:
        runs = await _until_running(server, gate, 2)
        asked = server.requests["dequeue"]
        process.send_signal(signal.SIGTERM)
        await server.until(lambda: server.requests["dequeue"] > asked, "it asks a last time")
        late = server.trigger("waits", str(gate))
        await server.notify()
        gate.touch()
        assert await process.wait() == 0
        assert [run.output for run in runs] == ["through", "through"]
        assert (late.start, late.end) == (None, None)
        assert server.disconnected == ["worker_1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hands_the_runs_back_at_once(tmp_path: Path, number: int) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    async with serving() as server, worker_program(server, folder) as process:
        (run,) = await _until_running(server, tmp_path / "never")
        asked = server.requests["dequeue"]
        process.send_signal(number)
        await server.until(lambda: server.requests["dequeue"] > asked, "it asks a last time")
        process.send_signal(number)
        assert await process.wait() == 0
        assert len(run.hand_backs) == 1
        assert all(is_gone(int(pid)) for pid in run.messages[0].split())


async def test_after_the_grace_period_runs_are_handed_back(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    async with serving() as server, worker_program(server, folder, grace=0.2) as process:
        (run,) = await _until_running(server, tmp_path / "never")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert len(run.hand_backs) == 1
        assert run.status == "QUEUED"


async def test_a_worker_that_waits_for_its_server_can_be_terminated(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    async with serving() as server:
        server.fail_next("connect", *["503"] * 100)
        async with worker_program(server, folder) as process:
            await server.until(lambda: server.requests["connect"] > 1, "it tries to connect")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 130


async def test_a_worker_without_a_server_at_its_end_keeps_the_results(tmp_path: Path) -> None:
    folder, gate = write_project(tmp_path, tasks=TASKS), tmp_path / "gate"
    async with serving() as server:
        async with worker_program(server, folder) as process:
            (run,) = await _until_running(server, gate)
            await server.stop()
            gate.touch()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert run.end is None
        await server.start()
        async with worker_program(server, folder):
            await server.until(lambda: run.end is not None, "the next one delivers it")
            await server.until(lambda: len(server.connects) == 2, "it takes its place")
        assert run.output == "through"
        assert [body.previous_worker_id for body in server.connects] == [None, "worker_1"]


async def test_a_killed_worker_leaves_no_process_behind(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    async with serving() as server, worker_program(server, folder) as process:
        runs = await _until_running(server, tmp_path / "never", 2)
        process.kill()
        await process.wait()
        pids = [int(pid) for run in runs for pid in run.messages[0].split()]
        await wait_until(lambda: all(is_gone(pid) for pid in pids), "all are gone")


async def test_a_killed_worker_s_successor_takes_its_runs_over(tmp_path: Path) -> None:
    folder, gate = write_project(tmp_path, tasks=TASKS), tmp_path / "gate"
    async with serving() as server:
        async with worker_program(server, folder) as process:
            (run,) = await _until_running(server, gate)
            process.kill()
        async with worker_program(server, folder):
            await server.until(lambda: run.attempt_number == 2, "it runs again")
            gate.touch()
            await server.until(lambda: run.end is not None, "it ends")
        assert [body.previous_worker_id for body in server.connects] == [None, "worker_1"]


async def test_two_workers_of_one_folder_keep_apart(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    async with (
        serving() as server,
        worker_program(server, folder),
        worker_program(server, folder),
    ):
        await server.until(lambda: len(server.connects) == 2, "both connect")
        assert [body.previous_worker_id for body in server.connects] == [None, None]
        root = folder / ".runwell" / "worker"
        await wait_until(lambda: len([*root.glob("*/worker.json")]) == 2, "each has its own folder")
        assert sorted(path.name for path in root.iterdir()) == ["1", "2"]


async def test_a_wrong_key_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.worker.support.fake_server.SECRET_KEY", "tr_dev_other")
    folder = write_project(tmp_path, tasks=TASKS)
    async with serving() as server, worker_program(server, folder) as process:
        assert await process.wait() == 1


async def test_a_project_without_a_task_that_works_ends_the_worker(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks="def f(:")
    async with serving() as server, worker_program(server, folder) as process:
        assert await process.wait() == 1
        assert server.disconnected == ["worker_1"]
