"""Fixtures for the SDK's tests: a project on disk, and a process that forgets it afterwards."""

import sys
import textwrap
from collections.abc import Generator
from pathlib import Path

import pytest

from runwell.sdk.catalog import catalog
from runwell.sdk.importing import SiblingFinder
from runwell.sdk.project import ImportedTasks, import_tasks, load_project


class ProjectFolder:
    """A project that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(
            "trigger_config.py", "from runwell import define_config\nconfig = define_config()"
        )
        (path / "trigger").mkdir()

    def write(self, name: str, text: str) -> Path:
        """Write a file, given with the indentation of the test."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    def task(self, name: str, task_id: str, body: str = "...") -> Path:
        """Write a file with one task."""
        return self.write(
            name, f"from runwell import task\n@task(id={task_id!r})\ndef run() -> object: {body}\n"
        )

    def import_tasks(self) -> ImportedTasks:
        """Load it and import its tasks in this process."""
        return import_tasks(load_project(self.path))


@pytest.fixture
def folder(tmp_path: Path) -> Generator[ProjectFolder]:
    """A project; what importing it changes in this process is undone."""
    path, modules = list(sys.path), set(sys.modules)
    tasks, queues = catalog.tasks[:], catalog.queues[:]
    catalog.tasks.clear()
    catalog.queues.clear()
    (tmp_path / "shop").mkdir()
    yield ProjectFolder(tmp_path / "shop")
    sys.path[:] = path
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, SiblingFinder)]
    for name in set(sys.modules) - modules:
        if not name.startswith(("runwell", "pydantic", "hypothesis")):
            del sys.modules[name]
    catalog.tasks[:], catalog.queues[:] = tasks, queues
