"""Runs that are canceled, exceed their limits, or lose their lease."""

from pathlib import Path

import pytest

from runwell.core.errors import BuiltInError, ErrorCode, InternalError
from runwell.worker.events import RunEnded
from tests.worker.support.fake_server import FakeRun
from tests.worker.support.watched_worker import (
    WatchedWorker,
    is_gone,
    working,
    write_project,
)

TASKS = """
    import asyncio, os, subprocess, time

    @task(id="sleeps")
    def sleeps() -> None:
        try:
            print("sleeping")
            time.sleep(100)
        except runwell.RunCanceled as stop:
            print("asked:", stop)
            raise
        finally:
            print("cleaned up")

    @task(id="awaits")
    async def awaits() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(100))
                print("sleeping")
                try:
                    async with asyncio.timeout(100):
                        await asyncio.gather(asyncio.sleep(100), asyncio.sleep(100))
                except runwell.RunCanceled as stop:
                    print("asked:", stop)
                    assert isinstance(stop, asyncio.CancelledError)
                    raise
        finally:
            await asyncio.sleep(0.01)
            print("cleaned up")

    @task(id="computes")
    async def computes() -> None:
        print("sleeping")
        try:
            while True:
                pass
        finally:
            print("cleaned up")

    @task(id="swallows")
    def swallows() -> str:
        print("sleeping")
        try:
            time.sleep(100)
        except BaseException:
            pass
        return "I go on"

    @task(id="ignores")
    def ignores() -> str:
        child = subprocess.Popen(["sleep", "1000"])
        print(child.pid)
        print("sleeping")
        while True:
            try:
                time.sleep(100)
            except BaseException:
                print("no")

    @task(id="stops-itself")
    async def stops_itself() -> None:
        print("sleeping")
        try:
            await asyncio.sleep(100)
        except Exception:
            print("Exception does not catch it")
"""


async def _until_sleeping(worker: WatchedWorker, task_id: str, **options: object) -> FakeRun:
    run = worker.server.trigger(task_id, **options)
    await worker.server.notify()
    await worker.server.until(lambda: "sleeping" in run.messages, "it runs")
    return run


@pytest.mark.parametrize("task_id", ["sleeps", "awaits"])
async def test_a_canceled_run_hears_of_it_and_cleans_up(tmp_path: Path, task_id: str) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        run = await _until_sleeping(worker, task_id)
        await worker.server.cancel(run)
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert run.end is not None
        assert run.end.type == "canceled"
        assert run.messages == ["sleeping", "asked: the run was canceled", "cleaned up"]
        assert (await worker.event(RunEnded)).result == "canceled"


@pytest.mark.parametrize("task_id", ["computes", "swallows", "stops-itself"])
async def test_a_canceled_run_ends_canceled_whatever_it_does(tmp_path: Path, task_id: str) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        run = await _until_sleeping(worker, task_id)
        await worker.server.cancel(run)
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert run.end is not None
        assert run.end.type == "canceled"
        assert "Exception does not catch it" not in run.messages


async def test_a_run_that_does_not_stop_is_killed_with_its_subprocesses(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    async with working(folder, cancel_grace_seconds=0.3) as worker:
        run = await _until_sleeping(worker, "ignores")
        await worker.server.cancel(run)
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert run.end is not None
        assert run.end.type == "canceled"
        assert "no" in run.messages
        assert is_gone(int(run.messages[0]))


async def test_a_run_that_waits_for_a_process_is_canceled_without_one(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS), min_spares=0) as worker:
        run = worker.server.trigger("sleeps")
        run.is_canceling = True
        await worker.server.notify()
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert run.end is not None
        assert run.end.type == "canceled"


@pytest.mark.parametrize("task_id", ["sleeps", "awaits", "computes", "swallows", "stops-itself"])
async def test_a_run_that_exceeds_its_max_duration_is_stopped(tmp_path: Path, task_id: str) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        run = await worker.server.run(task_id, max_duration=1)
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.code == ErrorCode.MAX_DURATION_EXCEEDED
        assert run.failure.error.message == "Run exceeded maximum duration of 1 seconds"
        if task_id in ("sleeps", "awaits", "computes"):
            assert run.messages[-1] == "cleaned up"
        assert 1000 <= run.failure.duration_ms < 3000


async def test_a_run_that_ignores_its_max_duration_is_killed(tmp_path: Path) -> None:
    folder = write_project(tmp_path, tasks=TASKS)
    async with working(folder, cancel_grace_seconds=0.2) as worker:
        run = await worker.server.run("ignores", max_duration=1)
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.code == ErrorCode.MAX_DURATION_EXCEEDED
        assert run.failure.error.message is not None
        assert "killed" in run.failure.error.message


async def test_a_run_whose_lease_is_another_s_is_killed_and_not_reported(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        run = await _until_sleeping(worker, "ignores")
        await worker.server.take_away(run)
        assert (await worker.event(RunEnded)).result == "lost"
        assert run.end is None
        assert is_gone(int(run.messages[0]))
        assert worker.supervisor.running == 0


async def test_a_run_that_comes_back_under_a_new_lease_replaces_the_old_one(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        run = await _until_sleeping(worker, "sleeps")
        old = worker.seen(RunEnded)
        assert not old
        # The server took it back and gives it to the same worker again, before any heartbeat.
        run.status = "QUEUED"
        await worker.server.notify()
        ended = await worker.event(RunEnded)
        assert ended.result == "lost"
        await worker.server.until(lambda: run.start is not None, "it starts again")
        assert run.snapshot_id == 2
        await worker.server.cancel(run)
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert run.end is not None
        assert run.end.snapshot_id == 2


MEMORY_TASKS = """
    import ctypes, mmap, os, subprocess, sys, time

    @task(id="grows")
    def grows() -> None:
        kept = []
        while True:
            kept.append(b"x" * 20_000_000)
            time.sleep(0.02)

    @task(id="grows-in-a-subprocess")
    def grows_in_a_subprocess() -> None:
        code = "import time; kept = [b'x' * 400_000_000]; time.sleep(100)"
        subprocess.run([sys.executable, "-c", code])

    @task(id="asks-for-too-much")
    def asks_for_too_much() -> None:
        bytearray(100_000_000_000)

    @task(id="says-so")
    def says_so() -> None:
        raise runwell.OutOfMemoryError()

    @task(id="runs-ffmpeg")
    def runs_ffmpeg() -> None:
        # What is raised when the kernel has killed it.
        raise subprocess.CalledProcessError(-9, ["/usr/bin/ffmpeg", "-i", "a.mp4"])

    @task(id="near-and-killed")
    def near_and_killed() -> None:
        kept = b"x" * 230_000_000
        os.kill(os.getpid(), 9)

    @task(id="light")
    def light() -> None:
        pass
"""


@pytest.mark.parametrize(
    ("task_id", "text"),
    [
        ("grows", "its machine has 256 MB"),
        ("grows-in-a-subprocess", "its machine has 256 MB"),
        ("asks-for-too-much", "MemoryError"),
        ("says-so", "MANUAL_OOM_KILL_ERROR"),
        ("runs-ffmpeg", "died with <Signals.SIGKILL: 9>"),
    ],
)
async def test_a_run_that_exceeds_its_memory_is_ended(
    tmp_path: Path, task_id: str, text: str
) -> None:
    async with working(write_project(tmp_path, tasks=MEMORY_TASKS)) as worker:
        run = await worker.server.run(task_id, machine="micro")
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.code == ErrorCode.TASK_PROCESS_OOM_KILLED
        assert run.failure.error.message is not None
        assert text in run.failure.error.message
        assert (await worker.server.run("light", machine="micro")).output is None


async def test_a_kill_near_the_memory_limit_is_probably_for_memory(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=MEMORY_TASKS)) as worker:
        run = await worker.server.run("near-and-killed", machine="micro")
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.code == ErrorCode.TASK_PROCESS_MAYBE_OOM_KILLED


CRASHES: list[tuple[str, ErrorCode, str]] = [
    ("os._exit(7)", ErrorCode.TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE, "code 7"),
    ("os._exit(0)", ErrorCode.TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE, "code 0"),
    ("os.kill(os.getpid(), signal.SIGKILL)", ErrorCode.TASK_RUN_CRASHED, "SIGKILL"),
    ("os.kill(os.getpid(), signal.SIGTERM)", ErrorCode.TASK_PROCESS_SIGTERM, "SIGTERM"),
    ("ctypes.string_at(0)", ErrorCode.TASK_PROCESS_SIGSEGV, "SIGSEGV"),
    ("os.abort()", ErrorCode.TASK_RUN_CRASHED, "SIGABRT"),
    ("os.closerange(0, 1000); time.sleep(100)", ErrorCode.TASK_RUN_CRASHED, "SIGKILL"),
    ("os.kill(os.getpid(), signal.SIGUSR1)", ErrorCode.TASK_RUN_CRASHED, "SIGUSR1"),
]


@pytest.mark.parametrize(("code", "expected", "text"), CRASHES)
async def test_the_end_of_a_process_is_explained(
    tmp_path: Path,
    code: str,
    expected: ErrorCode,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runwell.worker.child_handle._EXIT_SECONDS", 0.3)
    write_project(
        tmp_path,
        tasks=f"""
        import ctypes, os, signal, sys, time

        @task(id="dies")
        def dies() -> None:
            print("last words", file=sys.stderr)
            {code}
            time.sleep(100)
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("dies")
        assert isinstance(run.failure.error, InternalError)
        assert run.failure.error.code == expected
        assert run.failure.error.message is not None
        assert text in run.failure.error.message
        assert "last lines of stderr:\nlast words" in run.failure.error.message
        if expected is ErrorCode.TASK_PROCESS_SIGSEGV:
            assert "Segmentation fault" in run.failure.error.message
            assert "in dies" in run.failure.error.message


async def test_a_signal_in_a_run_that_handles_it_does_no_harm(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os, signal, time

        @task(id="handles")
        def handles() -> str:
            heard = []
            signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
            os.kill(os.getpid(), signal.SIGTERM)
            return f"heard {len(heard)}"

        @task(id="interrupted")
        def interrupted() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        """,
    )
    async with working(tmp_path) as worker:
        assert (await worker.server.run("handles")).output == "heard 1"
        error = (await worker.server.run("interrupted")).failure.error
        assert isinstance(error, BuiltInError)
        assert error.name == "KeyboardInterrupt"
