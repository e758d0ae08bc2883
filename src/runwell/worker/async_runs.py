"""The event loop of a child, and one run on it after the other."""

import asyncio
import contextlib
from collections.abc import Coroutine
from contextvars import Context

from runwell.core.errors import RunStopped
from runwell.worker.driver import Driver

# What a task leaves running gets this long to clean up after it was cancelled.
_LEFTOVER_SECONDS = 2.0


class AsyncRuns:
    """Runs coroutines with our driver; the loop is made ahead of the first one."""

    def __init__(self, *, is_rehearsal: bool = False) -> None:
        """In a rehearsal the loop is nobody's current one, and closed at the end."""
        self._is_rehearsal = is_rehearsal
        self._loop = asyncio.new_event_loop()
        self._driver: Driver | None = None
        self._task: asyncio.Task[object] | None = None

    def run(self, coroutine: Coroutine[object, object, object], context: Context) -> object:
        """Run a task's coroutine to its end, and then end what it left running."""
        if self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        if not self._is_rehearsal:
            asyncio.set_event_loop(loop)
        self._driver = Driver(coroutine)
        self._task = asyncio.Task(self._driver, loop=loop, context=context, name="run")
        try:
            return loop.run_until_complete(self._task)
        finally:
            self._driver = self._task = None
            self._end_leftovers()

    def stop(self, stop: RunStopped) -> None:
        """From a signal handler: raise in the user's coroutine, at its await if it waits."""
        driver, task = self._driver, self._task
        if driver is None or task is None:
            return
        if driver.cr_running:
            # It computes and does not await: only an exception right here reaches it.
            raise driver.async_signal(stop)
        driver.stop_with(stop)
        self._loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """There is no further run: generators that nobody finished run their `finally` now."""
        if self._is_rehearsal:
            self._loop.close()
        # asyncio's own loop knows them; of another one's it is not known, and it is asked.
        if self._loop.is_closed() or not getattr(self._loop, "_asyncgens", True):
            return
        ending = asyncio.wait_for(self._loop.shutdown_asyncgens(), _LEFTOVER_SECONDS)
        with contextlib.suppress(TimeoutError):
            self._loop.run_until_complete(ending)

    def _end_leftovers(self) -> None:
        loop = self._loop
        leftovers = set[asyncio.Task[object]]() if loop.is_closed() else asyncio.all_tasks(loop)
        if leftovers:
            for task in leftovers:
                task.cancel()
            loop.run_until_complete(asyncio.wait(leftovers, timeout=_LEFTOVER_SECONDS))
