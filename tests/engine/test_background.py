"""Loops, when their database goes away."""

import asyncio
import logging
import time

import pytest

from runwell.engine.db import DatabaseUnavailableError
from runwell.engine.loops import Loop


async def test_a_loop_that_must_let_others_come_back_waits_after_an_outage_too() -> None:
    """Else the runs of workers that live would be taken from them as soon as it is over."""
    answers = [False, True, False, True]
    away_at: list[float] = []
    ticks: list[float] = []
    ticked_again = asyncio.Event()

    async def tick() -> int:
        ticks.append(time.monotonic())
        if len(ticks) == 1:
            raise DatabaseUnavailableError
        ticked_again.set()
        return 0

    async def probe() -> None:
        # Away, back for less than it takes, away again, and back.
        if answers and not answers.pop(0):
            away_at.append(time.monotonic())
            raise DatabaseUnavailableError

    loop = Loop(name="lost", interval_seconds=0.01, tick=tick, first_after_seconds=0.1, probe=probe)
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(30):
        await ticked_again.wait()
    running.cancel()
    assert len(away_at) == 2
    assert ticks[1] - away_at[-1] >= 0.1


async def test_an_outage_is_logged_once_by_a_loop_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "runwell.engine.loops")
    is_there = [False, False, False, True, True, False, True]
    done = asyncio.Event()

    async def tick() -> int:
        if not is_there:
            done.set()
            return 0
        if not is_there.pop(0):
            raise DatabaseUnavailableError
        return 0

    running = asyncio.create_task(Loop(name="any", interval_seconds=0.001, tick=tick).run())
    async with asyncio.timeout(30):
        await done.wait()
    running.cancel()
    away, back = "loop_waits_for_database", "loop_has_database"
    assert [record.message for record in caplog.records] == [away, back, away, back]
