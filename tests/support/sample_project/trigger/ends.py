"""Tasks that show how they are doing, and that are stopped, run out of memory or die."""

import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TypedDict

from runwell import Machine, Retry, RunContext, metadata, tags, task
from runwell.sync import metadata as blocking_metadata


class Step(TypedDict):
    """A file to wait for, and how the attempt ends then."""

    gate: str
    how: str


@task(id="count-up")
async def count_up(number: int, *, ctx: RunContext) -> object:
    """Change its own metadata and that of the runs above it, and add a tag."""
    metadata.set("state", "counting")
    for index in range(number):
        metadata.increment("n").append("log", index)
        metadata.root.increment("total")
    metadata.parent.append("children", ctx.run.id)
    await tags.add(["counted", f"up-to-{number}"])
    metadata.set("state", "done")
    return metadata.current()


@task(id="count-in-children")
async def count_in_children(numbers: list[int]) -> object:
    """Have children count, and see what they have told."""
    metadata.set("total", 0)
    await count_up.batch_trigger_and_wait(numbers)
    await metadata.refresh()
    return [metadata.get("total"), len(str(metadata.get("children")))]


@task(id="flush-and-end", retry=Retry(max_attempts=1))
def flush_and_end(step: Step) -> None:
    """Store metadata, wait for the gate, change more of it, and end in some way."""
    blocking_metadata.increment("n").flush()
    while not Path(step["gate"]).exists():
        time.sleep(0.01)
    blocking_metadata.increment("n", 10)
    if step["how"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if step["how"] == "raise":
        raise ValueError("no")


@task(id="have-children")
async def have_children(gate: str) -> None:
    """Trigger children that wait for the gate, and wait for it too."""
    for _ in range(2):
        await wait_for_gate.trigger(gate)
    await wait_for_gate.trigger(gate, delay="1h")
    metadata.set("has_children", True)
    await metadata.flush()
    await wait_for_gate.trigger_and_wait(gate)


@task(id="wait-for-gate")
def wait_for_gate(gate: str) -> None:
    """Wait for the gate."""
    while not Path(gate).exists():
        time.sleep(0.01)


@task(
    id="need-memory",
    machine="micro",
    retry=Retry(min_timeout=0, max_attempts=1, out_of_memory=Machine("small-2x")),
)
def need_memory(megabytes: int, *, ctx: RunContext) -> str:
    """Hold so much memory, and return the machine."""
    held = bytearray(b"x") * (megabytes * 1024 * 1024)
    time.sleep(1 if ctx.attempt.number == 1 else 0)
    assert held
    assert ctx.machine
    return ctx.machine.name


@task(id="say-words")
async def say_words(words: list[str]) -> int:
    """Send words to a stream, one after the other."""

    async def source() -> AsyncGenerator[str]:
        for word in words:
            yield word

    return await metadata.stream("words", source())
