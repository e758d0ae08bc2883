"""Failpoints: off without a folder of tests, once for each time a point is armed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runwell.core import failpoints
from tests.support.waiting import wait_until_sync


def test_nothing_is_armed_without_a_folder_that_says_it_is_for_tests(tmp_path: Path) -> None:
    assert failpoints.find_folder({}) is None
    named = {"RUNWELL_TEST_FAILPOINTS": str(tmp_path)}
    assert failpoints.find_folder(named) is None
    (tmp_path / failpoints.PERMISSION).touch()
    assert failpoints.find_folder(named) == tmp_path


def test_they_are_off_here() -> None:
    assert not failpoints.ARE_ON
    assert failpoints.reach("anything") is None


def test_a_point_that_is_armed_happens_once(tmp_path: Path) -> None:
    (tmp_path / "triggerTask.answer").write_text(failpoints.LOSE, encoding="utf-8")
    failpoints.enter("triggerTask")
    assert failpoints.reach("begin", folder=tmp_path) is None
    assert failpoints.reach("answer", folder=tmp_path) == failpoints.LOSE
    assert failpoints.reach("answer", folder=tmp_path) is None
    assert (tmp_path / "triggerTask.answer.hit").exists()


def test_a_point_can_fail(tmp_path: Path) -> None:
    (tmp_path / "loop.commit").write_text(failpoints.FAIL, encoding="utf-8")
    with pytest.raises(failpoints.FailpointError, match=r"loop\.commit"):
        failpoints.reach("commit", scope="loop", folder=tmp_path)


def test_a_point_can_kill_its_process(tmp_path: Path) -> None:
    (tmp_path / failpoints.PERMISSION).touch()
    (tmp_path / "here.now").write_text(failpoints.KILL, encoding="utf-8")
    code = """
from runwell.core import failpoints
assert failpoints.ARE_ON
failpoints.reach("now", scope="here")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RUNWELL_TEST_FAILPOINTS": str(tmp_path)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def test_the_kill_is_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The process of the test before has no time to tell that it came by.
    killed: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))

    monkeypatch.setattr(os, "kill", kill)
    (tmp_path / "here.now").write_text(failpoints.KILL, encoding="utf-8")
    failpoints.reach("now", scope="here", folder=tmp_path)
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_a_point_can_stand_still_until_it_is_let_go(tmp_path: Path) -> None:
    (tmp_path / "here.now").write_text(failpoints.HOLD, encoding="utf-8")
    with ThreadPoolExecutor() as threads:
        held = threads.submit(failpoints.reach, "now", scope="here", folder=tmp_path)
        wait_until_sync((tmp_path / "here.now.hit").exists, "somebody came by")
        assert not held.done()
        (tmp_path / "here.now.hit").rename(tmp_path / "here.now.passed")
        assert held.result(timeout=5) == failpoints.HOLD


def test_nobody_stands_still_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "HOLD_SECONDS", 0.02)
    (tmp_path / "here.now").write_text(failpoints.HOLD, encoding="utf-8")
    assert failpoints.reach("now", scope="here", folder=tmp_path) == failpoints.HOLD
