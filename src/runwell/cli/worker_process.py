"""A worker that runs in this process until a signal has stopped it; its events are printed."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager

from runwell.cli.output import Output
from runwell.cli.screen import Screen
from runwell.worker.settings import WorkerSettings
from runwell.worker.supervisor import Supervisor

#: What goes on beside a worker until it has stopped.
Companion = Callable[[Supervisor], Coroutine[object, object, None]]

_INTERRUPTED = 130


class StopRequests:
    """The signals that ask this process to stop, and what each of them does at the time."""

    def __init__(self) -> None:
        """Nothing was asked for yet."""
        self.count = 0
        self._act: Callable[[], object] | None = None

    def act_with(self, act: Callable[[], object]) -> None:
        """From now on each signal calls this."""
        self._act = act

    def on_signal(self) -> None:
        """A signal came."""
        self.count += 1
        if self._act is not None:
            self._act()


@contextmanager
def catch_stop_signals() -> Generator[StopRequests]:
    """Take SIGINT and SIGTERM as requests to stop within the block."""
    requests = StopRequests()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, requests.on_signal)
    try:
        yield requests
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def run_worker(
    output: Output,
    settings: WorkerSettings,
    requests: StopRequests,
    companions: tuple[Companion, ...] = (),
) -> int:
    """Run a worker until it was asked to stop, and return the exit status.

    Without companions it ends with status 1 when nothing of the project can be imported: nobody
    would mend it here.
    """
    screen = Screen(output, settings)
    supervisor = Supervisor(settings, screen.show)
    steering = _Steering(supervisor)
    requests.act_with(steering.stop)
    try:
        try:
            is_usable = await steering.start()
        except asyncio.CancelledError:
            if not requests.count:
                raise
            return _INTERRUPTED
        if not is_usable and not companions:
            return 1
        await _run_beside(supervisor, companions)
    finally:
        await steering.finish()
        await screen.close()
    return 0


async def _run_beside(supervisor: Supervisor, companions: tuple[Companion, ...]) -> None:
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(companion(supervisor)) for companion in companions]
        await supervisor.wait()
        for task in beside:
            task.cancel()


class _Steering:
    """Starts a supervisor and stops it, in whatever moment that is asked for."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._starting: asyncio.Task[bool] | None = None
        self._stops: list[asyncio.Task[None]] = []

    async def start(self) -> bool:
        """Connect and register the project; whether anything of it is usable."""
        self._starting = asyncio.create_task(self._start())
        return await self._starting

    def stop(self) -> None:
        """Ask it to stop; a second time at once."""
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        if self._supervisor.has_started:
            self._stops.append(asyncio.create_task(self._supervisor.stop()))

    async def finish(self) -> None:
        """Stop it if nobody has, and wait until it has."""
        if self._supervisor.has_started and not self._stops:
            self.stop()
        await asyncio.gather(*self._stops)

    async def _start(self) -> bool:
        await self._supervisor.start()
        return await self._supervisor.add_version()
