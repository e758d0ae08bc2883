"""Applications that share the database with Runwell, each with a driver of its own."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
import django
import psycopg
from django import conf
from django.db import connections, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

ORDERS = "CREATE TABLE IF NOT EXISTS orders (name text)"


@dataclass(frozen=True)
class AsyncApplication:
    """A connection with a transaction that was begun, and what is done with it."""

    connection: object
    execute: Callable[[str], Awaitable[object]]
    commit: Callable[[], Awaitable[object]]
    rollback: Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Application:
    """The same for a connection that blocks."""

    connection: object
    execute: Callable[[str], object]
    commit: Callable[[], object]
    rollback: Callable[[], object]


@contextlib.asynccontextmanager
async def over_asyncpg(dsn: str) -> AsyncGenerator[AsyncApplication]:
    connection = cast("Any", await asyncpg.connect(dsn))
    try:
        begun = connection.transaction()
        await begun.start()
        yield AsyncApplication(connection, connection.execute, begun.commit, begun.rollback)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def over_async_psycopg(dsn: str) -> AsyncGenerator[AsyncApplication]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield AsyncApplication(
            connection,
            cast("Callable[[str], Awaitable[object]]", connection.execute),
            connection.commit,
            connection.rollback,
        )


@contextlib.asynccontextmanager
async def over_async_connection(dsn: str) -> AsyncGenerator[AsyncApplication]:
    """SQLAlchemy's async connection, over asyncpg."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool
    )
    async with engine.connect() as connection:
        yield AsyncApplication(
            connection,
            lambda sql: connection.execute(text(sql)),
            connection.commit,
            connection.rollback,
        )


@contextlib.asynccontextmanager
async def over_async_session(dsn: str) -> AsyncGenerator[AsyncApplication]:
    """SQLAlchemy's async session, over psycopg."""
    engine = create_async_engine(
        "postgresql+psycopg://",
        async_creator=lambda: psycopg.AsyncConnection.connect(dsn),
        poolclass=NullPool,
    )
    async with AsyncSession(engine) as session:
        yield AsyncApplication(
            session, lambda sql: session.execute(text(sql)), session.commit, session.rollback
        )


@contextlib.contextmanager
def over_psycopg(dsn: str) -> Generator[Application]:
    with psycopg.connect(dsn) as connection:
        yield Application(
            connection,
            cast("Callable[[str], object]", connection.execute),
            connection.commit,
            connection.rollback,
        )


@contextlib.contextmanager
def over_connection(dsn: str) -> Generator[Application]:
    """SQLAlchemy's connection."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool
    )
    with engine.connect() as connection:
        yield Application(
            connection,
            lambda sql: connection.execute(text(sql)),
            connection.commit,
            connection.rollback,
        )


@contextlib.contextmanager
def over_session(dsn: str) -> Generator[Application]:
    """SQLAlchemy's session."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool
    )
    with Session(engine) as session:
        yield Application(
            session, lambda sql: session.execute(text(sql)), session.commit, session.rollback
        )


@contextlib.contextmanager
def over_django(dsn: str) -> Generator[Application]:
    """Django's connection, in a block of `transaction.atomic`."""
    connection = django_connection(dsn)
    # Django has no annotations.
    atomic = cast("Any", transaction).atomic(using=connection.alias)
    atomic.__enter__()
    done: list[str] = []

    def execute(sql: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    def end(error: type[BaseException] | None) -> None:
        done.append("ended")
        atomic.__exit__(error, None if error is None else error(), None)

    try:
        yield Application(connection, execute, lambda: end(None), lambda: end(KeyboardInterrupt))
    finally:
        if not done:
            end(KeyboardInterrupt)
        connection.close()


def django_connection(dsn: str) -> Any:
    """A connection of Django's, by the alias `app`."""
    if not conf.settings.configured:
        cast("Any", conf.settings).configure(USE_TZ=True)
        cast("Any", django).setup()
    parts = conninfo_to_dict(dsn)
    wrapper = DatabaseWrapper(
        {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.pop("dbname"),
            "USER": parts.pop("user", ""),
            "PASSWORD": parts.pop("password", ""),
            "HOST": parts.pop("host", ""),
            "PORT": parts.pop("port", ""),
            "OPTIONS": parts,
            "TIME_ZONE": None,
            "CONN_MAX_AGE": 0,
            "CONN_HEALTH_CHECKS": False,
            "AUTOCOMMIT": True,
            "ATOMIC_REQUESTS": False,
        },
        alias="app",
    )
    connections["app"] = wrapper
    return wrapper


ASYNC_WAYS = {
    "asyncpg": over_asyncpg,
    "psycopg": over_async_psycopg,
    "sqlalchemy connection": over_async_connection,
    "sqlalchemy session": over_async_session,
}
WAYS = {
    "psycopg": over_psycopg,
    "sqlalchemy connection": over_connection,
    "sqlalchemy session": over_session,
    "django": over_django,
}
