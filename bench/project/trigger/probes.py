"""Tasks that do next to nothing."""

import asyncio
import time

from runwell import task


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
