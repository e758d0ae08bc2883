"""Watching a project's Python files, without the folders that are none of its own."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

# One of its parameters has the type of a package that we don't have.
from watchfiles import Change, PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

_FOREIGN: Final = frozenset({"__pycache__", "node_modules", "site-packages", "dist", "build"})
#: Editors write a file in several steps: what comes within this time is one save.
_QUIET_MS: Final = 100


async def watch_project(folder: Path) -> AsyncGenerator[None]:
    """Yield after each save of a Python file in a project, until it is closed."""
    while True:
        below = sorted(_own_folders(folder))
        stop = asyncio.Event()
        saves: asyncio.Queue[None] = asyncio.Queue()
        # The folder itself not deeply: a virtual environment or our own data may be in it, whose
        # thousands of folders would all be watched.
        watchers = [
            asyncio.create_task(_watch_top(folder, saves, stop)),
            *([asyncio.create_task(_watch_below(below, saves, stop))] if below else []),
        ]
        try:
            while not stop.is_set():
                await saves.get()
                while not saves.empty():
                    saves.get_nowait()
                yield
        finally:
            stop.set()
            await asyncio.gather(*watchers, return_exceptions=True)


async def _watch_top(folder: Path, saves: asyncio.Queue[None], stop: asyncio.Event) -> None:
    known = _own_folders(folder)

    def is_ours(_: Change, name: str) -> bool:
        path = Path(name)
        return path.suffix == ".py" or path in known or _is_own(path)

    watching = awatch(
        folder,
        watch_filter=is_ours,
        stop_event=stop,
        recursive=False,
        step=_QUIET_MS,
        rust_timeout=1000,
    )
    async for changes in watching:
        if _own_folders(folder) != known:
            # A folder came or went: all is looked at anew.
            stop.set()
            saves.put_nowait(None)
            return
        if any(name.endswith(".py") for _, name in changes):
            saves.put_nowait(None)


async def _watch_below(
    folders: list[Path], saves: asyncio.Queue[None], stop: asyncio.Event
) -> None:
    watching = awatch(
        *folders, watch_filter=PythonFilter(), stop_event=stop, step=_QUIET_MS, rust_timeout=1000
    )
    async for _ in watching:
        saves.put_nowait(None)


def _own_folders(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if _is_own(path)}


def _is_own(path: Path) -> bool:
    return (
        path.is_dir()
        and not path.name.startswith(".")
        and path.name not in _FOREIGN
        and not (path / "pyvenv.cfg").exists()
    )
