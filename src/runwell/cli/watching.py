"""Watching a project's Python files, without the folders that are none of its own."""

import asyncio
from pathlib import Path
from typing import Final, Self

# One of its parameters has the type of a package that we don't have.
from watchfiles import Change, PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

_FOREIGN: Final = frozenset({"__pycache__", "node_modules", "site-packages", "dist", "build"})
_FIRST_STEPS: Final = 5
#: Editors write a file in several steps: what comes within this time is one save.
_QUIET_MS: Final = 100


class ProjectWatch:
    """Sees the saves of a project's Python files, from `open` to the end of the block."""

    def __init__(self, folder: Path) -> None:
        """Watch nothing yet."""
        self._folder = folder
        self._saves = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin: a save from here on is seen."""
        self._watching = asyncio.create_task(self._watch())
        await _let_begin()
        return self

    async def __aexit__(self, *error: object) -> None:
        """End."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))

    async def wait_for_save(self) -> None:
        """Wait for a save since the last call; several at once are one."""
        await self._saves.wait()
        self._saves.clear()

    async def _watch(self) -> None:
        is_first = True
        while True:
            stop = asyncio.Event()
            known = _own_folders(self._folder)
            async with asyncio.TaskGroup() as group:
                # The folder itself not deeply: a virtual environment or our own data may be in it,
                # whose thousands of folders would all be watched.
                group.create_task(self._watch_top(known, stop))
                if known:
                    group.create_task(self._watch_below(known, stop))
                if not is_first:
                    # A folder came or went. Who is woken looks at all that is there by now, and
                    # what comes later is seen again.
                    await _let_begin()
                    self._saves.set()
            is_first = False

    async def _watch_top(self, known: set[Path], stop: asyncio.Event) -> None:
        folder = self._folder

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
                return
            if any(name.endswith(".py") for _, name in changes):
                self._saves.set()

    async def _watch_below(self, folders: set[Path], stop: asyncio.Event) -> None:
        watching = awatch(
            *folders,
            watch_filter=PythonFilter(),
            stop_event=stop,
            step=_QUIET_MS,
            rust_timeout=1000,
        )
        async for _ in watching:
            self._saves.set()


async def _let_begin() -> None:
    # A watch is in place once its task has taken its first steps.
    for _ in range(_FIRST_STEPS):
        await asyncio.sleep(0)


def _own_folders(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if _is_own(path)}


def _is_own(path: Path) -> bool:
    return (
        path.is_dir()
        and not path.name.startswith(".")
        and path.name not in _FOREIGN
        and not (path / "pyvenv.cfg").exists()
    )
