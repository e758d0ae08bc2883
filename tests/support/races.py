"""Two servers on one database, with the order of what they do forced."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from runwell.engine.db import Database, Row
from runwell.engine.queries import Query
from tests.support.factories import one_transaction, wait_until_blocked

A = TypeVar("A")
B = TypeVar("B")


async def in_order(
    db: Database,
    first: Callable[[Database], Awaitable[A]],
    second: Callable[[Database], Awaitable[B]],
    *,
    passes_over: bool = False,
) -> tuple[A, B]:
    """What two servers get, of which the second acts before the first one has committed.

    The second one waits for the commit, or, if it `passes_over` what is locked, is done before it.
    """
    async with await Database.open(db.dsn, min_size=1, max_size=2) as other:
        async with one_transaction(other) as held:
            done = await first(held)
            acting = asyncio.ensure_future(second(db))
            if passes_over:
                await acting
            else:
                await wait_until_blocked(db)
                assert not acting.done()
        return done, await acting


async def in_order_of_death(
    db: Database,
    first: Callable[[Database], Awaitable[object]],
    second: Callable[[Database], Awaitable[B]],
) -> B:
    """What the second server gets that waits for the first one, which dies before its commit."""
    acting: list[asyncio.Future[B]] = []

    async def act_and_die() -> None:
        async with (
            await Database.open(db.dsn, min_size=1, max_size=2) as other,
            one_transaction(other) as held,
        ):
            await first(held)
            acting.append(asyncio.ensure_future(second(db)))
            await wait_until_blocked(db)
            raise EOFError

    try:
        await act_and_die()
    except EOFError:
        return await acting[0]
    raise AssertionError("it should have died")


@contextlib.asynccontextmanager
async def old_snapshot(
    db: Database, query: Query, **values: Any
) -> AsyncGenerator[Callable[[], Awaitable[list[Row]]]]:
    """A SELECT that has begun, and reads and locks its rows when what is given is called.

    So what is done in the block is committed after the statement saw the tables.
    """
    connection = await asyncpg.connect(db.dsn)
    try:
        async with connection.transaction():
            cursor = await connection.cursor(query.text, *query.arguments(values))
            yield lambda: cursor.fetch(1_000)
    finally:
        await connection.close()
