"""Named SQL: one file per engine module in `sql/`, read once.

A query starts with `-- name: verb_noun`, followed by a comment that says what it is for. Parameters
are written `:name`; they become `$1`, `$2`, ... in the order they first appear.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
# Comments, quoted texts and casts are passed over, so that a colon in them is no parameter.
_TOKEN = re.compile(r"--[^\n]*|'(?:[^']|'')*'|::|:(?P<parameter>[a-z_][a-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Query:
    """One statement: its text for PostgreSQL, and the names of its parameters in order."""

    name: str
    text: str
    parameters: tuple[str, ...]

    def arguments(self, values: dict[str, Any]) -> list[Any]:
        """The values in the order of the parameters; raises TypeError when names differ."""
        if len(values) != len(self.parameters):
            wanted, given = set(self.parameters), set(values)
            raise TypeError(
                f"query {self.name}: missing {sorted(wanted - given)}, "
                f"unknown {sorted(given - wanted)}"
            )
        return [values[name] for name in self.parameters]


class Queries:
    """The queries of one file, as attributes."""

    def __init__(self, queries: dict[str, Query]) -> None:
        """Keep them by name."""
        self._queries = queries

    def __getattr__(self, name: str) -> Query:
        """Return the query of that name."""
        try:
            return self._queries[name]
        except KeyError:
            raise AttributeError(f"there is no query named {name}") from None

    def __iter__(self) -> Iterator[Query]:
        """All queries, in the order of the file."""
        return iter(self._queries.values())


def load_queries(module: str) -> Queries:
    """Read `sql/<module>.sql`."""
    text = files("runwell.engine").joinpath("sql", f"{module}.sql").read_text(encoding="utf-8")
    return parse_queries(text)


def parse_queries(text: str) -> Queries:
    """Read queries from a text; raises ValueError when a name is there twice."""
    parts = _NAME.split(text)
    queries: dict[str, Query] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in queries:
            raise ValueError(f"two queries are named {name}")
        queries[name] = _parse(name, body.strip().rstrip(";"))
    return Queries(queries)


def _parse(name: str, body: str) -> Query:
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        parameter = match["parameter"]
        if parameter is None:
            return match[0]
        return f"${numbers.setdefault(parameter, len(numbers) + 1)}"

    text = _TOKEN.sub(number, body)
    return Query(name=name, text=text, parameters=tuple(numbers))
