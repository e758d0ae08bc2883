"""The ASGI application: the routes, what to say where there is none, and CORS for browsers."""

from starlette.datastructures import MutableHeaders
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runwell.server.backend import Backend
from runwell.server.http import Answer, error_answer
from runwell.server.operations import Operation, make_routes
from runwell.server.routes import (
    batch_streams,
    batches,
    bulk_actions,
    deployments,
    health,
    idempotency,
    openapi,
    otlp,
    packets,
    projects,
    public_tokens,
    queues,
    realtime,
    run_changes,
    runs,
    schedules,
    streams,
    tokens,
    traces,
    variables,
    waits,
    workers,
)

#: In the order in which a request is compared with them: the hot ones first.
OPERATIONS: tuple[Operation, ...] = (
    *workers.operations,
    *waits.operations,
    *tokens.operations,
    *realtime.operations,
    *streams.operations,
    *runs.operations,
    *traces.operations,
    *otlp.operations,
    *run_changes.operations,
    *bulk_actions.operations,
    *queues.operations,
    *packets.operations,
    *public_tokens.operations,
    *batches.operations,
    *batch_streams.operations,
    *idempotency.operations,
    *schedules.operations,
    *deployments.operations,
    *variables.operations,
    *projects.operations,
    *health.operations,
)

_ORIGIN = b"origin"
_ALLOWED_METHODS = "GET, HEAD, PUT, PATCH, POST, DELETE"
# Browsers must be told what a page's script may read; `*` does not stand for all in every browser.
_EXPOSED = (
    "x-trigger-jwt, x-trigger-jwt-claims, x-should-retry, retry-after, "
    "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, "
    "electric-handle, electric-offset, electric-schema, electric-cursor, electric-up-to-date, "
    "electric-shape-id, electric-chunk-last-offset, x-stream-version, x-last-chunk-index"
)
_PREFLIGHT_SECONDS = "7200"


class Application:
    """All of the server's HTTP. Access is by key and never by cookie, so any page may ask."""

    def __init__(self, backend: Backend) -> None:
        """Make the routes over an open backend."""
        documented = (*OPERATIONS, *openapi.make_operations(OPERATIONS))
        self._router = Router(
            make_routes(documented, backend), redirect_slashes=False, default=_not_found
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served here")
        origin = next((value for name, value in scope["headers"] if name == _ORIGIN), None)
        if origin is None:
            await self._router(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await _answer_preflight(scope, receive, send)
        else:
            await self._router(scope, receive, _with_cors(send))


def create_app(backend: Backend) -> ASGIApp:
    """The ASGI application over an open backend."""
    return Application(backend)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    found = error_answer(
        404,
        f"there is nothing at {scope['path'][:200]}: /openapi.json lists what there is",
        headers=(("x-should-retry", "false"),),
    )
    await found(scope, receive, send)


async def _answer_preflight(scope: Scope, receive: Receive, send: Send) -> None:
    wanted = next(
        (value for name, value in scope["headers"] if name == b"access-control-request-headers"),
        b"authorization, content-type",
    )
    headers = (
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", _ALLOWED_METHODS),
        ("access-control-allow-headers", wanted.decode("latin-1")),
        ("access-control-max-age", _PREFLIGHT_SECONDS),
        ("vary", "access-control-request-headers"),
    )
    await Answer(b"", status=200, headers=headers)(scope, receive, send)


def _with_cors(send: Send) -> Send:
    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = "*"
            headers["access-control-expose-headers"] = _EXPOSED
        await send(message)

    return send_with_cors
