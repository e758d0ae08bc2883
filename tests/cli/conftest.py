"""A project with a server that its commands find."""

from collections.abc import Generator
from pathlib import Path

import pytest

from runwell.cli.connection import DATA_FOLDER
from tests.cli.terminal import runwell
from tests.support.processes import ServerProcess


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which `runwell init` was run."""
    done = runwell("init", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.fixture
def served(project: Path, database_url: str) -> Generator[Path]:
    """A project with a server on its data directory."""
    server = ServerProcess(project / DATA_FOLDER, database_url=database_url)
    try:
        server.wait_until_ready()
        yield project
    finally:
        server.end()
