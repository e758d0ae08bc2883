"""Connections to PostgreSQL: the pool, transactions, and what their failures mean.

An engine function takes a `Transaction` first; whoever opened it owns commit and rollback. One
opened by `Database.connection` commits each statement by itself: for what is one statement.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Self, TypeVar

import asyncpg

from runwell.core import failpoints
from runwell.core.errors import RunwellError
from runwell.engine.queries import Query, load_queries

_sql = load_queries("db")

Row = asyncpg.Record
T = TypeVar("T")

#: What a statement may take before PostgreSQL ends it, so that no reader can hold up the queue.
_STATEMENT_TIMEOUT_MS = 30_000
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_RETRIES = 3

# The queries of the engine are written for their indexes. Planned once for all values, on tables
# that may be empty then and hold a million rows minutes later, they must not be given a plan that
# reads or hashes a whole table. Reports over many runs ask for more (`allow_any_plan`).
_PLANNING = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
# Two transactions collided, and one was ended to let the other go on: doing it again is right.
_COLLISIONS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    # What asyncpg says of a connection that the server ended and whose end it hasn't read yet.
    asyncpg.InternalClientError,
    # No socket, no such host, no route, a timeout, a connection reset.
    OSError,
)


class DatabaseUnavailableError(RunwellError):
    """PostgreSQL can't be reached or is going away; trying again later may work."""


class DatabaseBusyError(RunwellError):
    """A statement took too long and was ended; nothing of its transaction has happened."""


class Transaction:
    """An open connection with named queries: what engine functions take first."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "asyncpg.pool.PoolConnectionProxy[Row]") -> None:
        """Wrap a connection of the pool."""
        self._connection = connection

    async def fetch(self, query: Query, **values: Any) -> list[Row]:
        """Every row."""
        return await self._connection.fetch(query.text, *query.arguments(values))

    async def fetch_one(self, query: Query, **values: Any) -> Row | None:
        """The first row, or None."""
        return await self._connection.fetchrow(query.text, *query.arguments(values))

    async def fetch_value(self, query: Query, **values: Any) -> Any:
        """The first column of the first row, or None."""
        return await self._connection.fetchval(query.text, *query.arguments(values))

    async def execute(self, query: Query, **values: Any) -> None:
        """Run it, and take no rows."""
        await self._connection.fetch(query.text, *query.arguments(values))


async def allow_any_plan(tx: Transaction) -> None:
    """Let the rest of a transaction be planned by its values, as lists with filters need."""
    await tx.execute(_sql.allow_any_plan)


class Database:
    """The pool. `Database.open` makes one; close it."""

    def __init__(self, pool: "asyncpg.Pool[Row]", dsn: str) -> None:
        """Take over an open pool; use `open`."""
        self._pool = pool
        self.dsn = dsn

    @classmethod
    async def open(cls, dsn: str, *, min_size: int = 2, max_size: int = 10) -> "Database":
        """Connect; raises DatabaseUnavailableError when there is no way in."""
        with unavailable():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=min_size,
                max_size=max_size,
                timeout=_CONNECT_SECONDS,
                max_inactive_connection_lifetime=300,
                reset=_leave_as_it_is,
                server_settings={
                    "application_name": "runwell",
                    "statement_timeout": str(_STATEMENT_TIMEOUT_MS),
                    "idle_in_transaction_session_timeout": str(_STATEMENT_TIMEOUT_MS),
                    "TimeZone": "UTC",
                    # Compiling our short queries costs more than they do.
                    "jit": "off",
                    **_PLANNING,
                },
            )
        return cls(pool, dsn)

    async def close(self) -> None:
        """Close every connection; those in use are given five seconds."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def __aenter__(self) -> Self:
        """Return itself: it is open."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Transaction]:
        """A connection on which every statement commits by itself."""
        with unavailable():
            async with self._pool.acquire(timeout=_CONNECT_SECONDS) as connection:
                if not failpoints.ARE_ON:
                    yield Transaction(connection)
                else:
                    # A statement alone has no moment to stop at between its end and its commit.
                    async with _with_failpoints(connection) as tx:
                        yield tx

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """A transaction: commits at the end of the block, rolls back when the block raises."""
        with unavailable():
            async with self._pool.acquire(timeout=_CONNECT_SECONDS) as connection:
                if not failpoints.ARE_ON:
                    async with connection.transaction():
                        yield Transaction(connection)
                else:
                    async with _with_failpoints(connection) as tx:
                        yield tx

    async def fetch(self, query: Query, **values: Any) -> list[Row]:
        """The rows of one statement, which commits by itself; again when it collided."""
        for _ in range(_RETRIES):
            with contextlib.suppress(*_COLLISIONS):
                async with self.connection() as tx:
                    return await tx.fetch(query, **values)
        async with self.connection() as tx:
            return await tx.fetch(query, **values)

    async def run(self, act: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `act` in a transaction, again when it collided with another one."""
        for _ in range(_RETRIES):
            with contextlib.suppress(*_COLLISIONS):
                async with self.transaction() as tx:
                    return await act(tx)
        async with self.transaction() as tx:
            return await act(tx)


@contextlib.contextmanager
def unavailable() -> Generator[None]:
    """Turn every error that means "no database" into DatabaseUnavailableError."""
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        raise DatabaseBusyError(
            f"the database did not answer within {_STATEMENT_TIMEOUT_MS // 1000} seconds"
        ) from error
    except UNAVAILABLE_ERRORS as error:
        raise DatabaseUnavailableError(
            f"the database can't be reached ({type(error).__name__}: {error})"
        ) from error


@contextlib.asynccontextmanager
async def _with_failpoints(
    connection: "asyncpg.pool.PoolConnectionProxy[Row]",
) -> AsyncGenerator[Transaction]:
    """A transaction that a test can stop before its commit, and after."""
    async with connection.transaction():
        yield Transaction(connection)
        # What only reads has nothing to lose, and is no point of a test.
        has_written = await connection.fetchval(_sql.has_written.text)
        if has_written and failpoints.reach("commit") == failpoints.LOSE:
            connection.terminate()
    if has_written and failpoints.reach("committed") == failpoints.LOSE:
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("lost before it said that it has committed")


async def _leave_as_it_is(_connection: object) -> None:
    """Nothing changes a session for longer than a transaction, so that nothing is to be reset.

    The pool's own way is one more round trip for each use (`server/adr/0001-the-stack.md`).
    """
