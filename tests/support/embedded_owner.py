"""A process that owns an embedded PostgreSQL, to be killed, and looking at what is left of it."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from runwell.engine import embedded

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")

_IMPORT_PATH = str(Path(embedded.__file__).parents[2])
_PACKAGES = str(Path(asyncpg.__file__).parents[1])

# Says where and what it runs, and lives until its stdin ends.
_PROGRAM = """
import os, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from runwell.engine.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres.start(Path(sys.argv[3]))
fork = os.fork() if "fork" in sys.argv else None
if fork != 0:
    print(postgres.pid, fork, postgres.dsn, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that owns a running PostgreSQL."""

    process: subprocess.Popen[str]
    postmaster_pid: int
    fork_pid: int | None
    dsn: str

    def kill(self) -> None:
        """End the owner without a chance to say anything."""
        self.process.kill()
        self.process.wait()


def owner_command(data_dir: Path, python: str = sys.executable) -> list[str]:
    """How to run an owner on a directory."""
    return [python, "-c", _PROGRAM, _IMPORT_PATH, _PACKAGES, str(data_dir)]


@contextlib.contextmanager
def start_owner(data_dir: Path, *options: str, uid: int | None = None) -> Generator[Owner]:
    """An owner that has started PostgreSQL; killed at the end of the block."""
    python = sys.executable if uid is None else _find_python(uid)
    with subprocess.Popen(
        [*owner_command(data_dir, python), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=uid,
    ) as process:
        assert process.stdout is not None
        pid, fork, dsn = process.stdout.readline().split(maxsplit=2)
        try:
            yield Owner(
                process=process,
                postmaster_pid=int(pid),
                fork_pid=None if fork == "None" else int(fork),
                dsn=dsn.strip(),
            )
        finally:
            process.kill()


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent doesn't."""
    shown = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()[:1] not in ("", "Z")


def list_session(postmaster_pid: int, name: str | None = None) -> list[int]:
    """The pids of PostgreSQL's session: the postmaster and its watchdog (`sh`), not backends."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,sess=,comm="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = [line.split(maxsplit=2) for line in listed]
    session = str(postmaster_pid)
    return [int(pid) for pid, sess, comm in rows if sess == session and name in (None, comm)]


async def fetch_value(dsn: str, query: str) -> object:
    """The answer to a query, over a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def fetch(dsn: str, query: str) -> object:
    """`fetch_value` outside an event loop."""
    return asyncio.run(fetch_value(dsn, query))


def add_row(dsn: str) -> object:
    """Commit a row; return how many there are now."""
    fetch(dsn, "CREATE TABLE IF NOT EXISTS kept (at timestamptz DEFAULT now())")
    fetch(dsn, "INSERT INTO kept DEFAULT VALUES")
    return count_rows(dsn)


def count_rows(dsn: str) -> object:
    """How many rows `add_row` has committed."""
    return fetch(dsn, "SELECT count(*) FROM kept")


def _find_python(uid: int) -> str:
    """Find an interpreter the user can run; ours may be in a home directory."""
    for python in (sys.executable, "/usr/bin/python3"):
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if subprocess.run(check, user=uid, cwd="/", check=False).returncode == 0:
                return python
    pytest.skip("no interpreter that another user can run")
