"""Where processors are short, the worker lets calls to the server gather."""

from pathlib import Path

import pytest

from runwell.worker.contention import Contention
from tests.worker.support.watched_worker import working, write_project

TASKS = """
    @task(id="short")
    def short() -> None:
        pass
"""


async def test_runs_of_a_backlog_are_taken_several_at_once_where_processors_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contention, "is_high", True)
    monkeypatch.setattr("runwell.worker.intake._GATHER_SECONDS", 10)
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        server = worker.server
        runs = [server.trigger("short") for _ in range(40)]
        await server.notify()
        await server.until(lambda: all(run.end is not None for run in runs), "all end")
        # Its capacity is four, and it asks when half of it is free.
        assert server.requests["dequeue"] <= 25
        assert all(len(run.ends) == 1 for run in runs)


async def test_a_run_that_is_alone_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contention, "is_high", True)
    monkeypatch.setattr("runwell.worker.intake._GATHER_SECONDS", 1000)
    monkeypatch.setattr("runwell.worker.reports._GATHER_SECONDS", 1000)
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        for _ in range(5):
            await worker.server.run("short")


def test_processors_are_short_when_waiting_for_one_takes_a_tenth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr("runwell.worker.contention.time.monotonic", lambda: clock)
    file = tmp_path / "schedstat"
    file.write_text("7 0 3\n")
    contention = Contention(file)
    assert not contention.is_high
    clock = 101.0
    file.write_text("7 50000000 3\n")
    assert not contention.is_high
    clock = 102.0
    file.write_text("7 250000000 3\n")
    assert contention.is_high
    clock = 102.01
    file.write_text("7 250000000 3\n")
    assert contention.is_high
    clock = 103.0
    assert not contention.is_high
    contention.close()


def test_where_the_kernel_does_not_tell_processors_are_never_short(tmp_path: Path) -> None:
    contention = Contention(tmp_path / "missing")
    assert not contention.is_high
    contention.close()
