"""Every query is used, and PostgreSQL accepts it on the schema as it is now."""

import re
from collections import Counter

import asyncpg
import pytest

from runwell.engine.queries import Query, load_queries
from tests.architecture.tree import PACKAGE

FILES = sorted(path.stem for path in (PACKAGE / "engine/sql").glob("*.sql"))
_USE = re.compile(r"\b_sql\.(\w+)")


def uses_of(module: str) -> Counter[str]:
    source = (PACKAGE / f"engine/{module}.py").read_text(encoding="utf-8")
    return Counter(_USE.findall(source))


@pytest.mark.parametrize("module", FILES)
def test_a_file_of_queries_belongs_to_the_module_of_its_name(module: str) -> None:
    source = (PACKAGE / f"engine/{module}.py").read_text(encoding="utf-8")
    assert f'_sql = load_queries("{module}")' in source


@pytest.mark.parametrize("module", FILES)
def test_every_query_is_used_and_every_used_query_is_there(module: str) -> None:
    assert set(uses_of(module)) == {query.name for query in load_queries(module)}


@pytest.mark.parametrize("module", FILES)
def test_every_query_says_what_it_is_for(module: str) -> None:
    for query in load_queries(module):
        assert query.text.startswith("-- "), f"sql/{module}.sql: {query.name} has no comment"


def test_two_modules_never_load_the_same_queries() -> None:
    loads = Counter(
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r'= load_queries\("(\w+)"\)', path.read_text(encoding="utf-8"))
    )
    assert loads == Counter(FILES)


async def test_postgresql_prepares_every_query(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    refused: list[str] = []
    try:
        for module in FILES:
            for query in load_queries(module):
                refused += await find_problems(connection, module, query)
    finally:
        await connection.close()
    assert not refused, "\n".join(refused)


async def find_problems(
    connection: "asyncpg.Connection[asyncpg.Record]", module: str, query: Query
) -> list[str]:
    try:
        statement = await connection.prepare(query.text)
    except asyncpg.PostgresError as error:
        return [f"sql/{module}.sql, {query.name}: {error}"]
    wanted = len(statement.get_parameters())
    if wanted != len(query.parameters):
        return [f"sql/{module}.sql, {query.name}: {wanted} parameters, not {query.parameters}"]
    return []
