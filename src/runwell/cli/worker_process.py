"""A worker that runs in this process, until a signal: its events are printed."""

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

from runwell.cli.output import Output
from runwell.cli.screen import Screen
from runwell.worker.settings import WorkerSettings
from runwell.worker.supervisor import Supervisor


async def run_worker(output: Output, settings: WorkerSettings) -> int:
    """Run a worker until SIGINT or SIGTERM has stopped it, and return the exit status."""
    screen = Screen(output, settings)
    supervisor = Supervisor(settings, screen.show)
    with on_stop_signals(supervisor.stop):
        await supervisor.run()
    await screen.close()
    return 0


@contextmanager
def on_stop_signals(stop: Callable[[], None]) -> Generator[None]:
    """Call `stop` at each SIGINT and SIGTERM within the block."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
