"""A worker as a program: from its start to the signal that ends it."""

import asyncio
import signal
from collections.abc import Callable

from runwell.core.errors import ConfigurationError
from runwell.worker.events import WorkerEvent
from runwell.worker.settings import WorkerSettings
from runwell.worker.supervisor import Supervisor

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _ignore(_: WorkerEvent) -> None:
    """Nobody wants to know."""


async def run_worker(
    settings: WorkerSettings, on_event: Callable[[WorkerEvent], None] = _ignore
) -> None:
    """Run a worker until SIGTERM or SIGINT; returns when its runs have ended or were handed back.

    A second signal hastens it. Raises ConfigurationError when it can't begin: a wrong URL or key, a
    state folder that can't be used, no task that can be imported.
    """
    supervisor = Supervisor(settings, on_event)
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    hastening: set[asyncio.Task[None]] = set()

    def on_signal() -> None:
        if asked.is_set():
            hastening.add(asyncio.create_task(supervisor.stop(), name="hasten"))
        asked.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    working = asyncio.create_task(_work(supervisor), name="work")
    try:
        await _first_of(working, asked)
        if working.done() and supervisor.has_started:
            # It ends by itself only when it fails: what runs goes back at once.
            await supervisor.stop(0)
        elif supervisor.has_started:
            await supervisor.stop()
        working.cancel()
        await asyncio.wait((working,))
        if not working.cancelled():
            working.result()
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        for task in hastening:
            await task


async def _work(supervisor: Supervisor) -> None:
    await supervisor.start()
    if not await supervisor.add_version():
        raise ConfigurationError(
            f"no task of {supervisor.settings.project_folder} can run: correct the problems above"
        )
    await supervisor.wait()


async def _first_of(working: asyncio.Task[None], asked: asyncio.Event) -> None:
    waiting = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
