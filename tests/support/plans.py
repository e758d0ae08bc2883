"""Which way PostgreSQL takes through the tables."""

import json
from typing import Any

from runwell.engine.db import Transaction
from runwell.engine.queries import Query


async def explain(tx: Transaction, query: Query, **values: Any) -> list[dict[str, Any]]:
    """The nodes of the plan that the pool's connections use for a query."""
    arguments = [_literal(value) for value in query.arguments(values)]
    await tx.execute(Query(name="prepare", text=f"PREPARE asked AS {query.text}", parameters=()))
    plan = await tx.fetch_value(
        Query(
            name="explain",
            text=f"EXPLAIN (FORMAT JSON) EXECUTE asked ({', '.join(arguments)})",
            parameters=(),
        )
    )
    return _nodes(json.loads(plan)[0]["Plan"])


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _nodes(child))]


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else f"'{value}'"
