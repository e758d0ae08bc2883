"""Pauses between repetitions: long ones are waits of the run, others are slept."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runwell import retry
from runwell.core.errors import StringError
from runwell.core.waits import DateWait, Wait, WaitOutcome
from runwell.sdk import pauses
from runwell.sdk.runtime import activate
from runwell.sync import retry as blocking_retry
from tests.sdk.contexts import KeepingRuntime


class WaitingRuntime(KeepingRuntime):
    """A run whose waits are over at once."""

    def __init__(self, refusal: str | None = None) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self._refusal = refusal

    def wait(self, wait: Wait) -> WaitOutcome:
        self.waits.append(wait)
        error = None if self._refusal is None else StringError(raw=self._refusal)
        return WaitOutcome(wait_id=wait.wait_id, error=error)

    def begin_wait(self, wait: Wait) -> "asyncio.Future[WaitOutcome]":
        future = asyncio.get_running_loop().create_future()
        future.set_result(self.wait(wait))
        return future


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is slept, in no time."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(pauses.asyncio, "sleep", sleep)
    monkeypatch.setattr(pauses.time, "sleep", taken.append)
    return taken


def fail_first() -> Callable[[int], int]:
    def attempt(number: int) -> int:
        if number == 1:
            raise ConnectionError("not yet")
        return number

    return attempt


async def repeat(is_async: bool, seconds: float) -> None:
    options: Any = {"min_timeout": seconds, "max_timeout": seconds, "randomize": False}
    if is_async:
        assert await retry.on_throw(fail_first(), **options) == 2
    else:
        assert blocking_retry.on_throw(fail_first(), **options) == 2


BOTH = pytest.mark.parametrize("is_async", [True, False])


@BOTH
async def test_a_long_pause_is_a_wait_of_the_run(is_async: bool, slept: list[float]) -> None:
    runtime = WaitingRuntime()
    with activate(runtime):
        await repeat(is_async, 60)
    (wait,) = runtime.waits
    assert isinstance(wait, DateWait)
    assert timedelta(seconds=50) < wait.date - datetime.now(UTC) <= timedelta(seconds=60)
    assert slept == []


@BOTH
async def test_a_short_pause_is_slept(is_async: bool, slept: list[float]) -> None:
    runtime = WaitingRuntime()
    with activate(runtime):
        await repeat(is_async, 4)
    assert (runtime.waits, slept) == ([], [4])


@BOTH
async def test_outside_of_a_run_a_long_pause_is_slept(is_async: bool, slept: list[float]) -> None:
    await repeat(is_async, 60)
    assert slept == [60]


@BOTH
async def test_a_pause_that_the_server_refuses_is_slept(is_async: bool, slept: list[float]) -> None:
    runtime = WaitingRuntime("no such wait")
    with activate(runtime):
        await repeat(is_async, 60)
    assert len(runtime.waits) == 1
    (seconds,) = slept
    assert 50 < seconds <= 60


async def test_another_thread_sleeps(slept: list[float]) -> None:
    runtime = WaitingRuntime()
    with activate(runtime):
        await asyncio.to_thread(asyncio.run, repeat(False, 60))
    assert (runtime.waits, slept) == ([], [60])
