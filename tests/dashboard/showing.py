"""A dashboard for a test, in the test's own event loop, and a browser that looks at it."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.async_api import Page, async_playwright

from runwell.core.timing import SystemClock
from runwell.dashboard.pages import make_site
from runwell.engine import environments
from runwell.engine.db import Database
from runwell.engine.environments import Environment
from runwell.engine.file_store import FileStore
from runwell.engine.notifications import Signals
from runwell.server.application import create_app
from runwell.server.backend import Backend
from runwell.server.listening import HttpServer, open_socket, url_of
from tests.support.factories import Scene

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

needs_browser = pytest.mark.skipif(
    _CHROMIUM is None and "RUNWELL_REQUIRE_BROWSER" not in os.environ,
    reason="Chromium is not installed here (Debian: apt-get install chromium)",
)


@dataclass(kw_only=True)
class Shown:
    """A dashboard that answers, and the environment that its pages are about."""

    url: str
    client: httpx.AsyncClient
    backend: Backend
    environment: Environment
    scene: Scene

    def path(self, page: str = "") -> str:
        """The path of a page."""
        return f"/projects/{self.environment.project.ref}/dev/{page}"

    async def page(self, page: str, status: int = 200) -> str:
        """The HTML of a page."""
        answer = await self.client.get(self.path(page))
        assert answer.status_code == status, answer.text
        return answer.text


@contextlib.asynccontextmanager
async def showing(database_url: str, *, is_local: bool = True) -> AsyncGenerator[Shown]:
    """A server with pages over a migrated database."""
    with tempfile.TemporaryDirectory(prefix="rw-packets-") as folder:
        async with await Database.open(database_url, min_size=1) as db:
            async with db.transaction() as tx:
                now = SystemClock().now()
                await environments.create_first_project(tx, now=now)
                environment = (await environments.list_all(tx))[0]
            signals = Signals(database_url)
            await signals.start()
            backend = Backend(db, signals, FileStore(Path(folder), b"signing-key"))
            site = make_site(backend, create_app(backend), is_local=is_local)

            def end_waiting() -> None:
                backend.polls.stop()
                site.changes.stop()

            server = HttpServer(site, before_stop=end_waiting, stop_seconds=5)
            listener = open_socket("127.0.0.1", 0)
            url = url_of(listener)
            task = asyncio.create_task(server.listen(listener))
            try:
                async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                    yield Shown(
                        url=url,
                        client=client,
                        backend=backend,
                        environment=environment,
                        scene=Scene(db=db, environment=environment, now=now),
                    )
            finally:
                server.stop()
                await task
                await signals.stop()


@contextlib.asynccontextmanager
async def browsing(
    shown: Shown,
    *,
    scheme: Literal["light", "dark"] = "light",
    width: int = 1280,
) -> AsyncGenerator[Page]:
    """A page of Chromium; the test fails when a script of ours did."""
    problems: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_FLAGS])
        page = await browser.new_page(
            base_url=shown.url,
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
            locale="en-GB",
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        try:
            yield page
        finally:
            await browser.close()
    assert not problems
