"""Hooks of runs on a real platform."""

from collections.abc import Generator
from typing import cast

import pytest

from tests.support.platform import Platform, open_session, temporary_platform


@pytest.fixture(scope="module")
def platform() -> Generator[Platform]:
    with temporary_platform() as made:
        yield made


@pytest.mark.parametrize("task_id", ["wait-with-hooks", "block-with-hooks"])
async def test_hooks_are_told_of_waits(platform: Platform, task_id: str) -> None:
    async with open_session(platform) as session:
        run = await session.tasks.trigger_and_poll(task_id, poll_interval=0.05, timeout=60)
        assert run.output == ["on_wait DateWait", "on_resume", "goes on"], run.error


async def test_what_handle_error_says_wins_over_the_number_of_attempts(platform: Platform) -> None:
    async with open_session(platform) as session:
        run = await session.tasks.trigger_and_poll(
            "handled-failure", "again", poll_interval=0.05, timeout=60, max_attempts=1
        )
        assert (run.status, run.output) == ("COMPLETED", "attempt 3")
        run = await session.tasks.trigger_and_poll(
            "handled-failure", "never", poll_interval=0.05, timeout=60, max_attempts=3
        )
        assert run.status == "FAILED"
        assert run.error is not None
        assert run.error.message == "not yet"
        assert len(run.attempts) == 1


@pytest.mark.parametrize("task_id", ["wait-and-measure", "block-and-measure"])
async def test_usage_counts_what_runs_and_not_what_waits(platform: Platform, task_id: str) -> None:
    async with open_session(platform) as session:
        run = await session.tasks.trigger_and_poll(task_id, poll_interval=0.05, timeout=60)
        assert isinstance(run.output, list)
        measured, total = cast("list[int]", run.output)
        assert 50 <= measured <= total < 1500
