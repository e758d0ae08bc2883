"""The database names exactly the statuses and transitions of core/statuses.py."""

import re
from collections.abc import Iterator

import asyncpg
import pytest

from runwell.core.statuses import (
    INITIAL,
    LEASED_EXECUTION_STATUSES,
    TRANSITIONS,
    AttemptStatus,
    ExecutionStatus,
    RunStatus,
)
from tests.architecture.tree import PACKAGE

MIGRATIONS = sorted((PACKAGE / "engine/migrations").glob("*.sql"))

_CHECKS = """
SELECT pg_get_constraintdef(c.oid)
FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
WHERE c.contype = 'c' AND c.conrelid = $1::text::regclass AND a.attname = $2
"""
_LEASE_CHECK = """
SELECT pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'runs'::regclass AND contype = 'c'
    AND pg_get_constraintdef(oid) LIKE '%lease_id%' AND pg_get_constraintdef(oid) LIKE '%EXECUTING%'
"""


async def fetch(database_url: str, query: str, *values: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetch(query, *values)
    finally:
        await connection.close()


async def test_the_table_of_transitions_is_that_of_the_code(database_url: str) -> None:
    rows = await fetch(
        database_url, "SELECT from_status, event, to_status, run_status FROM run_transitions"
    )
    expected = {("", "TRIGGER", str(to), str(shown)) for to, shown in INITIAL.items()}
    expected |= {
        (str(start), str(event), str(moved.execution_status), moved.run_status)
        for start, events in TRANSITIONS.items()
        for event, moved in events.items()
    }
    assert {tuple(row) for row in rows} == expected


@pytest.mark.parametrize(
    ("table", "column", "statuses"),
    [
        ("runs", "execution_status", ExecutionStatus),
        ("runs", "status", RunStatus),
        ("run_attempts", "status", AttemptStatus),
    ],
)
async def test_a_column_takes_every_status_and_nothing_else(
    database_url: str,
    table: str,
    column: str,
    statuses: type[ExecutionStatus] | type[RunStatus] | type[AttemptStatus],
) -> None:
    ((check,),) = await fetch(database_url, _CHECKS, table, column)
    assert set(re.findall(r"'(\w+)'", check)) == {status.value for status in statuses}


async def test_the_database_holds_a_lease_where_the_code_says(database_url: str) -> None:
    ((check,),) = await fetch(database_url, _LEASE_CHECK)
    assert set(re.findall(r"'(\w+)'", check)) == LEASED_EXECUTION_STATUSES


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in MIGRATIONS]
    assert numbers == list(range(1, len(numbers) + 1))


def test_only_the_schema_writes_a_status() -> None:
    """The engine writes what happened, and a trigger of the schema looks up where that leads."""
    for path in (PACKAGE / "engine/sql").glob("*.sql"):
        text = path.read_text(encoding="utf-8")
        for start in re.finditer(r"\bUPDATE runs\b.*?\bSET\b", text, re.DOTALL):
            columns = set(assigned_columns(text[start.end() :]))
            written = columns & {"status", "execution_status", "snapshot_id", "lease_id"}
            assert not written, f"{path.name}: a query writes {written} of runs"


def assigned_columns(clause: str) -> Iterator[str]:
    """The columns that a SET clause assigns to; what follows the clause is passed over."""
    depth, expects_column = 0, True
    for token in re.findall(r"--[^\n]*|'[^']*'|\w+|\S", clause):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0 or (depth == 0 and token in ("FROM", "WHERE", "RETURNING", ";")):
            return
        if expects_column and not token.startswith("--"):
            yield token
            expects_column = False
        elif depth == 0 and token == ",":
            expects_column = True
