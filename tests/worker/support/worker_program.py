"""A worker as a program of its own, for tests that kill it: URL, project folder, grace."""

import asyncio
import sys
from pathlib import Path

from runwell.core.errors import ConfigurationError
from runwell.worker.program import catch_stop_signals, run_worker
from runwell.worker.settings import WorkerSettings
from tests.worker.support.fake_server import SECRET_KEY


def main() -> None:
    """Run it until it is asked to stop."""
    url, folder, grace = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    settings = WorkerSettings(
        url=url,
        secret_key=SECRET_KEY,
        project_folder=folder,
        state_folder=folder / ".runwell" / "worker",
        capacity=4,
        mode="fork",
        min_spares=1,
        grace_seconds=grace,
        cancel_grace_seconds=1,
    )
    try:
        sys.exit(asyncio.run(_run(settings)))
    except ConfigurationError as error:
        sys.exit(str(error))


async def _run(settings: WorkerSettings) -> int:
    with catch_stop_signals() as requests:
        return await run_worker(settings, lambda event: print(event, flush=True), requests)


if __name__ == "__main__":
    main()
