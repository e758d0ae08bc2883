"""The server away, answers lost, processes killed: nothing is lost and nothing is done twice."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from runwell.core.errors import InternalError
from runwell.worker.events import (
    ReportRefused,
    RunEnded,
    ServerReachable,
    ServerUnreachable,
    VersionUnusable,
)
from runwell.worker.supervisor import Supervisor
from tests.support.waiting import wait_until
from tests.worker.support.fake_server import serving
from tests.worker.support.watched_worker import (
    WatchedWorker,
    is_gone,
    working,
    write_project,
)

TASKS = """
    import os, pathlib, time

    @task(id="quick")
    def quick() -> int:
        return os.getpid()

    @task(id="waits")
    def waits(gate: str) -> str:
        print(os.getpid(), os.getppid())
        print("waiting")
        while not pathlib.Path(gate).exists():
            time.sleep(0.01)
        return "through"

    @task(id="kills-its-parent")
    def kills_its_parent() -> None:
        os.kill(os.getppid(), 9)
        time.sleep(100)
"""


@pytest.mark.parametrize("fault", ["lost", "drop", "503", "429", "500"])
@pytest.mark.parametrize("action", ["dequeue", "report", "heartbeat"])
async def test_a_call_that_fails_is_made_again(tmp_path: Path, action: str, fault: str) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        await worker.server.until(lambda: worker.server.requests["dequeue"] > 0, "it polls")
        worker.server.fail_next(action, fault, fault)
        runs = [worker.server.trigger("quick") for _ in range(6)]
        await worker.server.notify()
        await worker.server.until(lambda: all(run.end for run in runs), "all end")
        pids = {run.number for run in runs}
        assert len(pids) == 6
        assert [run.attempt_number for run in runs] == [1] * 6
        assert all(len(run.ends) == 1 for run in runs)


async def test_a_server_that_restarts_loses_no_result(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with working(write_project(tmp_path, tasks=TASKS), capacity=10) as worker:
        runs = [worker.server.trigger("waits", str(gate)) for _ in range(10)]
        await worker.server.notify()
        await worker.server.until(lambda: all(run.messages for run in runs), "all run")
        await worker.server.stop()
        await worker.event(ServerUnreachable)
        gate.touch()
        for run in runs:
            ended = await worker.event(RunEnded, lambda e, run=run: e.run_id == run.run_id)
            assert ended.result == "completed"
        assert all(run.end is None for run in runs)
        await worker.server.start()
        await worker.server.until(lambda: all(run.end for run in runs), "all results arrive")
        assert [run.output for run in runs] == ["through"] * len(runs)
        await worker.event(ServerReachable)
        assert (await worker.server.run("quick")).output


async def test_a_worker_that_the_server_forgot_connects_again(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        run = worker.server.trigger("waits", str(tmp_path / "never"))
        await worker.server.notify()
        await worker.server.until(lambda: bool(run.messages), "it runs")
        worker.server.workers.clear()
        await worker.server.notify()
        ended = await worker.event(RunEnded)
        assert ended.result == "lost"
        assert (await worker.server.run("quick")).output
        assert [body.previous_worker_id for body in worker.server.connects] == [None, None]


async def test_a_killed_task_process_is_its_run_s_end_only(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        runs = [worker.server.trigger("waits", str(gate)) for _ in range(2)]
        await worker.server.notify()
        await worker.server.until(lambda: all(len(r.messages) == 2 for r in runs), "both run")
        os.kill(int(runs[0].messages[0].split()[0]), signal.SIGKILL)
        await worker.server.until(lambda: runs[0].end is not None, "it ends")
        assert isinstance(runs[0].failure.error, InternalError)
        assert runs[1].end is None
        gate.touch()
        await worker.server.until(lambda: runs[1].end is not None, "the other one ends")
        assert runs[1].output == "through"


async def test_a_killed_warm_parent_is_replaced_and_its_runs_go_back(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        runs = [worker.server.trigger("waits", str(gate)) for _ in range(3)]
        await worker.server.notify()
        await worker.server.until(lambda: all(len(r.messages) == 2 for r in runs), "all run")
        first = {run.messages[0] for run in runs}
        os.kill(int(runs[0].messages[0].split()[1]), signal.SIGKILL)
        await worker.server.until(lambda: all(r.attempt_number == 2 for r in runs), "again")
        gate.touch()
        await worker.server.until(lambda: all(run.end for run in runs), "all end")
        assert [run.output for run in runs] == ["through"] * len(runs)
        assert [len(run.hand_backs) for run in runs] == [1, 1, 1]
        assert all(is_gone(int(line.split()[0])) for line in first)


async def test_a_run_that_kills_its_warm_parent_again_and_again_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        monkeypatch.setattr("runwell.worker.version._RESTART_SECONDS", (0.0,))
        run = await worker.server.run("kills-its-parent")
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.code == "TASK_EXECUTION_ABORTED"
        assert run.attempt_number == 3
        assert (await worker.server.run("quick")).output


async def test_a_version_whose_files_changed_can_not_start_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        run = worker.server.trigger("waits", str(gate))
        await worker.server.notify()
        await worker.server.until(lambda: len(run.messages) == 2, "it runs")
        write_project(tmp_path, tasks=TASKS + "\n    # changed\n")
        os.kill(int(run.messages[0].split()[1]), signal.SIGKILL)
        unusable = await worker.event(VersionUnusable)
        assert "changed" in unusable.message
        await worker.server.until(lambda: run.status == "QUEUED", "it goes back")
        assert await worker.supervisor.add_version()
        run.options["version"] = worker.server.current_version
        gate.touch()
        await worker.server.notify()
        await worker.server.until(lambda: run.end is not None, "the new version takes it")


async def test_a_result_that_the_server_refuses_becomes_a_failure(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="large")
        def large() -> str:
            print("a line")
            return "x" * 100_000

        @task(id="small")
        def small() -> int:
            return 1
        """,
    )
    async with working(tmp_path) as worker:
        worker.server.max_report_bytes = 50_000
        run = await worker.server.run("large")
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.message is not None
        assert "the server refused the run's output" in run.failure.error.message
        assert run.messages == ["a line"]
        assert (await worker.event(ReportRefused)).run_id == run.run_id
        assert (await worker.server.run("small")).output == 1


async def test_a_full_outbox_stops_the_intake_until_the_server_is_back(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with working(write_project(tmp_path, tasks=TASKS), outbox_bytes=10) as worker:
        run = worker.server.trigger("waits", str(gate))
        await worker.server.notify()
        await worker.server.until(lambda: len(run.messages) == 2, "it runs")
        worker.server.fail_next("report", *["503"] * 5)
        gate.touch()
        await worker.event(RunEnded)
        assert worker.supervisor.free_places() == 0
        await worker.server.until(lambda: run.end is not None, "the result arrives")
        assert (await worker.server.run("quick")).output


async def test_results_of_a_killed_supervisor_are_delivered_by_the_next(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    gate = tmp_path / "gate"
    async with serving() as server:
        worker = WatchedWorker(server, folder)
        await worker.supervisor.start()
        await worker.supervisor.add_version()
        finished = server.trigger("waits", str(gate))
        running = server.trigger("waits", str(tmp_path / "never"))
        await server.notify()
        await server.until(lambda: len(finished.messages) == len(running.messages) == 2, "both run")
        server.fail_next("report", *["503"] * 1000)
        server.fail_next("disconnect", "drop")
        gate.touch()
        await worker.event(RunEnded)
        # As if killed: nothing is delivered, nothing is said, and the files stay as they are.
        await _end_as_if_killed(worker.supervisor)
        server.fail_next("report")
        server._faults.clear()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        assert finished.end is None
        async with working(folder, server) as second:
            assert server.connects[-1].previous_worker_id == "worker_1"
            assert finished.output == "through"
            await server.until(lambda: running.attempt_number == 2, "the other one goes on")
            await wait_until(lambda: second.supervisor.running == 1, "it is here")
        assert len(finished.ends) == 1


async def _end_as_if_killed(supervisor: Supervisor) -> None:
    loops = supervisor._loops  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert loops is not None
    loops.cancel()
    await asyncio.wait((loops,))
    for version in supervisor._versions.values():  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        await version._zygote.close()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    os.close(supervisor._folder._lock)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
