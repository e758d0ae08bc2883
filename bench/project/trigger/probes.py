"""Tasks that do next to nothing."""

import asyncio
import time
from datetime import UTC, datetime

from runwell import Task, task, wait


@task(id="clock")
async def clock() -> int:
    """When its first line ran, on the clock that all processes of a machine share."""
    return time.monotonic_ns()


@task(id="clock-kept", keep_process=True)
async def clock_kept() -> int:
    """The same in a process that is kept for several runs."""
    return time.monotonic_ns()


@task(id="noop")
async def noop() -> None:
    """Nothing."""


@task(id="noop-kept", keep_process=True)
async def noop_kept() -> None:
    """Nothing, in a process that is kept for several runs."""


@task(id="sleeper")
async def sleeper(seconds: float) -> None:
    """Hold a process."""
    await asyncio.sleep(seconds)


@task(id="fan-out")
async def fan_out(count: int) -> float:
    """The seconds that this many children take, each in a process of its own."""
    return await _fan_out(noop, count)


@task(id="fan-out-kept")
async def fan_out_kept(count: int) -> float:
    """The same with children in kept processes."""
    return await _fan_out(noop_kept, count)


@task(id="delayed", keep_process=True)
async def delayed() -> float:
    """When it began, in seconds since the epoch."""
    return time.time()


@task(id="waiter", keep_process=True)
async def waiter(until: float) -> float:
    """Wait until an instant; returns when it went on. Both in seconds since the epoch."""
    await wait.until(datetime.fromtimestamp(until, UTC))
    return time.time()


async def _fan_out(child: Task[None, None], count: int) -> float:
    start = time.monotonic()
    result = await child.batch_trigger_and_wait([None] * count)
    if not all(run.ok for run in result.runs):
        raise RuntimeError("a child failed")
    return time.monotonic() - start
