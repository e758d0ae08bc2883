"""A migrated PostgreSQL database for each test.

One embedded PostgreSQL serves all xdist workers of a pytest session. The first test that wants a
database starts it (0.5 s), in a process of its own (`postgres_owner`) that ends with the session.
A database is a clone of the template: 10 ms to make, 4 to drop. It runs without fsync: a test that
kills PostgreSQL starts one of its own with `EmbeddedPostgres.start`.
"""

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import IO

import asyncpg

from runwell.engine.db import Database
from tests.support import postgres_owner
from tests.support.waiting import wait_until_sync

_START_OWNER = '"$@" </dev/null 2>>"$0" &'
_numbers = itertools.count(1)


class PytestSession:
    """What the processes of one pytest session share: a directory, and a PostgreSQL on demand."""

    current: "PytestSession | None" = None
    """The session of this process, set by conftest."""

    def __init__(self, directory: Path, alive: IO[bytes] | None) -> None:
        """Use `begin` or `join`."""
        self.directory = directory
        self._alive = alive
        self._dsn: str | None = None

    @classmethod
    def begin(cls) -> "PytestSession":
        """Begin a session in the process that pytest was started in; nothing is started yet."""
        directory = Path(tempfile.mkdtemp(prefix="runwell-tests-"))
        alive = (directory / "alive").open("wb")
        fcntl.flock(alive, fcntl.LOCK_EX)
        # A fork that a test leaves behind must not keep the session alive.
        os.register_at_fork(after_in_child=alive.close)
        return cls(directory, alive)

    @classmethod
    def join(cls, directory: str) -> "PytestSession":
        """Take part in a session as an xdist worker."""
        return cls(Path(directory), None)

    def end(self) -> None:
        """End the session if it began here, and wait until its PostgreSQL has ended."""
        if self._alive is None:
            return
        was_started = self._answer_path.exists()
        self._alive.close()
        if was_started:
            wait_until_sync(lambda: not self.directory.exists(), "the tests' PostgreSQL has ended")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def dsn(self) -> str:
        """The DSN of the database for administration; starts PostgreSQL the first time."""
        if self._dsn is None:
            answer = self._ask_owner()
            assert "dsn" in answer, f"the tests' PostgreSQL did not start:\n{answer['error']}"
            self._dsn = answer["dsn"]
        return self._dsn

    @property
    def _answer_path(self) -> Path:
        return self.directory / "answer.json"

    def _ask_owner(self) -> dict[str, str]:
        with (self.directory / "starting").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._answer_path.exists():
                self._answer_path.write_text(self._start_owner(), encoding="utf-8")
            answer: dict[str, str] = json.loads(self._answer_path.read_text(encoding="utf-8"))
            return answer

    def _start_owner(self) -> str:
        # A child of the shell and not of this worker, which may be done before the others are.
        log_path = self.directory / "owner.log"
        # -P: the modules beside that program must not hide Python's own.
        owner = [sys.executable, "-P", str(postgres_owner.__file__), str(self.directory)]
        answer = subprocess.run(
            ["/bin/sh", "-c", _START_OWNER, str(log_path), *owner],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            check=True,
        ).stdout
        return answer or json.dumps({"error": log_path.read_text(encoding="utf-8")})


async def create_database(*, is_migrated: bool = True) -> str:
    """Make a migrated or an empty database and return its DSN; `drop_database` it afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    dsn = _session().dsn
    template = postgres_owner.TEMPLATE if is_migrated else "template0"
    # Copying files is twice as fast here as writing the copy through the log.
    await _administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return postgres_owner.database_dsn(dsn, name)


async def drop_database(dsn: str) -> None:
    """Drop a database that `create_database` made, whoever is still connected to it."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    await _administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.contextmanager
def temporary_database(*, is_migrated: bool = True) -> Generator[str]:
    """A database for the length of a block, for code outside an event loop."""
    dsn = asyncio.run(create_database(is_migrated=is_migrated))
    try:
        yield dsn
    finally:
        asyncio.run(drop_database(dsn))


@contextlib.asynccontextmanager
async def open_database(*, min_size: int = 1, max_size: int = 10) -> AsyncGenerator[Database]:
    """An open `Database` on a clone of its own, for code inside an event loop."""
    dsn = await create_database()
    try:
        async with await Database.open(dsn, min_size=min_size, max_size=max_size) as db:
            yield db
    finally:
        await drop_database(dsn)


async def _administer(statement: str) -> None:
    connection = await asyncpg.connect(_session().dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _session() -> PytestSession:
    assert PytestSession.current is not None, "only within a pytest session: see tests/conftest.py"
    return PytestSession.current
