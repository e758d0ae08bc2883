"""A worker as a program: it runs in this process from its start to the signal that ends it."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager

from runwell.worker.events import WorkerEvent
from runwell.worker.settings import WorkerSettings
from runwell.worker.supervisor import Supervisor

#: What goes on beside a worker until it has stopped.
Companion = Callable[[Supervisor], Coroutine[object, object, None]]

#: Exit statuses: nothing of the project can be imported; stopped before it had started.
UNUSABLE = 1
INTERRUPTED = 130


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
    settings: WorkerSettings,
    on_event: Callable[[WorkerEvent], None],
    requests: StopRequests,
    companions: tuple[Companion, ...] = (),
) -> int:
    """Run a worker until it was asked to stop, and return the exit status of its program.

    Asked once, it lets its runs end, and hands back those that take too long; asked again, it hands
    them back at once. Without companions it ends with status 1 when nothing of the project can be
    imported: nobody would mend it here.

    Raises ConfigurationError when it can't begin (a wrong URL or key, a state folder that can't be
    used), and what made one of its loops fail, after handing back at once what ran.
    """
    supervisor = Supervisor(settings, on_event)
    steering = _Steering(supervisor)
    requests.act_with(steering.stop)
    try:
        is_usable = await steering.start()
        if is_usable or companions:
            await _run_beside(supervisor, companions)
    except asyncio.CancelledError:
        if not steering.was_stopped_early:
            raise
        return INTERRUPTED
    except BaseException:
        await steering.finish(grace_seconds=0)
        raise
    finally:
        await steering.finish()
    return 0 if is_usable or companions else UNUSABLE


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
        self.was_stopped_early = False

    async def start(self) -> bool:
        """Connect and register the project; whether anything of it is usable."""
        self._starting = asyncio.create_task(self._start())
        return await self._starting

    def stop(self) -> None:
        """Ask it to stop; a second time at once."""
        if self._starting is not None and not self._starting.done():
            self.was_stopped_early = True
            self._starting.cancel()
        if self._supervisor.has_started:
            self._stop()

    async def finish(self, grace_seconds: float | None = None) -> None:
        """Stop it if nobody has, and wait until it has."""
        if self._supervisor.has_started and not self._stops:
            self._stop(grace_seconds)
        await asyncio.gather(*self._stops)

    def _stop(self, grace_seconds: float | None = None) -> None:
        self._stops.append(asyncio.create_task(self._supervisor.stop(grace_seconds)))

    async def _start(self) -> bool:
        await self._supervisor.start()
        return await self._supervisor.add_version()
