"""What the tests of one pytest session share: a PostgreSQL, an event loop, an HTTP server."""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from runwell.engine.databases import prepare_template
from runwell.engine.embedded import EmbeddedPostgres
from runwell.server.listening import HttpServer, open_socket, url_of

T = TypeVar("T")


class Host:
    """`start` it once; each test puts its own application into `application`."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.dsn = dsn
        self.application: ASGIApp | None = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="runwell", daemon=True)
        self._thread.start()
        self._listener = open_socket("127.0.0.1", 0)
        self.url = url_of(self._listener)

        # A function and not a method: uvicorn tells by its kind what it can call.
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            assert self.application is not None
            await self.application(scope, receive, send)

        self._server = HttpServer(answer, before_stop=lambda: None, stop_seconds=1)
        self._serving = asyncio.run_coroutine_threadsafe(
            self._server.listen(self._listener), self.loop
        )

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator["Host"]:
        """A host for the length of a block."""
        # The socket of PostgreSQL wants a short path.
        with (
            tempfile.TemporaryDirectory(prefix="rw-", ignore_cleanup_errors=True) as folder,
            EmbeddedPostgres.start(Path(folder) / "data") as postgres,
        ):
            host = cls(Path(folder), postgres.dsn)
            try:
                host.call(prepare_template(postgres.dsn))
                yield host
            finally:
                host.stop()

    def call(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine on the host's event loop, blocking the caller."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Stop serving, and end the loop."""
        self.loop.call_soon_threadsafe(self._server.stop)
        self._serving.result()
        self._listener.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
