"""The dashboard put together: its URLs before those of the API, its errors as pages."""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runwell.core.errors import InvalidPayloadError, InvalidTransitionError, RequestError
from runwell.dashboard import guard
from runwell.dashboard.live import Changes, Stream
from runwell.dashboard.places import Place, find_place, path_of
from runwell.dashboard.views import (
    PAGE_HEADERS,
    SECURITY_HEADERS,
    EnvironmentLink,
    View,
    Views,
    read_asset,
)
from runwell.engine import environments
from runwell.engine.db import DatabaseUnavailableError
from runwell.server.backend import Backend
from runwell.server.http import Answer, ClientGoneError, answer_for

PageFunction = Callable[[Request, Backend, Place], Awaitable[View]]
ActionFunction = Callable[[Request, Backend, Place], Awaitable["Done"]]

_PREFIX = "/projects/{project}/{environment}"
_FLASH = "runwell_flash"
_FLASH_CHARACTERS = 500
#: So many pages are drawn at once: the API keeps the rest of the connections.
_DRAWN_AT_ONCE = 3
_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Where the API is, so that its hot paths are compared with no page.
_API_PATHS = ("/api/", "/engine/", "/realtime/", "/otel/", "/packets/")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of an environment: GET of a path below it."""

    path: str
    read: PageFunction


@dataclass(frozen=True, kw_only=True)
class Action:
    """A change that a page can ask for: POST to a path below an environment."""

    path: str
    act: ActionFunction


@dataclass(frozen=True, kw_only=True)
class Done:
    """What an action has done: a sentence about it, and the page to show next."""

    message: str
    next: str


class Site:
    """Pages, and the API for every other URL: one ASGI application."""

    def __init__(
        self,
        backend: Backend,
        api: ASGIApp,
        pages: Sequence[Page],
        actions: Sequence[Action],
        *,
        is_local: bool,
    ) -> None:
        """`is_local` says that only programs of this machine can reach the server."""
        self._backend = backend
        self._api = api
        self._is_local = is_local
        self._views = Views()
        self._drawing = asyncio.Semaphore(_DRAWN_AT_ONCE)
        self.changes = Changes(backend.db)
        self._routes: list[tuple[Route, Callable[[Request], Awaitable[ASGIApp]]]] = [
            *(self._route("GET", _PREFIX + page.path, self._show(page)) for page in pages),
            *(self._route("POST", _PREFIX + one.path, self._do(one)) for one in actions),
            self._route("GET", "/", self._go_home),
            self._route("GET", "/runs/{run}", self._go_to_run),
            self._route("GET", "/assets/{hash}/{name}", self._send_asset),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = self._find(scope)
        if found is None:
            await self._api(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            if not self._is_local:
                raise RequestError(
                    403,
                    "the dashboard has no login yet, so it is open on this machine only: let the "
                    "server listen on 127.0.0.1 (RUNWELL_HOST) and reach it through a tunnel",
                )
            guard.check_host(request)
            guard.check_origin(request)
            answer = await found(request)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, a page says it
            answer = self._error_page(error)
        await answer(scope, receive, send)

    @staticmethod
    def _route(
        method: Literal["GET", "POST"], path: str, act: Callable[[Request], Awaitable[ASGIApp]]
    ) -> tuple[Route, Callable[[Request], Awaitable[ASGIApp]]]:
        return Route(path, _no_endpoint, methods=[method]), act

    def _find(self, scope: Scope) -> Callable[[Request], Awaitable[ASGIApp]] | None:
        if scope["type"] != "http" or scope["path"].startswith(_API_PATHS):
            return None
        for route, act in self._routes:
            match, child = route.matches(scope)
            if match is Match.FULL:
                scope.update(child)
                return act
        return None

    def _show(self, page: Page) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def show(request: Request) -> ASGIApp:
            if "text/event-stream" in request.headers.get("accept", ""):
                return Stream(self.changes, lambda: self._draw_main(request, page))
            view, links = await self._read(request, page)
            flash = _read_flash(request)
            html = self._views.draw_page(view, flash=flash, environments=links)
            headers = PAGE_HEADERS
            if flash is not None:
                forget = ("set-cookie", f"{_FLASH}=; Path=/; Max-Age=0; SameSite=Strict")
                headers = (*PAGE_HEADERS, forget)
            return Answer(html.encode(), headers=headers)

        return show

    async def _draw_main(self, request: Request, page: Page) -> str:
        async with self._drawing:
            async with self._backend.db.connection() as tx:
                place = await find_place(tx, request)
            return self._views.draw_main(await page.read(request, self._backend, place))

    async def _read(self, request: Request, page: Page) -> tuple[View, list[EnvironmentLink]]:
        async with self._drawing:
            async with self._backend.db.connection() as tx:
                place = await find_place(tx, request)
                rows = await environments.list_all(tx)
            view = await page.read(request, self._backend, place)
        links = [
            EnvironmentLink(
                project=row.project.name,
                slug=row.slug,
                url=f"{path_of(row.project.ref, row.slug)}/{view.nav or 'runs'}",
                is_current=row.id == place.environment.id,
            )
            for row in rows
        ]
        return view, links

    def _do(self, action: Action) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def act(request: Request) -> ASGIApp:
            async with self._backend.db.connection() as tx:
                place = await find_place(tx, request)
            done = await action.act(request, self._backend, place)
            return _redirect(done.next, flash=done.message)

        return act

    async def _go_home(self, _request: Request) -> ASGIApp:
        async with self._backend.db.connection() as tx:
            found = await environments.list_all(tx)
        if not found:
            raise RequestError(404, "there is no project here yet")
        first = found[0]
        return _redirect(f"{path_of(first.project.ref, first.slug)}/runs")

    async def _go_to_run(self, request: Request) -> ASGIApp:
        run_id: str = request.path_params["run"]
        async with self._backend.db.connection() as tx:
            found = await environments.find_of_run(tx, run_id)
        if found is None:
            raise RequestError(404, f"there is no run {run_id[:64]}")
        return _redirect(Place(found).run(run_id))

    async def _send_asset(self, request: Request) -> ASGIApp:
        name: str = request.path_params["name"]
        content = read_asset(name)
        kind = _TYPES.get(name.rpartition(".")[2])
        if content is None or kind is None:
            raise RequestError(404, f"there is no file {name[:64]}")
        headers = (
            ("content-type", kind),
            ("cache-control", "public, max-age=31536000, immutable"),
            *SECURITY_HEADERS,
        )
        return Answer(content, headers=headers)

    def _error_page(self, error: Exception) -> Answer:
        match error:
            case RequestError():
                status, message = error.status, str(error)
            case InvalidPayloadError() | InvalidTransitionError():
                status, message = 422, str(error)
            case DatabaseUnavailableError():
                status, message = 503, "the database can't be reached at the moment"
            case _:
                # Logged with an id, which its sentence tells.
                known = answer_for(error)
                status, message = known.status, json.loads(known.body)["error"]
        view = View(
            template="error.html",
            title="Something is in the way",
            values={"message": message, "status_code": status},
            is_live=False,
        )
        html = self._views.draw_page(view, flash=None, environments=[])
        return Answer(html.encode(), status=status, headers=PAGE_HEADERS)


def _redirect(url: str, *, flash: str | None = None) -> ASGIApp:
    found = RedirectResponse(url, status_code=303)
    if flash is not None:
        encoded = base64.urlsafe_b64encode(flash[:_FLASH_CHARACTERS].encode()).decode()
        found.set_cookie(_FLASH, encoded, max_age=60, httponly=True, samesite="strict")
    return found


def _read_flash(request: Request) -> str | None:
    encoded = request.cookies.get(_FLASH)
    if not encoded:
        return None
    try:
        return base64.urlsafe_b64decode(encoded).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


async def _no_endpoint(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("a page's route is only compared with URLs")
