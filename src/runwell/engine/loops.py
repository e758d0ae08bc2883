"""Loops: an interval and a tick that does one batch. Which ones there are is in `background`."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runwell.core import failpoints
from runwell.engine.db import DatabaseUnavailableError
from runwell.engine.notifications import Signals

# What is due and stays so, since another server has it, is looked at again after this long.
_LEAST_SECONDS = 0.002

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """`tick` does one batch and returns how much it did; at `full` it is called again at once.

    `pause` waits for the next tick, for `interval_seconds` at most; it gets the version that its
    topic had before the tick, so that what was woken meanwhile is not slept through.
    """

    name: str
    interval_seconds: float
    tick: Callable[[], Awaitable[int]]
    full: int = 1_000_000_000
    first_after_seconds: float = 0.0
    #: Fails while the database is away. With it, `first_after_seconds` pass after an outage too.
    probe: Callable[[], Awaitable[object]] | None = None
    #: The least time between two ticks: for what is in no hurry, and must not be in anybody's way.
    rest_seconds: float = 0.0
    nudges: "Nudges | None" = None

    async def run(self) -> None:
        """Tick until canceled; a tick that fails is logged and tried again."""
        await asyncio.sleep(self.first_after_seconds)
        is_away = False
        while True:
            done = 0
            version = self.nudges.version() if self.nudges is not None else 0
            try:
                done = await self._tick()
                if is_away:
                    _log.info("loop_has_database", extra={"fields": {"loop": self.name}})
                is_away = False
            except DatabaseUnavailableError as error:
                # Once for an outage, however long it lasts.
                if not is_away:
                    _log.warning(
                        "loop_waits_for_database",
                        extra={"fields": {"loop": self.name, "error": str(error)}},
                    )
                is_away = True
                if self.probe is not None:
                    await self._outlast(self.probe)
            # A loop is the last line of defence for runs: it must outlive any single failure.
            except Exception:  # noqa: BLE001
                _log.exception("loop_failed", extra={"fields": {"loop": self.name}})
            if self.rest_seconds:
                await asyncio.sleep(self.rest_seconds)
            if done < self.full:
                if self.nudges is not None:
                    await self.nudges.wait(version, self.interval_seconds)
                else:
                    await asyncio.sleep(self.interval_seconds)

    async def _tick(self) -> int:
        if not failpoints.ARE_ON:
            return await self.tick()
        failpoints.enter(self.name)
        done = await self.tick()
        if done:
            failpoints.reach("done")
        return done

    async def _outlast(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Until the database has been there for `first_after_seconds` without a break."""
        back_at: float | None = None
        while back_at is None or time.monotonic() < back_at + self.first_after_seconds:
            await asyncio.sleep(self.interval_seconds)
            try:
                await probe()
            except DatabaseUnavailableError:
                back_at = None
            else:
                back_at = time.monotonic() if back_at is None else back_at


@dataclass(frozen=True, kw_only=True)
class Nudges:
    """A topic that lets a loop tick before its interval is over."""

    signals: Signals
    topic: str
    #: How long until there will be something to do, if that is known.
    seconds_left: Callable[[], Awaitable[float | None]] | None = None

    def version(self) -> int:
        """Read before the tick."""
        return self.signals.version(self.topic)

    async def wait(self, version: int, seconds: float) -> None:
        """Until woken since `version`, or there is something to do, or `seconds` have passed."""
        left = None
        with contextlib.suppress(DatabaseUnavailableError):
            left = await self.seconds_left() if self.seconds_left is not None else None
        if left is not None:
            seconds = min(seconds, max(left, _LEAST_SECONDS))
        await self.signals.wait(self.topic, version, seconds)
