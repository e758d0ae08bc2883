"""The schema's migrations: numbered SQL files, applied in order, forward only.

Each file is one transaction. All starters of all servers take the same advisory lock first, so that
one applies them and the others find them applied.
"""

import re
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from runwell.core.errors import ConfigurationError
from runwell.engine.db import Database, unavailable
from runwell.engine.queries import load_queries

_sql = load_queries("migrations")

_MINIMUM_POSTGRESQL = 15
_LOCK_KEY = 0x72756E77  # "runw"
_FILE_NAME = re.compile(r"^(\d{4})_\w+\.sql$")

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str


def list_migrations() -> list[Migration]:
    """The migrations that this Runwell has, in order."""
    found: list[Migration] = []
    for entry in files("runwell.engine").joinpath("migrations").iterdir():
        match = _FILE_NAME.match(entry.name)
        if match is not None:
            text = entry.read_text(encoding="utf-8")
            found.append(Migration(version=int(match[1]), name=entry.name, text=text))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(dsn: str, migrations: list[Migration] | None = None) -> int:
    """Bring the database to the newest version; return how many migrations were applied.

    Raises ConfigurationError for a database that is newer than this code or a PostgreSQL that is
    too old, DatabaseUnavailableError when it can't be reached.
    """
    wanted = list_migrations() if migrations is None else migrations
    with unavailable():
        connection = await _connect(dsn)
        try:
            _check_server(connection.get_server_version().major)
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
            return await _apply(connection, wanted)
        finally:
            # Ends the session, and with it the lock.
            await connection.close(timeout=10)


async def is_current(db: Database) -> bool:
    """Whether a database has the newest migration that this Runwell has."""
    async with db.connection() as tx:
        return bool(await tx.fetch_value(_sql.has_migration, version=list_migrations()[-1].version))


async def _connect(dsn: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(dsn, timeout=10)
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.exceptions.ClientConfigurationError,
    ) as error:
        # PostgreSQL's message names the user or the database, and never the password.
        raise ConfigurationError(f"DATABASE_URL does not lead into a database: {error}") from None


def _check_server(major: int) -> None:
    if major < _MINIMUM_POSTGRESQL:
        raise ConfigurationError(
            f"DATABASE_URL leads to PostgreSQL {major}, and Runwell needs "
            f"{_MINIMUM_POSTGRESQL} or newer: upgrade it, or use the embedded one by unsetting "
            "DATABASE_URL"
        )


async def _apply(connection: asyncpg.Connection, wanted: list[Migration]) -> int:
    await connection.execute(_LEDGER)
    rows = await connection.fetch("SELECT version, name FROM schema_migrations ORDER BY version")
    applied = {row["version"]: row["name"] for row in rows}
    known = {migration.version for migration in wanted}
    newer = [name for version, name in applied.items() if version not in known]
    if newer:
        raise ConfigurationError(
            f"the database was migrated by a newer Runwell (it has {newer[-1]}, which this version "
            "doesn't know): upgrade this server, or restore a backup made before that upgrade"
        )
    pending = [migration for migration in wanted if migration.version not in applied]
    for migration in pending:
        async with connection.transaction():
            await connection.execute(migration.text)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
                migration.version,
                migration.name,
            )
    return len(pending)
