"""How long `runwell dev` takes until it can run tasks."""

import asyncio
import signal
import time
from pathlib import Path

from bench.figures import Figure, Section
from bench.instance import project_folder, spawn_cli
from bench.stats import median

_LATER_STARTS = 5
_PATIENCE_SECONDS = 60.0
# What `runwell dev` prints once the tasks are imported and registered, and once the worker has
# connected to the server.
_SIGNS = ("version ", "connected ")


async def measure(*, is_quick: bool) -> Section:
    """Start it in a folder that it has never seen, then again."""
    with project_folder() as folder:
        first = await _start(folder)
        later = [await _start(folder) for _ in range(2 if is_quick else _LATER_STARTS)]
    return Section(
        title="Cold start",
        how="From the start of `runwell dev` until it says that the tasks are registered "
        f"and the worker is connected; the median of {len(later)} later starts.",
        figures=[
            Figure(name="`runwell dev`, first time", value=first, unit="s", digits=2),
            Figure(name="`runwell dev`, later", value=median(later), unit="s", digits=2),
        ],
    )


async def _start(folder: Path) -> float:
    log = folder / "dev.log"
    log.unlink(missing_ok=True)
    begin = time.monotonic()
    process = spawn_cli(["dev", "--port", "0"], folder, log, {})
    try:
        while not all(sign in (text := log.read_text()) for sign in _SIGNS):
            if process.poll() is not None or time.monotonic() - begin > _PATIENCE_SECONDS:
                raise RuntimeError(f"`runwell dev` did not get ready:\n{text}")
            await asyncio.sleep(0.005)
        return time.monotonic() - begin
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, _PATIENCE_SECONDS)
