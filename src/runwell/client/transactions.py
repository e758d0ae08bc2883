"""Triggers in the application's own transaction, over a connection to the database of Runwell.

Requests that trigger something become calls of the SQL function `runwell_trigger`; all others go
where they always go. How a driver is asked is in `app_connections`.
"""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from runwell.client.api import send_through
from runwell.client.app_connections import AsyncLink, BlockingLink, link_async, link_blocking
from runwell.client.transport import Outcome, Request, Response, Step, Transport
from runwell.core.errors import RunwellError
from runwell.core.ids import make_id, make_run_ids
from runwell.core.payloads import Json
from runwell.core.public_tokens import hash_credential
from runwell.core.timing import SystemClock, parse_duration

_TRIGGER: Final = ("/api/v1/tasks/", "/trigger")
_BATCH: Final = "/api/v1/tasks/batch"
_KEY_SECONDS: Final = 30 * 24 * 3600.0
#: All payloads of a batch together (docs `limits.md`), as the API has it.
MAX_BATCH_PAYLOAD_BYTES: Final = 5 * 1024 * 1024
_USE_SYNC: Final = (
    "the block of a blocking in_transaction() has no `await` triggers: use runwell.sync.tasks or "
    "the .sync of a task, or `async with tasks.in_transaction(...)` with an async connection"
)
_USE_ASYNC: Final = (
    "the block of an async in_transaction() has no blocking triggers: await them, or use "
    "`with runwell.sync.tasks.in_transaction(...)` with a connection that blocks"
)
_IS_OVER: Final = (
    "the block of tasks.in_transaction() has ended: what it began must not trigger any more. Wait "
    "for it within the block"
)


@asynccontextmanager
async def join(connection: object) -> AsyncGenerator[None]:
    """Trigger through an async connection, within the block."""
    joined = _Joined(link_async(connection))
    with send_through(lambda transport: _JoinedTransport(joined, transport)):
        try:
            yield
        finally:
            joined.is_open = False


@contextmanager
def join_blocking(connection: object) -> Generator[None]:
    """Trigger through a connection that blocks, within the block."""
    joined = _BlockingJoined(link_blocking(connection))
    with send_through(lambda transport: _BlockingJoinedTransport(joined, transport)):
        try:
            yield
        finally:
            joined.is_open = False


class _Joined:
    """The connection of a block, for one call at a time."""

    def __init__(self, link: AsyncLink) -> None:
        self.link = link
        self.lock = asyncio.Lock()
        self.is_open = True


class _BlockingJoined:
    def __init__(self, link: BlockingLink) -> None:
        self.link = link
        self.lock = threading.Lock()
        self.is_open = True


class _JoinedTransport:
    """A transport that triggers through the connection of a block."""

    def __init__(self, joined: _Joined, transport: Transport) -> None:
        self._joined = joined
        self._transport = transport

    async def perform(self, step: Step) -> Outcome:
        """Perform a step."""
        if not _is_trigger(step):
            return await self._transport.perform(step)
        key_hash, request = _read(step)
        async with self._joined.lock:
            _check_open(is_open=self._joined.is_open)
            return _response(await self._joined.link(key_hash, request))

    def perform_blocking(self, step: Step) -> Outcome:
        """Perform a step that triggers nothing, blocking."""
        if _is_trigger(step):
            raise RunwellError(_USE_ASYNC)
        return self._transport.perform_blocking(step)


class _BlockingJoinedTransport:
    def __init__(self, joined: _BlockingJoined, transport: Transport) -> None:
        self._joined = joined
        self._transport = transport

    async def perform(self, step: Step) -> Outcome:
        """Perform a step that triggers nothing."""
        if _is_trigger(step):
            raise RunwellError(_USE_SYNC)
        return await self._transport.perform(step)

    def perform_blocking(self, step: Step) -> Outcome:
        """Perform a step, blocking."""
        if not _is_trigger(step):
            return self._transport.perform_blocking(step)
        key_hash, request = _read(step)
        with self._joined.lock:
            _check_open(is_open=self._joined.is_open)
            return _response(self._joined.link(key_hash, request))


def _check_open(*, is_open: bool) -> None:
    if not is_open:
        raise RunwellError(_IS_OVER)


def _is_trigger(step: Step) -> bool:
    if not isinstance(step, Request) or step.method != "POST":
        return False
    path = urlsplit(step.url).path
    return path.endswith(_BATCH) or (_TRIGGER[0] in path and path.endswith(_TRIGGER[1]))


def _read(step: Step) -> tuple[str, str]:
    """What `runwell_trigger` takes: whose environment it is, and what is to be triggered."""
    assert isinstance(step, Request)
    key_hash = hash_credential(step.headers["authorization"].removeprefix("Bearer "))
    body = cast("dict[str, Json]", json.loads(step.body or b"{}"))
    now = SystemClock().now()
    path = urlsplit(step.url).path
    given: dict[str, object] = {}
    if path.endswith(_BATCH):
        bodies = cast("list[dict[str, Json]]", body["items"])
        _check_size(bodies)
        key = step.headers.get("idempotency-key")
        given["batch"] = {
            "id": make_id("batch", now),
            "key": key,
            "keySeconds": _key_seconds(step.headers.get("idempotency-key-ttl")),
        }
        ids = make_run_ids(len(bodies), now)
        given["items"] = [
            _item(run_id, str(item.pop("task")), item)
            for run_id, item in zip(ids, bodies, strict=True)
        ]
    else:
        task_id = unquote(path.partition(_TRIGGER[0])[2].removesuffix(_TRIGGER[1]))
        given["items"] = [_item(make_id("run", now), task_id, body)]
    return key_hash, json.dumps(given, ensure_ascii=False, separators=(",", ":"))


def _item(run_id: str, task_id: str, body: dict[str, Json]) -> dict[str, object]:
    options = cast("Mapping[str, Json]", body.get("options") or {})
    if options.get("resumeParentOnCompletion"):
        raise RunwellError(
            f"task '{task_id}' can't be waited for in the block of in_transaction(): its run "
            "starts only when the transaction has committed. Wait for it after the block"
        )
    if options.get("debounce") is not None:
        raise ValueError(
            "debounce: within in_transaction() it isn't known yet which run the trigger will come "
            "to; use idempotency_key, or trigger after the transaction"
        )
    given: dict[str, object] = {"id": run_id, "task": task_id, "body": body}
    if options.get("idempotencyKey") is not None:
        given["keySeconds"] = _key_seconds(cast("str | None", options.get("idempotencyKeyTTL")))
    return given


def _check_size(items: list[dict[str, Json]]) -> None:
    payloads = [payload for item in items if isinstance(payload := item.get("payload"), str)]
    size = sum(len(payload.encode()) for payload in payloads)
    if size > MAX_BATCH_PAYLOAD_BYTES:
        raise ValueError(
            f"the payloads of the batch are {size:,} bytes, and at most "
            f"{MAX_BATCH_PAYLOAD_BYTES:,} are accepted: make it several batches"
        )


def _key_seconds(ttl: str | None) -> float:
    return _KEY_SECONDS if ttl is None else parse_duration(ttl).total_seconds()


def _response(answer: str) -> Response:
    found = cast("dict[str, Json]", json.loads(answer))
    headers = {"content-type": "application/json"}
    if "sub" in found:
        # As the server would say it: with this the token of the handle is signed here.
        claims = {"sub": found["sub"], "pub": True}
        headers["x-trigger-jwt-claims"] = json.dumps(claims, separators=(",", ":"))
    body = json.dumps(found["body"], ensure_ascii=False).encode()
    return Response(cast("int", found["status"]), headers, body)
