"""The supervisor's wish that a run stops, raised inside of the task.

A STOP frame comes with a SIGTERM, so that code which never looks at a socket hears of it.
"""

import os
import signal
from types import FrameType

from runwell.core.errors import RunCanceled, RunStopped, RunTimedOut
from runwell.worker.async_runs import AsyncRuns
from runwell.worker.inbox import Inbox
from runwell.worker.messages import TIMED_OUT


class StopSignal:
    """Turns the supervisor's wish that a run stops into an exception inside of the task."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._stale_signals = 0
        self._is_running = False
        self._async_runs: AsyncRuns | None = None
        self.raised: RunStopped | None = None

    def listen(self) -> None:
        """Take SIGTERM from here on."""
        signal.signal(signal.SIGTERM, self._on_signal)
        # A copy that the task makes is not asked to stop by us. It ends of the signal as any other
        # process does: ours comes too late in one that is about to wait for a lock (the workers of
        # `multiprocessing.Pool`, which it ends in this way).
        os.register_at_fork(after_in_child=self._forget)

    def expect_stale_signal(self) -> None:
        """A STOP frame came after the end of its run: its SIGTERM means nothing."""
        self._stale_signals += 1

    def begin(self, async_runs: AsyncRuns | None) -> None:
        """The task's code runs from here on."""
        self._async_runs = async_runs
        self._is_running = True

    def end(self) -> None:
        """The task's code has ended."""
        self._is_running = False

    def _forget(self) -> None:
        # The user may have put a handler in place of ours.
        if signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        stop = self._read_stop()
        if stop is None and self._inbox.is_deferred:
            # It is sent again when whoever reads the socket right now is done.
            return
        if stop is None and self._stale_signals:
            self._stale_signals -= 1
        elif stop is None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._is_running:
            self.raised = stop
            if self._async_runs is not None:
                self._async_runs.stop(stop)
            else:
                raise stop

    def _read_stop(self) -> RunStopped | None:
        found = self._inbox.take_stop()
        if found is None:
            return None
        if found.body.decode() == TIMED_OUT:
            return RunTimedOut("the run exceeded its max duration")
        return RunCanceled("the run was canceled")
