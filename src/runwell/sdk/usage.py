"""`usage`: how long the current run has been active, and what that costs (docs `run-usage.md`).

Active is what runs without its waits; the time before the task starts and between attempts doesn't
count either. The price is `ctx.machine.cents_per_ms`: 0 on one's own machines.
"""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from runwell.core.errors import RunwellError
from runwell.sdk.runtime import RunContext, Runtime, find_runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeUsage:
    """An active time and its cost."""

    duration_ms: int
    cost_in_cents: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCompute:
    """The usage of this attempt, and of all attempts until now."""

    attempt: ComputeUsage
    total: ComputeUsage


@dataclass(frozen=True, kw_only=True, slots=True)
class RunUsage:
    """What `usage.get_current()` tells.

    Example:
        >>> from runwell import RunUsage, logger, usage
        >>> def log_usage() -> None:
        ...     current: RunUsage = usage.get_current()
        ...     logger.info("used", milliseconds=current.compute.total.duration_ms)
    """

    compute: RunCompute
    base_cost_in_cents: float
    total_cost_in_cents: float


class Measurement:
    """The active time of a block of code, and its cost; it grows until the block is left.

    Example:
        >>> from runwell import Measurement, usage
        >>> with usage.measure() as measured:
        ...     total = sum(range(1000))
        >>> isinstance(measured, Measurement), measured.compute.duration_ms < 1000
        (True, True)
    """

    __slots__ = ("_begun_at", "_ended_at", "_runtime")

    def __init__(self, runtime: Runtime | None) -> None:
        self._runtime = runtime
        self._begun_at = self._now()
        self._ended_at: float | None = None

    @property
    def compute(self) -> ComputeUsage:
        """The active time until now, or until the end of the block."""
        ended_at = self._now() if self._ended_at is None else self._ended_at
        milliseconds = _milliseconds(ended_at - self._begun_at)
        price = 0 if self._runtime is None else _price(self._runtime.ctx)
        return ComputeUsage(duration_ms=milliseconds, cost_in_cents=milliseconds * price)

    def __enter__(self) -> Self:
        self._begun_at, self._ended_at = self._now(), None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended_at = self._now()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _now(self) -> float:
        return time.perf_counter() if self._runtime is None else self._runtime.active_seconds()


class Usage:
    """Tells how long the current run has been active, and what that costs.

    Example:
        >>> from runwell import logger, task, usage
        >>> @task(id="resize")
        ... async def resize(url: str) -> None:
        ...     with usage.measure() as measured:
        ...         ...
        ...     logger.info("resized", milliseconds=measured.compute.duration_ms)
        ...     print(usage.get_current().compute.attempt.duration_ms)
    """

    __slots__ = ()

    def get_current(self) -> RunUsage:
        """The usage until now, waits not counted; raises RunwellError outside of a run."""
        runtime = find_runtime()
        if runtime is None:
            raise RunwellError(
                "usage.get_current works inside of a run: elsewhere, use runs.retrieve(run_id)"
            )
        ctx = runtime.ctx
        run, milliseconds = ctx.run, _milliseconds(runtime.active_seconds())
        attempt = ComputeUsage(duration_ms=milliseconds, cost_in_cents=milliseconds * _price(ctx))
        total = ComputeUsage(
            duration_ms=run.duration_ms + attempt.duration_ms,
            cost_in_cents=run.cost_in_cents + attempt.cost_in_cents,
        )
        return RunUsage(
            compute=RunCompute(attempt=attempt, total=total),
            base_cost_in_cents=run.base_cost_in_cents,
            total_cost_in_cents=total.cost_in_cents + run.base_cost_in_cents,
        )

    def measure(self) -> Measurement:
        """Measure a block: `with usage.measure() as m`, or `async with`; elsewhere, its time."""
        return Measurement(find_runtime())


usage: Final = Usage()


def _price(ctx: RunContext) -> float:
    return 0 if ctx.machine is None else ctx.machine.cents_per_ms


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
