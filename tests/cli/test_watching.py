import asyncio
from pathlib import Path

from runwell.cli.watching import ProjectWatch

_SECONDS = 40


async def test_a_save_is_seen_from_the_first_moment_on(tmp_path: Path) -> None:
    (tmp_path / "trigger").mkdir()
    async with ProjectWatch(tmp_path) as watch, asyncio.timeout(_SECONDS):
        (tmp_path / "trigger/task.py").write_text("")
        await watch.wait_for_save()
        (tmp_path / "trigger_config.py").write_text("")
        await watch.wait_for_save()


async def test_a_save_in_a_folder_that_came_later_is_seen(tmp_path: Path) -> None:
    async with ProjectWatch(tmp_path) as watch, asyncio.timeout(_SECONDS):
        (tmp_path / "trigger").mkdir()
        await watch.wait_for_save()
        (tmp_path / "trigger/task.py").write_text("")
        await watch.wait_for_save()


async def test_what_is_no_python_of_the_project_is_not_seen(tmp_path: Path) -> None:
    for name in (".runwell", "venv", "trigger"):
        (tmp_path / name).mkdir()
    (tmp_path / "venv/pyvenv.cfg").write_text("")
    async with ProjectWatch(tmp_path) as watch, asyncio.timeout(_SECONDS):
        seen = asyncio.create_task(watch.wait_for_save())
        (tmp_path / ".runwell/task.py").write_text("")
        (tmp_path / "venv/task.py").write_text("")
        (tmp_path / "trigger/notes.txt").write_text("")
        (tmp_path / "notes.txt").write_text("")
        # Longer than a save takes to be seen; nothing announces that there was none.
        done, _ = await asyncio.wait((seen,), timeout=0.5)
        assert not done
        (tmp_path / "trigger/task.py").write_text("")
        await seen
