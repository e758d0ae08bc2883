"""`usage`: active time and cost, of the run and of a block of code."""

import asyncio
import dataclasses

import pytest

from runwell import RunwellError, usage
from runwell.sdk.runtime import activate
from tests.sdk.contexts import KeepingRuntime


def a_run(*, cents_per_ms: float = 0) -> KeepingRuntime:
    """A run with a price, whose earlier attempts took a second and a half."""
    runtime = KeepingRuntime()
    ctx = runtime.ctx
    assert ctx.machine is not None
    runtime.ctx = dataclasses.replace(
        ctx,
        machine=dataclasses.replace(ctx.machine, cents_per_ms=cents_per_ms),
        run=dataclasses.replace(
            ctx.run, duration_ms=1500, cost_in_cents=1500 * cents_per_ms, base_cost_in_cents=1
        ),
    )
    return runtime


def test_the_usage_of_the_attempt_and_of_all_attempts_is_told() -> None:
    runtime = a_run(cents_per_ms=0.5)
    runtime.seconds = 1
    with activate(runtime):
        assert dataclasses.asdict(usage.get_current()) == {
            "compute": {
                "attempt": {"duration_ms": 1000, "cost_in_cents": 500},
                "total": {"duration_ms": 2500, "cost_in_cents": 1250},
            },
            "base_cost_in_cents": 1,
            "total_cost_in_cents": 1251,
        }


def test_a_block_is_measured_until_it_is_left() -> None:
    runtime = a_run(cents_per_ms=2)
    with activate(runtime):
        runtime.seconds = 1
        with usage.measure() as measured:
            runtime.seconds = 1.25
            assert measured.compute.duration_ms == 250
            runtime.seconds = 1.5
        runtime.seconds = 9
        assert (measured.compute.duration_ms, measured.compute.cost_in_cents) == (500, 1000)


def test_a_block_that_raises_is_measured_too() -> None:
    runtime = a_run()

    async def fail() -> None:
        async with usage.measure() as measured:
            measurements.append(measured)
            runtime.seconds = 2
            raise ValueError("no")

    measurements = [usage.measure()]
    with activate(runtime):
        with pytest.raises(ValueError, match="no"):
            asyncio.run(fail())
        runtime.seconds = 3
        assert measurements[1].compute.duration_ms == 2000


def test_outside_of_a_run_a_block_has_its_time_and_no_cost() -> None:
    with usage.measure() as measured:
        pass
    assert measured.compute.duration_ms < 1000
    assert measured.compute.cost_in_cents == 0
    with pytest.raises(RunwellError, match=r"usage.get_current works inside of a run"):
        usage.get_current()
