"""An operation of the API: a method and a path, what answers, and all that its documentation says.

The OpenAPI document is made from these, so that it can't leave one out.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runwell.core import failpoints
from runwell.core.errors import RequestError
from runwell.server import auth
from runwell.server.access import Access, access_of
from runwell.server.backend import Backend
from runwell.server.http import ClientGoneError, answer_for, error_answer

# Paths of the API that everybody else calls.
_LIMITED = "/api/"
_LIVE = "/realtime/"

Endpoint = Callable[[Request, Backend], Awaitable[ASGIApp]]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter in the query or a header; those of the path are read from it."""

    name: str
    description: str
    place: Literal["query", "header"] = "query"
    type: Literal["string", "integer", "boolean"] = "string"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. `refusals` says in what cases it answers which 4xx."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    endpoint: Endpoint
    name: str
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    body_type: str = "application/json"
    needs_body: bool = True
    answer: type[BaseModel] | None = None
    answer_description: str = "Done."
    answer_status: int = 200
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[tuple[int, str], ...] = ()

    @property
    def access(self) -> Access:
        """Who may call it, by the table in `access.py`."""
        return access_of(self.name)


class Resource:
    """A path with its methods, as an ASGI application. Every error becomes an answer here."""

    def __init__(self, operations: Sequence[Operation], backend: Backend) -> None:
        """Answer the methods of these operations."""
        self._operations = {
            operation.method: (_with_failpoints(operation), operation.access)
            for operation in operations
        }
        # Workers report what was accepted: that goes on, however much is asked besides.
        self._is_limited = operations[0].path.startswith(_LIMITED)
        # Subscriptions are under way for long: how many there are is no sign of load.
        self._is_live = operations[0].path.startswith(_LIVE)
        self._backend = backend
        if "GET" in self._operations:
            # The server leaves out the body of an answer to HEAD.
            self._operations["HEAD"] = self._operations["GET"]
        self._allowed = ", ".join(sorted(self._operations))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        operation = self._operations.get(scope["method"])
        if operation is None:
            found = error_answer(
                405,
                f"{scope['method']} is not a method of this URL, which has {self._allowed}",
                headers=(("allow", self._allowed),),
            )
        else:
            try:
                found = await self._call(*operation, Request(scope, receive))
            except ClientGoneError:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
                found = answer_for(error)
        await found(scope, receive, send)

    async def _call(self, endpoint: Endpoint, access: Access, request: Request) -> ASGIApp:
        if access.is_denied:
            raise RequestError(403, "nobody may call this: server/access.py doesn't say who may")
        if self._is_live and "handle" not in request.query_params and not access.is_open:
            # Whoever goes on with a subscription was counted when it began.
            self._backend.count(request)
        if not self._is_limited:
            return await self._carry_out(endpoint, access, request)
        with self._backend.doorkeeper.admitted():
            return await self._carry_out(endpoint, access, request)

    async def _carry_out(self, endpoint: Endpoint, access: Access, request: Request) -> ASGIApp:
        if access.is_open:
            return await endpoint(request, self._backend)
        if self._is_limited and not access.is_unlimited:
            self._backend.count(request)
        await self._backend.admit(request, access)
        found = await endpoint(request, self._backend)
        if not auth.grant_of(request).is_checked:
            # A route that forgot to ask: whatever it answers is not for a public token.
            raise auth.ForbiddenError("a public access token was not asked for its scopes here")
        return found


def _with_failpoints(operation: Operation) -> Endpoint:
    """The endpoint of an operation; in tests that ask for it, one that can be stopped."""
    if not failpoints.ARE_ON:
        return operation.endpoint

    async def carry_out(request: Request, backend: Backend) -> ASGIApp:
        failpoints.enter(operation.name)
        failpoints.reach("begin")
        found = await operation.endpoint(request, backend)
        lost = failpoints.reach("answer") == failpoints.LOSE
        return _lose if lost else found

    return carry_out


async def _lose(scope: Scope, receive: Receive, send: Send) -> None:
    """Break the connection in the middle of an answer."""
    head = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
    scope["extensions"][failpoints.BREAKS]["close"]()
    while (await receive())["type"] != "http.disconnect":
        pass


def make_routes(operations: Sequence[Operation], backend: Backend) -> list[Route]:
    """A route for each path, in the order in which the paths first appear."""
    by_path: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_path[operation.path].append(operation)
    return [Route(path, Resource(found, backend)) for path, found in by_path.items()]
