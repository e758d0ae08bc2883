from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from runwell.cli.watching import watch_project
from tests.support.waiting import wait_until


@asynccontextmanager
async def count_saves(folder: Path) -> AsyncGenerator[list[None]]:
    """The saves that are seen, once watching has begun."""
    import asyncio

    seen: list[None] = []

    async def collect() -> None:
        async with aclosing(watch_project(folder)) as saves:
            async for _ in saves:
                seen.append(None)  # noqa: PERF401 - read while it grows

    collecting = asyncio.create_task(collect())
    probe = folder / "probe.py"
    numbers = iter(range(1000))

    def is_watching() -> bool:
        # Only a save that is seen shows that watching has begun.
        probe.write_text(f"# {next(numbers)}\n")
        return bool(seen)

    try:
        await wait_until(is_watching, "watching has begun")
        yield seen
    finally:
        collecting.cancel()
        await asyncio.wait((collecting,))


async def test_a_save_in_a_folder_that_came_later_is_seen(tmp_path: Path) -> None:
    async with count_saves(tmp_path) as seen:
        (tmp_path / "trigger").mkdir()
        before = len(seen)

        def is_seen() -> bool:
            (tmp_path / "trigger/task.py").write_text(f"# {len(seen)}\n")
            return len(seen) > before + 1

        await wait_until(is_seen, "the save is seen")
