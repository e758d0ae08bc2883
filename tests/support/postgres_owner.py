"""The process that owns the tests' PostgreSQL, for as long as the pytest session lasts.

Run as a program with the session's directory. It writes one line of JSON to its standard output
(`{"dsn": ...}` or `{"error": ...}`), closes it, and stays until pytest has ended, however that
ended: pytest holds a lock on the file `alive`, which the kernel takes back.
"""

import asyncio
import fcntl
import json
import os
import shutil
import sys
import traceback
from pathlib import Path

import asyncpg

from runwell.engine.embedded import EmbeddedPostgres
from runwell.engine.migrations import migrate

TEMPLATE = "runwell_template"
"""The migrated database that each test gets a clone of."""

_SETTINGS = {
    # Nothing here has to outlive the machine.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # Vacuum comes when a test says so, and not in between.
    "autovacuum": "off",
    # Tests that force a deadlock would wait a second for it to be found.
    "deadlock_timeout": "20ms",
}


def main(directory: Path) -> None:
    """Start PostgreSQL, answer, and stop it after the session."""
    try:
        with EmbeddedPostgres.start(directory / "data") as postgres:
            asyncio.run(_prepare(postgres.dsn))
            _answer({"dsn": postgres.dsn})
            _wait_for_end(directory)
    # Whatever it is, the tests are who can show it.
    except Exception:  # noqa: BLE001
        _answer({"error": traceback.format_exc()})
        _wait_for_end(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def database_dsn(dsn: str, name: str) -> str:
    """The DSN of another database of the same server."""
    start, found, end = dsn.partition("/runwell?")
    assert found, dsn
    return f"{start}/{name}?{end}"


async def _prepare(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for setting, value in _SETTINGS.items():
            await connection.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        await migrate(database_dsn(dsn, TEMPLATE))
        # A session on the template would make cloning fail.
        await connection.execute(f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")
    finally:
        await connection.close()


def _answer(answer: dict[str, str]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")
    # End of file tells who waits for the answer that this is all.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _wait_for_end(directory: Path) -> None:
    with (directory / "alive").open("r+b") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
