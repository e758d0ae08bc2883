"""Databases beside the one that a server has: a migrated template, and copies of it for tests."""

import re

import asyncpg

from runwell.engine.migrations import migrate
from runwell.engine.queries import load_queries

_sql = load_queries("databases")
TEMPLATE = "runwell_template"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Nothing in these databases has to outlive the machine.
_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")


async def prepare_template(dsn: str) -> None:
    """Migrate a database that copies are made of, on a server that is there for tests alone.

    The server no longer waits for disks from then on.
    """
    connection = await asyncpg.connect(dsn)
    try:
        for setting in _SETTINGS:
            await connection.execute(f"ALTER SYSTEM SET {setting} = 'off'")
        await connection.execute(_sql.reload_settings.text)
        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        await migrate(_dsn_of(dsn, TEMPLATE))
    finally:
        await connection.close()


async def copy_template(dsn: str, name: str) -> str:
    """Make a copy of the template; returns its DSN. ValueError for a name that is none."""
    # A statement that makes a database takes no parameters: the name is checked instead.
    _check(name)
    await _administer(dsn, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    return _dsn_of(dsn, name)


async def drop_copy(dsn: str, name: str) -> None:
    """Drop a copy, whoever is still connected to it."""
    _check(name)
    await _administer(dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _check(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name of a database: small letters, digits and _")


def _dsn_of(dsn: str, name: str) -> str:
    start, found, end = dsn.partition("/runwell?")
    if not found:
        raise ValueError("not the DSN of an embedded PostgreSQL")
    return f"{start}/{name}?{end}"


async def _administer(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
