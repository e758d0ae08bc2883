"""The event loop of a child, and one run on it after the other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from contextvars import Context, copy_context

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
            self.end_leftovers()

    def run_aside(self, awaitable: Awaitable[object]) -> object:
        """From a run that is not in the loop: wait for one thing; what it starts stays running.

        It sees the context variables of the caller, and the caller those that it has set.
        """
        if self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        if loop.is_running():
            # Another thread of the run asks.
            return asyncio.run_coroutine_threadsafe(_await(awaitable), loop).result()
        asyncio.set_event_loop(loop)
        context = copy_context()
        self._driver = Driver(_await(awaitable))
        self._task = asyncio.Task(self._driver, loop=loop, context=context, name="hook")
        try:
            return loop.run_until_complete(self._task)
        finally:
            self._driver = self._task = None
            for variable, value in context.items():
                if variable.get(None) is not value:
                    variable.set(value)

    def stop(self, stop: RunStopped) -> None:
        """From a signal handler: raise in the user's coroutine, at its await if it waits.

        Where there is none at the moment, it is raised right here.
        """
        driver, task = self._driver, self._task
        if driver is None or task is None:
            raise stop
        if driver.cr_running:
            # It computes and does not await: only an exception right here reaches it.
            raise driver.async_signal(stop)
        driver.stop_with(stop)
        self._loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """There is no further run: generators that nobody finished run their `finally` now."""
        try:
            self._end_generators()
        finally:
            if self._is_rehearsal:
                self._loop.close()

    def _end_generators(self) -> None:
        # asyncio's own loop knows them; of another one's it is not known, and it is asked.
        if self._loop.is_closed() or not getattr(self._loop, "_asyncgens", True):
            return
        ending = asyncio.wait_for(self._loop.shutdown_asyncgens(), _LEFTOVER_SECONDS)
        with contextlib.suppress(TimeoutError):
            self._loop.run_until_complete(ending)

    def end_leftovers(self) -> None:
        """Cancel what the run has left running in the loop, and wait for it a little."""
        loop = self._loop
        leftovers = set[asyncio.Task[object]]() if loop.is_closed() else asyncio.all_tasks(loop)
        if leftovers:
            for task in leftovers:
                task.cancel()
            loop.run_until_complete(asyncio.wait(leftovers, timeout=_LEFTOVER_SECONDS))


async def _await(awaitable: Awaitable[object]) -> object:
    return await awaitable
