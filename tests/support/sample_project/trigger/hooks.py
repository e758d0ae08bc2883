"""Tasks with hooks."""

import asyncio
import time
from typing import Literal

from runwell import RunContext, task, usage, wait
from runwell.sync import wait as blocking_wait


@task(id="wait-with-hooks")
async def wait_with_hooks(init: list[str]) -> list[str]:
    await wait.for_(seconds=0.05)
    init.append("goes on")
    return init


@task(id="block-with-hooks")
def block_with_hooks(init: list[str]) -> list[str]:
    blocking_wait.for_(seconds=0.05)
    init.append("goes on")
    return init


for hooked in (wait_with_hooks, block_with_hooks):

    @hooked.init
    def prepare() -> list[str]:
        return []

    @hooked.on_wait
    async def note_wait(init: list[str], wait: object) -> None:
        init.append(f"on_wait {type(wait).__name__}")

    @hooked.on_resume
    def note_resume(init: list[str]) -> None:
        init.append("on_resume")


@task(id="handled-failure")
async def handled_failure(payload: Literal["again", "never"], ctx: RunContext) -> str:
    if ctx.attempt.number < 3:
        raise ValueError("not yet")
    return f"attempt {ctx.attempt.number}"


@handled_failure.handle_error
def decide(payload: str) -> object:
    return {"skip_retrying": True} if payload == "never" else {"retry_delay": 0}


@task(id="wait-and-measure")
async def wait_and_measure() -> list[int]:
    with usage.measure() as measured:
        await asyncio.gather(wait.for_(seconds=2), wait.for_(seconds=2))
        await asyncio.sleep(0.05)
    return [measured.compute.duration_ms, usage.get_current().compute.total.duration_ms]


@task(id="block-and-measure")
def block_and_measure() -> list[int]:
    with usage.measure() as measured:
        blocking_wait.for_(seconds=2)
        time.sleep(0.05)
    return [measured.compute.duration_ms, usage.get_current().compute.total.duration_ms]
