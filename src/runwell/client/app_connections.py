"""Connections of applications: how each driver is asked, and whether it is in a transaction.

No driver is imported: whoever brings a connection has imported it.
"""

import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, cast

from runwell.core.errors import ConfigurationError

#: Calls `runwell_trigger` with the hash of a key and a request, and returns its answer.
AsyncLink = Callable[[str, str], Awaitable[str]]
BlockingLink = Callable[[str, str], str]

_FORMAT_SQL: Final = "SELECT runwell_trigger(%s, %s)"
_NUMBERED_SQL: Final = "SELECT runwell_trigger($1, $2)"
_NAMED_SQL: Final = "SELECT runwell_trigger(:key_hash, :request)"
_UNDEFINED_FUNCTION: Final = "42883"
_NO_TRANSACTION: Final = (
    "in_transaction(): there is no transaction on this connection, so that each trigger would be "
    "committed by itself: {hint}"
)


def link_async(connection: object) -> AsyncLink:
    """How an async connection is asked; raises TypeError or ValueError for one that can't be."""
    given = cast("Any", connection)
    match _kind_of(connection):
        case "asyncpg":
            _check(given.is_in_transaction(), "use `async with connection.transaction():`")
            return _link_asyncpg(given)
        case "psycopg async":
            _check(_is_begun(given), "use `async with connection.transaction():`")
            return _link_async_psycopg(given)
        case "sqlalchemy async":
            _check_sqlalchemy(given.get_bind() if hasattr(given, "sync_session") else given)
            return _link_async_sqlalchemy(given)
        case "psycopg" | "sqlalchemy" | "django":
            raise TypeError(
                f"tasks.in_transaction(): {_name_of(connection)} blocks: use `with "
                "runwell.sync.tasks.in_transaction(...)`"
            )
        case _:
            raise _unknown(connection)


def link_blocking(connection: object) -> BlockingLink:
    """How a connection that blocks is asked; raises as `link_async` does."""
    given = cast("Any", connection)
    match _kind_of(connection):
        case "psycopg":
            _check(_is_begun(given), "use `with connection.transaction():`")
            return _link_psycopg(given)
        case "sqlalchemy":
            _check_sqlalchemy(given)
            return _link_sqlalchemy(given)
        case "django":
            if given.vendor != "postgresql":
                raise TypeError(
                    f"in_transaction(): Django's connection is to {given.vendor}, and Runwell uses "
                    "PostgreSQL"
                )
            is_begun = given.in_atomic_block or not given.get_autocommit()
            _check(is_begun, "use `with transaction.atomic():`")
            return _link_django(given)
        case "asyncpg" | "psycopg async" | "sqlalchemy async":
            raise TypeError(
                f"sync.tasks.in_transaction(): {_name_of(connection)} is async: use `async with "
                "runwell.tasks.in_transaction(...)`"
            )
        case _:
            raise _unknown(connection)


def _kind_of(connection: object) -> str | None:
    """The driver that a connection is of, and whether it is async; None for any other object."""
    for found in type(connection).__mro__:
        package = found.__module__.partition(".")[0]
        if package == "asyncpg":
            return "asyncpg"
        if package == "psycopg":
            return "psycopg async" if hasattr(connection, "__aenter__") else "psycopg"
        if package == "sqlalchemy" and hasattr(connection, "execute"):
            is_async = found.__module__.startswith("sqlalchemy.ext.asyncio")
            return "sqlalchemy async" if is_async else "sqlalchemy"
        if package == "django" and hasattr(connection, "in_atomic_block"):
            return "django"
    return None


def _is_begun(connection: Any) -> bool:  # noqa: ANN401 (psycopg isn't imported here)
    # Without autocommit the first statement begins a transaction.
    is_idle = connection.info.transaction_status.name == "IDLE"
    return not (connection.autocommit and is_idle)


def _check_sqlalchemy(connection: Any) -> None:  # noqa: ANN401 (SQLAlchemy isn't imported here)
    options = getattr(connection, "get_execution_options", dict[str, object])()
    level = str(options.get("isolation_level", "")).upper()
    _check(level != "AUTOCOMMIT", "use an engine without the isolation level AUTOCOMMIT")


def _check(is_begun: bool, hint: str) -> None:
    if not is_begun:
        raise ValueError(_NO_TRANSACTION.format(hint=hint))


def _link_asyncpg(connection: Any) -> AsyncLink:  # noqa: ANN401 (asyncpg isn't imported here)
    async def ask(key_hash: str, request: str) -> str:
        with _explained():
            return cast("str", await connection.fetchval(_NUMBERED_SQL, key_hash, request))

    return ask


def _link_async_psycopg(connection: Any) -> AsyncLink:  # noqa: ANN401 (see _is_begun)
    async def ask(key_hash: str, request: str) -> str:
        with _explained():
            # Not as the connection's own factory makes rows.
            async with connection.cursor(row_factory=_tuples()) as cursor:
                await cursor.execute(_FORMAT_SQL, (key_hash, request))
                return cast("str", (await cursor.fetchone())[0])

    return ask


def _link_psycopg(connection: Any) -> BlockingLink:  # noqa: ANN401 (see _is_begun)
    def ask(key_hash: str, request: str) -> str:
        with _explained(), connection.cursor(row_factory=_tuples()) as cursor:
            cursor.execute(_FORMAT_SQL, (key_hash, request))
            return cast("str", cursor.fetchone()[0])

    return ask


def _link_async_sqlalchemy(connection: Any) -> AsyncLink:  # noqa: ANN401 (see _check_sqlalchemy)
    text = sys.modules["sqlalchemy"].text(_NAMED_SQL)

    async def ask(key_hash: str, request: str) -> str:
        with _explained():
            result = await connection.execute(text, {"key_hash": key_hash, "request": request})
            return cast("str", result.scalar_one())

    return ask


def _link_sqlalchemy(connection: Any) -> BlockingLink:  # noqa: ANN401 (see _check_sqlalchemy)
    text = sys.modules["sqlalchemy"].text(_NAMED_SQL)

    def ask(key_hash: str, request: str) -> str:
        with _explained():
            result = connection.execute(text, {"key_hash": key_hash, "request": request})
            return cast("str", result.scalar_one())

    return ask


def _link_django(connection: Any) -> BlockingLink:  # noqa: ANN401 (Django isn't imported here)
    def ask(key_hash: str, request: str) -> str:
        with _explained(), connection.cursor() as cursor:
            cursor.execute(_FORMAT_SQL, (key_hash, request))
            return cast("str", cursor.fetchone()[0])

    return ask


def _tuples() -> object:
    return sys.modules["psycopg"].rows.tuple_row


@contextmanager
def _explained() -> Generator[None]:
    """Say what it means when a database has no `runwell_trigger`; other errors are the driver's."""
    try:
        yield
    # Each driver has its own tree of errors.
    except Exception as error:
        if not _is_undefined(error):
            raise
        raise ConfigurationError(
            "in_transaction(): this connection is not to a database that Runwell uses, or its "
            "search_path has not the schema of Runwell's tables: start the server with the "
            "DATABASE_URL of the application's database, and in its version"
        ) from error


def _is_undefined(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 5:
        for found in (error, getattr(error, "orig", None)):
            if getattr(found, "sqlstate", getattr(found, "pgcode", None)) == _UNDEFINED_FUNCTION:
                return True
        error, seen = error.__cause__, seen + 1
    return False


def _name_of(connection: object) -> str:
    found = type(connection)
    return f"{found.__module__}.{found.__qualname__}"


def _unknown(connection: object) -> TypeError:
    return TypeError(
        f"in_transaction(): {_name_of(connection)} is no connection that it knows: give one of "
        "psycopg or asyncpg, a session or connection of SQLAlchemy, or Django's connection"
    )
