"""Tasks that do simple things, some of them badly, and say which process they do it in."""

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal, TypedDict

from runwell import (
    AbortTaskRunError,
    Cron,
    Queue,
    Retry,
    RunContext,
    ScheduledPayload,
    logger,
    schedules,
    task,
)

_POLL_SECONDS = 0.01


class Gate(TypedDict):
    """Where to say that an execution has begun (a line in `record`), and what it then waits for."""

    record: str
    gate: str


class Addition(TypedDict):
    """Two numbers."""

    a: int
    b: int


class Failures(TypedDict):
    """How many attempts fail, counted by the lines of `record`."""

    record: str
    times: int


@task(id="add")
async def add(payload: Addition) -> int:
    """Add two numbers."""
    return payload["a"] + payload["b"]


@task(id="echo")
def echo(payload: object) -> object:
    """Return the payload."""
    return payload


@task(id="large-output")
def large_output(size: int) -> str:
    """Return so many characters."""
    return "x" * size


@task(id="fail", retry=Retry(max_attempts=1))
def fail(message: str) -> None:
    """Raise an error."""
    raise ValueError(message)


@task(id="abort")
def abort(message: str) -> None:
    """Raise an error that is not retried."""
    raise AbortTaskRunError(message)


@task(id="fail-n-times", retry=Retry(max_attempts=10, min_timeout=0.01, factor=1, randomize=False))
def fail_n_times(payload: Failures, *, ctx: RunContext) -> int:
    """Fail so many times, then return the number of the attempt."""
    _record(payload["record"], ctx)
    if ctx.attempt.number <= payload["times"]:
        raise ValueError(f"attempt {ctx.attempt.number} fails")
    return ctx.attempt.number


@task(id="wait-for-file")
def wait_for_file(payload: Gate, *, ctx: RunContext) -> str:
    """Record the execution, wait until the gate is there, return the run's id."""
    return _wait(payload, ctx)


@task(id="wait-for-file-once", retry=Retry(max_attempts=1))
def wait_for_file_once(payload: Gate, *, ctx: RunContext) -> str:
    """`wait-for-file` with a single attempt."""
    return _wait(payload, ctx)


@task(id="one-by-one", queue=Queue(name="one-by-one", concurrency_limit=1))
def one_by_one(payload: Gate, *, ctx: RunContext) -> str:
    """`wait-for-file` in a queue that runs one at a time."""
    return _wait(payload, ctx)


@task(id="wait-for-file-async")
async def wait_for_file_async(payload: Gate, *, ctx: RunContext) -> str:
    """`wait-for-file` on an event loop."""
    _record(payload["record"], ctx)
    while not await asyncio.to_thread(Path(payload["gate"]).exists):  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(_POLL_SECONDS)
    return ctx.run.id


@task(id="print-lines")
def print_lines(count: int) -> None:
    """Write lines in all the ways there are."""
    for number in range(count):
        print(f"printed {number}")
        print(f"warned {number}", file=sys.stderr)
        logging.getLogger("sample").warning("logged %d", number)
        logger.info(f"told {number}", number=number)


@task(id="crash", retry=Retry(max_attempts=1))
def crash(how: Literal["exit", "abort", "segfault", "kill"]) -> None:
    """End the process under the run."""
    match how:
        case "exit":
            os._exit(7)
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


@task(id="hog", machine="micro", retry=Retry(max_attempts=1))
def hog(megabytes: int) -> int:
    """Use memory."""
    return len(bytearray(os.urandom(1024)) * 1024 * megabytes)


def _wait(payload: Gate, ctx: RunContext) -> str:
    _record(payload["record"], ctx)
    while not Path(payload["gate"]).exists():
        time.sleep(_POLL_SECONDS)
    return ctx.run.id


def _record(path: str, ctx: RunContext) -> None:
    line = {
        "run": ctx.run.id,
        "attempt": ctx.attempt.number,
        "pid": os.getpid(),
        "parent": os.getppid(),
    }
    # One write, so that lines of several processes don't mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, json.dumps(line).encode() + b"\n")
    os.close(descriptor)


@schedules.task(id="scheduled", cron=Cron("0 5 1 1 *", timezone="Europe/Berlin"))
async def scheduled(payload: ScheduledPayload) -> dict[str, object]:
    """What a schedule says."""
    return {
        "schedule_id": payload.schedule_id,
        "external_id": payload.external_id,
        "timezone": payload.timezone,
        "upcoming": len(payload.upcoming),
    }
