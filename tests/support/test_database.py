"""The tests' own PostgreSQL is shared by all of a session, and ends with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.database import PytestSession
from tests.support.waiting import wait_until_sync

_ROOT = Path(__file__).parents[2]

_SESSION = """
import sys
from tests.support.database import PytestSession
session = PytestSession.begin()
print(session.directory, session.dsn, flush=True)
sys.stdin.read()
session.end()
"""


def _start_session() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )


@pytest.mark.parametrize("is_killed", [True, False])
def test_nothing_is_left_of_a_session_that_ended(is_killed: bool) -> None:
    with _start_session() as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().split()[0])
        assert (directory / "data/postgres/postmaster.pid").exists()
        if is_killed:
            process.kill()
        else:
            process.communicate()
    wait_until_sync(lambda: not directory.exists(), "its PostgreSQL and its files have gone")


def test_all_workers_of_a_session_share_one_postgresql() -> None:
    session = PytestSession.begin()
    try:
        workers = [PytestSession.join(str(session.directory)) for _ in range(2)]
        assert workers[0].dsn == workers[1].dsn == session.dsn
    finally:
        session.end()
    assert not session.directory.exists()


def test_a_session_without_a_database_starts_nothing() -> None:
    session = PytestSession.begin()
    assert [path.name for path in session.directory.iterdir()] == ["alive"]
    session.end()
    assert not session.directory.exists()
