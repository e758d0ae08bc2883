"""The ASGI application under test, with and without Starlette, and the process that serves it.

`python -m bench.stack.application` serves it with uvicorn; Granian takes `make_application`. Both
read the environment variable `STACK`: `driver wire frame port dsn`.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.stack.store import Store, open_store
from bench.stack.wire import Wire, open_wire

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TRIGGER_PATH = "/api/v1/tasks/hello/trigger"
EXCHANGE_PATH = "/engine/v1/worker-actions/exchange"


def make_application() -> Application:
    """The application that the environment asks for."""
    driver, wire_name, frame, _port, dsn = os.environ["STACK"].split()
    store, wire = open_store(driver, dsn), open_wire(wire_name)
    return _with_starlette(store, wire) if frame == "starlette" else _Bare(store, wire)


def _with_starlette(store: Store, wire: Wire) -> Application:
    async def trigger(request: Request) -> Response:
        run_id = await store.insert(wire.read_trigger(await request.body()))
        return Response(wire.write_trigger(run_id), media_type="application/json")

    async def exchange(request: Request) -> Response:
        runs = await store.exchange(wire.read_exchange(await request.body()))
        return Response(wire.write_exchange(runs), media_type="application/json")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        await store.open()
        yield
        await store.close()

    return Starlette(
        routes=[
            # The last of some thirty routes, as a server has them.
            *(Route(f"/api/v1/other{i}/{{id}}", exchange, methods=["GET"]) for i in range(30)),
            Route("/api/v1/tasks/{task_id:path}/trigger", trigger, methods=["POST"]),
            Route(EXCHANGE_PATH, exchange, methods=["POST"]),
        ],
        lifespan=lifespan,
    )


class _Bare:
    """The least that ASGI takes."""

    def __init__(self, store: Store, wire: Wire) -> None:
        self._store = store
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await self._store.open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._store.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        message = await receive()
        body: bytes = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        if scope["path"] == EXCHANGE_PATH:
            runs = await self._store.exchange(self._wire.read_exchange(body))
            answer = self._wire.write_exchange(runs)
        else:
            answer = self._wire.write_trigger(
                await self._store.insert(self._wire.read_trigger(body))
            )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    uvicorn.run(
        make_application(),
        host="127.0.0.1",
        port=int(os.environ["STACK"].split()[3]),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
    )
