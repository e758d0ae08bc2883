"""User-like code that the type checkers read and nobody runs: what is called inside of a run."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import runwell.sync
from runwell import (
    BatchResult,
    Failed,
    LocalKey,
    Measurement,
    Ok,
    PythonResult,
    RunUsage,
    item,
    locals,  # noqa: A004 (the documentation's name)
    python,
    retry,
    task,
    usage,
)
from tests.typing.definitions import Order, bare, with_default, with_payload

database = locals.create("database", sqlite3.Connection)
names: LocalKey[list[str]] = locals.create("names")


@task(id="inside")
async def inside() -> None:
    result = await with_payload.trigger_and_wait(Order(1), tags="a")
    # pyright narrows by `is True`, and not by the plain truth of an attribute.
    if result.ok is True:
        assert_type(result, Ok[str])
        assert_type(result.output, str)
    else:
        assert_type(result, Failed)
    assert_type(result.unwrap(), str)
    assert_type(await with_payload.trigger_and_wait(Order(1)).unwrap(), str)
    assert_type(await bare.trigger_and_wait().unwrap(), list[str])
    assert_type(await with_default.trigger_and_wait("Ada").unwrap(), str)
    batch = await with_payload.batch_trigger_and_wait([Order(1), item(Order(2), delay="1h")])
    assert_type(batch, BatchResult[str])
    assert_type([run.unwrap() for run in batch.runs], list[str])
    blocked = with_payload.sync.trigger_and_wait(Order(1))
    assert_type(blocked.unwrap(), str)
    assert_type(blocked.output if isinstance(blocked, Ok) else None, str | None)


@inside.middleware
async def connect() -> AsyncIterator[None]:
    assert_type(locals.set(database, sqlite3.connect(":memory:")), sqlite3.Connection)
    assert_type(locals.get(names), list[str] | None)
    assert_type(locals.get_or_raise(names), list[str])
    yield


@inside.init
async def measure() -> RunUsage:
    with usage.measure() as measured:
        assert_type(measured, Measurement)
    async with usage.measure() as again:
        assert_type(again.compute.duration_ms, int)
    assert_type(usage.get_current().compute.total.cost_in_cents, float)
    return usage.get_current()


async def count(attempt: int) -> int:
    return attempt


async def repeat() -> None:
    assert_type(await retry.on_throw(count, max_attempts=2), int)
    assert_type(runwell.sync.retry.on_throw(str), str)
    assert_type(await python.run_inline("print(1)"), PythonResult)
    async for piece in python.stream.run_script("a.py", ["b"], env={"A": "b"}):
        assert_type(piece, str)
    for piece in runwell.sync.python.stream.run(["-V"]):
        assert_type(piece, str)


@task(id="blocking-inside")
def blocking_inside() -> None: ...


@blocking_inside.middleware
def around() -> Iterator[None]:
    yield
