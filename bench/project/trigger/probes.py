"""Tasks that do next to nothing."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from runwell import (
    Task,
    locals,  # noqa: A004 (the documentation's name)
    logger,
    metadata,
    task,
    usage,
    wait,
)


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


@task(id="inside")
def inside(rounds: int) -> dict[str, float]:
    """The microseconds of processor time that each of these calls takes in the task."""
    key = locals.create("key", int)
    locals.set(key, 1)
    calls: dict[str, Callable[[], object]] = {
        "metadata.set": lambda: metadata.set("progress", 7),
        "metadata.increment": lambda: metadata.increment("count", 1),
        "logger.info": lambda: logger.info("a page was fetched", url="https://a.b/c", status=200),
        "print": lambda: print("a page was fetched"),
        "logger.trace": _trace,
        "locals.get": lambda: locals.get(key),
        "usage.get_current": usage.get_current,
    }
    found: dict[str, float] = {}
    for name, call in calls.items():
        begun = time.process_time()
        for _ in range(rounds):
            call()
        found[name] = (time.process_time() - begun) / rounds * 1e6
    return found


def _trace() -> None:
    with logger.trace("block", number=1):
        pass


@task(id="writes")
def writes(payload: dict[str, int]) -> None:
    """Write so many lines, and make so many spans."""
    for number in range(payload["lines"]):
        logger.info("a page was fetched", number=number)
    for number in range(payload["spans"]):
        with logger.trace("block", number=number):
            pass
