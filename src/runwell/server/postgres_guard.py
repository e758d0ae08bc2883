"""Keeps the embedded PostgreSQL alive: when it died under us, it is started again.

Requests get 503 meanwhile; the pool and the notifications connect anew by themselves.
"""

import asyncio
import logging
from pathlib import Path

from runwell.engine.embedded import EmbeddedPostgres, EmbeddedPostgresError

_LOOK_SECONDS = 0.2
# From this pause to that between attempts to start it.
_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 30.0
# So many looks between two at the length of its log.
_LOG_LOOKS = 300

_log = logging.getLogger(__name__)


class PostgresGuard:
    """The embedded PostgreSQL of a server, from `start` to `stop`."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        """Guard one that has started; see `start`."""
        self._postgres = postgres
        self.dsn = postgres.dsn

    @classmethod
    async def start(cls, data_dir: Path) -> "PostgresGuard":
        """Start PostgreSQL on a directory; raises EmbeddedPostgresError."""
        starting = asyncio.create_task(
            asyncio.to_thread(EmbeddedPostgres.start, data_dir), name="postgres"
        )
        try:
            return cls(await asyncio.shield(starting))
        except asyncio.CancelledError:
            await asyncio.wait((starting,))
            if starting.exception() is None:
                await asyncio.to_thread(starting.result().stop)
            raise

    @property
    def pid(self) -> int:
        """The process id of the PostgreSQL that runs now."""
        return self._postgres.pid

    async def run(self) -> None:
        """Watch it until canceled."""
        looks = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            looks += 1
            if not self._postgres.is_running:
                _log.error("postgres_died", extra={"fields": {"pid": self._postgres.pid}})
                await self._restart()
            elif looks % _LOG_LOOKS == 0:
                await asyncio.to_thread(self._postgres.trim_log)

    async def stop(self) -> None:
        """Shut PostgreSQL down; `run` must have ended."""
        await asyncio.to_thread(self._postgres.stop)

    async def _restart(self) -> None:
        pause = _PAUSE_SECONDS
        while True:
            # A cancellation waits for the thread, so that no PostgreSQL is left without an owner.
            restart = asyncio.to_thread(self._postgres.restart)
            attempt = asyncio.create_task(restart, name="postgres")
            try:
                await asyncio.shield(attempt)
            except asyncio.CancelledError:
                await asyncio.wait((attempt,))
                raise
            except EmbeddedPostgresError as error:
                _log.error("postgres_restart_failed", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            else:
                _log.warning("postgres_restarted", extra={"fields": {"pid": self._postgres.pid}})
                return
