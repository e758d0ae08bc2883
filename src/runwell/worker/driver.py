"""Runs a task's coroutine: it stands where asyncio sees a coroutine, and steps the user's one.

What the user's coroutine awaits, it passes on to the event loop as it is, so the Task around the
driver behaves as everywhere (`current_task`, timeouts, task groups). Between the driver and the
leaf that is awaited there are only the user's frames: a wait can be seen here, and the coroutine
be taken out and stored, without a task or callback in between.
"""

import asyncio
from collections.abc import Coroutine, Generator
from types import CodeType, FrameType, TracebackType
from typing import cast

from runwell.core.errors import RunCanceled, RunStopped, RunTimedOut


class AsyncRunCanceled(RunCanceled, asyncio.CancelledError):
    """RunCanceled as asyncio's own machinery (task groups, timeouts) understands it.

    Before Python 3.13 a TaskGroup that it passes through wraps it in a BaseExceptionGroup.
    """


class AsyncRunTimedOut(RunTimedOut, asyncio.CancelledError):
    """RunTimedOut as asyncio's own machinery (task groups, timeouts) understands it."""


_ASYNC_SIGNALS: dict[type[RunStopped], type[RunStopped]] = {
    RunCanceled: AsyncRunCanceled,
    RunTimedOut: AsyncRunTimedOut,
}


class Driver(Coroutine[object, object, object]):
    """The coroutine of a run, as the event loop's Task sees it."""

    def __init__(self, coroutine: Coroutine[object, object, object]) -> None:
        self._coroutine = coroutine
        self._signal: RunStopped | None = None

    def stop_with(self, stop: RunStopped) -> None:
        """The next cancellation of the task around is this signal; the caller cancels the task."""
        self._signal = self.async_signal(stop)

    def async_signal(self, stop: RunStopped) -> RunStopped:
        """The same signal as asyncio understands it."""
        return _ASYNC_SIGNALS.get(type(stop), type(stop))(*stop.args)

    def send(self, value: object, /) -> object:
        """One step."""
        return self._coroutine.send(value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> object:
        """One step that raises in the user's code; a cancellation that we asked for says why."""
        if isinstance(typ, BaseException):
            error = typ
        else:
            error = val if isinstance(val, BaseException) else typ()
        if self._signal is not None and isinstance(error, asyncio.CancelledError):
            error, self._signal = self._signal, None
        elif tb is not None:
            error = error.with_traceback(tb)
        return self._coroutine.throw(error)

    def close(self) -> None:
        """End the user's coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[object, object, object]:
        return self._coroutine.__await__()

    # Debuggers, anyio and `Task.get_stack` look at these.

    @property
    def cr_frame(self) -> FrameType | None:
        """The user's outermost frame."""
        return cast("FrameType | None", getattr(self._coroutine, "cr_frame", None))

    @property
    def cr_code(self) -> CodeType | None:
        """The code of the task's function."""
        return cast("CodeType | None", getattr(self._coroutine, "cr_code", None))

    @property
    def cr_await(self) -> object:
        """What the user's coroutine awaits."""
        return getattr(self._coroutine, "cr_await", None)

    @property
    def cr_running(self) -> bool:
        """Whether it runs right now."""
        return bool(getattr(self._coroutine, "cr_running", False))

    @property
    def cr_suspended(self) -> bool:
        """Whether it waits for something."""
        return bool(getattr(self._coroutine, "cr_suspended", False))
