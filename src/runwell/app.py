"""The server's composition root: everything put together by its settings.

`serve` opens the database, the notifications, the loops and the socket, and closes them in the
opposite order. `python -m runwell.app` is `serve` with the settings of the environment.
"""

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import NoReturn

import uvloop

from runwell._version import __version__
from runwell.core.errors import RunwellError
from runwell.core.timing import Clock, SystemClock
from runwell.dashboard.pages import make_site
from runwell.engine import background, environments, packets, people
from runwell.engine.backlogs import Backlogs
from runwell.engine.db import Database, DatabaseUnavailableError, Transaction
from runwell.engine.embedded import EmbeddedPostgresError
from runwell.engine.migrations import migrate
from runwell.engine.notifications import Signals
from runwell.engine.object_store import ObjectStore
from runwell.server.application import create_app
from runwell.server.backend import Backend
from runwell.server.event_log import configure_logging
from runwell.server.listening import (
    HttpServer,
    is_local,
    open_socket,
    stop_on_signals,
    url_of,
)
from runwell.server.local_file import remove_local_file, write_local_file
from runwell.server.object_stores import (
    open_object_store,
)
from runwell.server.postgres_guard import PostgresGuard
from runwell.server.settings import Settings, read_settings

#: A PostgreSQL that starts together with the server is waited for this long.
_DATABASE_PATIENCE_SECONDS = 30.0
_DATABASE_RETRY_SECONDS = 1.0
#: The environment whose key programs on this machine get.
_LOCAL_ENVIRONMENT = "dev"

_log = logging.getLogger("runwell.app")


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """A server that answers: where, and with which key of its first project (by environment)."""

    url: str
    secret_keys: dict[str, str]
    #: The personal access token of the server's own machine.
    access_token: str = field(repr=False)
    #: Whether the keys were made by this start.
    is_first_start: bool


async def serve(
    settings: Settings,
    *,
    announce: Callable[[str], None] | None = None,
    on_ready: Callable[[ServerAddress], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully; a second signal hastens it.

    `announce` gets what is to be told once and not logged, the keys of a new project; it is printed
    otherwise. Raises ConfigurationError, EmbeddedPostgresError or DatabaseUnavailableError when it
    can't start.
    """
    stop = _Stop()
    with stop_on_signals(stop.on_signal):
        try:
            async with _running(settings, announce or _print) as (server, address, listener):
                stop.server = server
                _log.info(
                    "server_ready",
                    extra={"fields": {"url": address.url, "version": __version__}},
                )
                if on_ready is not None:
                    on_ready(address)
                await server.listen(listener)
        except asyncio.CancelledError:
            # A signal came while we were starting: what had started is closed again by now.
            if not stop.has_begun:
                raise
    _log.info("server_stopped")


def run(
    settings: Settings,
    *,
    announce: Callable[[str], None] | None = None,
    on_ready: Callable[[ServerAddress], None] | None = None,
) -> None:
    """`serve` on an event loop of its own, for a process that does nothing else."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, announce=announce, on_ready=on_ready))


def main() -> NoReturn:
    """Serve with the settings of the environment; the exit status is 1 when that can't be."""
    try:
        settings = read_settings()
        configure_logging(settings.log_level, settings.log_format)
        run(settings)
    except (RunwellError, EmbeddedPostgresError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    sys.exit(0)


class _Stop:
    """What a signal does: cancels a start that goes on, stops a server that runs."""

    def __init__(self) -> None:
        self.server: HttpServer | None = None
        self.has_begun = False
        self._starting = asyncio.current_task()

    def on_signal(self, name: str) -> None:
        _log.info("server_stopping", extra={"fields": {"signal": name}})
        self.has_begun = True
        if self.server is not None:
            self.server.stop()
        elif self._starting is not None:
            self._starting.cancel()


@contextlib.asynccontextmanager
async def _running(
    settings: Settings, announce: Callable[[str], None]
) -> AsyncGenerator[tuple[HttpServer, ServerAddress, socket.socket]]:
    """All that a server needs, open within the block, from the socket to the loops."""
    clock = SystemClock()
    with contextlib.closing(open_socket(settings.host, settings.port)) as listener:
        async with (
            _open_postgres(settings) as dsn,
            await Database.open(dsn, max_size=settings.pool_size) as db,
            _open_signals(dsn) as signals,
            _open_store(settings, db) as store,
        ):
            address = await _find_project(db, url_of(listener), clock, announce)
            backend = Backend(
                db,
                signals,
                store,
                clock=clock,
                lease_seconds=settings.lease_seconds,
                backlogs=Backlogs(db, settings.queue_sizes),
                encryption_keys=settings.encryption_keys,
                limits=settings.limits,
            )
            async with (
                background.run_loops(
                    db,
                    signals,
                    store,
                    clock,
                    lease_seconds=settings.lease_seconds,
                    retention=settings.retention,
                    backlogs=backend.backlogs,
                ),
                contextlib.aclosing(backend.changes),
            ):
                site = make_site(backend, create_app(backend), is_local=is_local(listener))

                def end_waiting() -> None:
                    backend.polls.stop()
                    site.changes.stop()

                with _local_file(settings, address):
                    yield (
                        HttpServer(
                            site,
                            before_stop=end_waiting,
                            stop_seconds=settings.stop_seconds,
                        ),
                        address,
                        listener,
                    )


@contextlib.asynccontextmanager
async def _open_postgres(settings: Settings) -> AsyncGenerator[str]:
    """The DSN of a migrated PostgreSQL: our own, kept alive within the block, or the given one."""
    if settings.database_url is not None:
        await _migrate(settings.database_url, patience_seconds=_DATABASE_PATIENCE_SECONDS)
        yield settings.database_url
        return
    guard = await PostgresGuard.start(settings.data_dir)
    try:
        await _migrate(guard.dsn, patience_seconds=0)
        watching = asyncio.create_task(guard.run(), name="postgres_guard")
        try:
            yield guard.dsn
        finally:
            watching.cancel()
            await asyncio.wait((watching,))
    finally:
        await guard.stop()


async def _migrate(dsn: str, *, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            applied = await migrate(dsn)
        except DatabaseUnavailableError as error:
            if time.monotonic() >= deadline:
                raise
            _log.warning("database_awaited", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(_DATABASE_RETRY_SECONDS)
        else:
            if applied:
                _log.info("database_migrated", extra={"fields": {"applied": applied}})
            return


@contextlib.asynccontextmanager
async def _open_signals(dsn: str) -> AsyncGenerator[Signals]:
    signals = Signals(dsn)
    await signals.start()
    try:
        yield signals
    finally:
        await signals.stop()


@contextlib.asynccontextmanager
async def _open_store(settings: Settings, db: Database) -> AsyncGenerator[ObjectStore]:
    async with db.connection() as tx:
        signing_key = await packets.read_signing_key(tx)
    store = open_object_store(
        settings.object_store, data_dir=settings.data_dir, signing_key=signing_key
    )
    try:
        yield store
    finally:
        await store.close()


async def _find_project(
    db: Database, url: str, clock: Clock, announce: Callable[[str], None]
) -> ServerAddress:
    async def create(tx: Transaction) -> dict[str, str] | None:
        return await environments.create_first_project(tx, now=clock.now())

    created = await db.run(create)
    token = await db.run(lambda tx: people.ensure_local_token(tx, now=clock.now()))
    if created is not None:
        announce(_describe_keys(created))
        return ServerAddress(url=url, secret_keys=created, access_token=token, is_first_start=True)
    async with db.connection() as tx:
        keys = await environments.list_local_keys(tx, now=clock.now())
    return ServerAddress(url=url, secret_keys=keys, access_token=token, is_first_start=False)


@contextlib.contextmanager
def _local_file(settings: Settings, address: ServerAddress) -> Generator[None]:
    key = address.secret_keys.get(_LOCAL_ENVIRONMENT)
    if key is None:
        yield
        return
    try:
        write_local_file(
            settings.data_dir,
            url=address.url,
            secret_key=key,
            secret_keys=address.secret_keys,
            access_token=address.access_token,
        )
    except OSError as error:
        # Only programs on this machine miss it; a server in a container may have no place for it.
        fields = {"data_dir": str(settings.data_dir), "error": str(error)}
        _log.warning("local_file_not_written", extra={"fields": fields})
    try:
        yield
    finally:
        remove_local_file(settings.data_dir)


def _describe_keys(keys: dict[str, str]) -> str:
    lines = "".join(f"  {slug:<5} {key}\n" for slug, key in keys.items())
    return (
        "Created a project. Its secret keys, one for each environment, are shown only now:\n"
        f"{lines}`runwell env` prints what a client on this machine needs.\n"
    )


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
