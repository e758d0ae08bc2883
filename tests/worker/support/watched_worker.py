"""A supervisor of our own process with its events noted, and the projects that it runs."""

import asyncio
import contextlib
import textwrap
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TypeVar

from runwell.worker.events import WorkerEvent
from runwell.worker.settings import WorkerSettings
from runwell.worker.supervisor import Supervisor
from tests.worker.support.fake_server import SECRET_KEY, FakeServer, serving

EventT = TypeVar("EventT")


def write_project(folder: Path, **files: str) -> Path:
    """A project with these task files (`name="source"`)."""
    (folder / "trigger").mkdir(parents=True, exist_ok=True)
    (folder / "trigger_config.py").write_text(
        "from runwell import define_config\nconfig = define_config(log_level='debug')\n"
    )
    for name, source in files.items():
        (folder / "trigger" / f"{name}.py").write_text(
            "import runwell\nfrom runwell import task, logger\n" + textwrap.dedent(source)
        )
    return folder


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


class WatchedWorker:
    """A supervisor, its server, and all that it said."""

    def __init__(self, server: FakeServer, folder: Path, **settings: object) -> None:
        self.server = server
        self.events: list[WorkerEvent] = []
        self._arrived = asyncio.Event()
        self.settings = WorkerSettings(
            **{
                "url": server.url,
                "secret_key": SECRET_KEY,
                "project_folder": folder,
                "state_folder": folder / ".runwell" / "worker",
                "capacity": 4,
                "mode": "fork",
                "min_spares": 1,
                **settings,
            }  # pyright: ignore[reportArgumentType] (the tests' own spelling)
        )
        self.supervisor = Supervisor(self.settings, self._note)

    def _note(self, event: WorkerEvent) -> None:
        self.events.append(event)
        self._arrived.set()

    def seen(self, kind: type[EventT]) -> list[EventT]:
        """The events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def event(
        self,
        kind: type[EventT],
        matches: Callable[[EventT], bool] = lambda _: True,
        seconds: float = 60,
    ) -> EventT:
        """The first event of a kind, waited for if it has not come yet."""
        async with asyncio.timeout(seconds):
            while True:
                for event in self.seen(kind):
                    if matches(event):
                        return event
                self._arrived.clear()
                await self._arrived.wait()


@contextlib.asynccontextmanager
async def working(
    folder: Path, server: FakeServer | None = None, **settings: object
) -> AsyncGenerator[WatchedWorker]:
    """A worker with the project's version registered; stopped, and its server too, at the end."""
    async with contextlib.AsyncExitStack() as stack:
        if server is None:
            server = await stack.enter_async_context(serving())
        worker = WatchedWorker(server, folder, **settings)
        await worker.supervisor.start()
        try:
            assert await worker.supervisor.add_version(), worker.events
            yield worker
        finally:
            await worker.supervisor.stop(0)
