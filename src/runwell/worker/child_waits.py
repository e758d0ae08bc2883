"""The waits of the run in this process: told to the supervisor, and woken by it."""

import asyncio
import os
import threading
import time
from functools import partial

from runwell.core.waits import Wait, WaitOutcome
from runwell.worker.idleness import is_idle
from runwell.worker.inbox import Inbox
from runwell.worker.messages import WAIT, WaitOrder, frame
from runwell.worker.wait_future import WaitFuture

# While the run does other things besides its waits it is looked at again, ever more seldom.
_FIRST_LOOK_SECONDS = 0.02
_LAST_LOOK_SECONDS = 1.0
# A thread that waits takes turns in reading with the others.
_TURN_SECONDS = 0.5


class ChildWaits:
    """Begins waits for coroutines and for blocking callers, and gives each its outcome."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._pending: dict[str, _Waiter] = {}
        self._begun: list[Wait] = []
        self._forgotten: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: asyncio.TimerHandle | None = None
        self._look_seconds = _FIRST_LOOK_SECONDS
        self._is_blocked = False
        self._seen = 0
        self._clock = ActiveClock()

    def start_clock(self) -> None:
        """A run starts now."""
        self._clock = ActiveClock()

    def active_seconds(self) -> float:
        """How long the run has been active, in seconds: without its waits."""
        return self._clock.read()

    def begin(self, wait: Wait) -> WaitFuture:
        """Begin a wait of a coroutine: it awaits what this returns."""
        loop = asyncio.get_running_loop()
        self._attach(loop)
        future = WaitFuture(loop=loop)
        self._pending[wait.wait_id] = _Waiter(future)
        future.add_done_callback(partial(self._on_done, wait.wait_id))
        self._begun.append(wait)
        # After all that is about to run: what begins together is told together.
        loop.call_soon(self._tell)
        return future

    def wait(self, wait: Wait) -> WaitOutcome:
        """Wait, and block the calling thread."""
        waiter = self._pending[wait.wait_id] = _Waiter(None)
        # The main thread is the run: when it waits, the run does.
        is_blocked = threading.current_thread() is threading.main_thread()
        if is_blocked:
            self._clock.stop()
        self._send(WaitOrder(waits=[wait], is_blocked=is_blocked, seen=self._seen))
        try:
            while waiter.outcome is None:
                if not self._inbox.read(_TURN_SECONDS):
                    _end_without_supervisor()
                self._dispatch()
        except BaseException:
            # Its outcome may have come in the very moment in which it is given up.
            self._pending.pop(wait.wait_id, None)
            self._send(WaitOrder(forgotten=[wait.wait_id]))
            raise
        finally:
            if is_blocked:
                self._clock.go_on()
        return waiter.outcome

    def end(self) -> None:
        """The run is over, and waits for nothing."""
        self._detach()
        self._pending.clear()
        self._begun.clear()
        self._forgotten.clear()
        self._is_blocked = False
        self._seen = 0

    def _tell(self) -> None:
        """What changed since it was told last, and whether the run is blocked now."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        was_blocked = self._is_blocked
        self._is_blocked = bool(self._pending) and self._does_nothing_else(loop)
        if self._is_blocked:
            self._clock.stop()
        else:
            self._clock.go_on()
        if self._begun or self._forgotten or (self._is_blocked and not was_blocked):
            order = WaitOrder(
                waits=self._begun,
                forgotten=self._forgotten,
                is_blocked=self._is_blocked,
                seen=self._seen,
            )
            self._begun, self._forgotten = [], []
            self._send(order)
        if not self._pending:
            self._detach()
        elif not self._is_blocked:
            self._look_later(loop)

    def _does_nothing_else(self, loop: asyncio.AbstractEventLoop) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return False
        return is_idle(loop, () if self._look is None else (self._look,))

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = loop.call_later(self._look_seconds, self._tell)
        self._look_seconds = min(self._look_seconds * 2, _LAST_LOOK_SECONDS)

    def _on_done(self, wait_id: str, future: "asyncio.Future[WaitOutcome]") -> None:
        if future.cancelled() and self._pending.pop(wait_id, None) is not None:
            begun = [wait for wait in self._begun if wait.wait_id != wait_id]
            if len(begun) == len(self._begun):
                self._forgotten.append(wait_id)
            self._begun = begun
            future.get_loop().call_soon(self._tell)

    def _on_readable(self) -> None:
        if not self._inbox.read_now():
            _end_without_supervisor()
        self._dispatch()

    def _dispatch(self) -> None:
        """Give every outcome that has come to whoever waits for it."""
        while self._inbox.results:
            try:
                found = self._inbox.results.popleft()
            except IndexError:
                # Another thread was faster.
                return
            outcome = WaitOutcome.model_validate_json(found.body)
            self._seen += 1
            waiter = self._pending.pop(outcome.wait_id, None)
            if waiter is None:
                # Given up meanwhile.
                continue
            self._is_blocked = False
            if waiter.future is not None:
                self._clock.go_on()
            self._look_seconds = _FIRST_LOOK_SECONDS
            waiter.give(outcome)
            if waiter.future is not None:
                waiter.future.get_loop().call_soon_threadsafe(self._tell_after_steps)

    def _tell_after_steps(self) -> None:
        # What was woken takes its steps first: most often it begins the next wait at once.
        if self._loop is not None and not self._loop.is_closed():
            self._look_later(self._loop)

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            self._detach()
            self._loop = loop
            loop.add_reader(self._inbox.fileno(), self._on_readable)

    def _detach(self) -> None:
        loop, self._loop = self._loop, None
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._inbox.fileno())

    def _send(self, order: WaitOrder) -> None:
        self._inbox.send(frame(WAIT, order.model_dump_json().encode()))


class ActiveClock:
    """Counts the seconds since a start, and stands still while the run is blocked."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._stopped_at: float | None = None
        self._waited = 0.0

    def stop(self) -> None:
        """The run is blocked from now on."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()

    def go_on(self) -> None:
        """The run goes on."""
        if self._stopped_at is not None:
            self._waited += time.monotonic() - self._stopped_at
            self._stopped_at = None

    def read(self) -> float:
        """The seconds that it has counted."""
        until = time.monotonic() if self._stopped_at is None else self._stopped_at
        return until - self._started_at - self._waited


class _Waiter:
    """Whoever waits: a coroutine by its future, or a thread that looks at `outcome`."""

    def __init__(self, future: WaitFuture | None) -> None:
        self.future = future
        self.outcome: WaitOutcome | None = None

    def give(self, outcome: WaitOutcome) -> None:
        """Here is what it waited for; from any thread."""
        self.outcome = outcome
        future = self.future
        if future is not None:
            future.get_loop().call_soon_threadsafe(_complete, future, outcome)


def _complete(future: WaitFuture, outcome: WaitOutcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _end_without_supervisor() -> None:
    # Nobody will ever answer: the run goes on elsewhere.
    os._exit(1)
