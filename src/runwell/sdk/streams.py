"""`metadata.stream`: values of a run on their way to readers, while the task uses them too.

Values go out as they come: what comes while a request is under way leaves with the next one. What
has no answer is sent again, and nothing is stored twice (docs `realtime/streams.md`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from runwell.client.transport import Call, Flow, Response
from runwell.core.metadata import AppendOperation, SetOperation, Target
from runwell.core.payloads import encode_value
from runwell.sdk.client import default_client
from runwell.sdk.runtime import Runtime, find_runtime

T = TypeVar("T")

_MAX_VALUE_BYTES: Final = 1024 * 1024
# More values are not taken from a source before those are stored.
_MOST_PENDING = 1_000


class MetadataStream(Generic[T]):
    """Values that are sent while they are passed on: `async for` over it, or `await` it.

    The loop ends when all is stored; `await` sends all, and gives how many values that were. Raises
    ApiError when they can't be stored, and InvalidPayloadError for what has no JSON form.
    """

    def __init__(self, target: Target, key: str, source: AsyncIterable[T]) -> None:
        """Use `metadata.stream`."""
        self._target: Target = target
        self._key = key
        self._source = source

    async def __aiter__(self) -> AsyncIterator[T]:
        """Pass on each value, and send it in the background."""
        sender = _begin(self._target, self._key)
        if sender is None:
            async for value in self._source:
                yield value
            return
        pump = _Pump(sender)
        try:
            async for value in self._source:
                await pump.take(value)
                yield value
        except (Exception, GeneratorExit):
            await pump.finish()
            raise
        await pump.finish()

    def __await__(self) -> Generator[object, None, int]:
        """Send all."""
        return self._send_all().__await__()

    async def _send_all(self) -> int:
        count = 0
        async for _ in self:
            count += 1
        return count


class BlockingMetadataStream(Generic[T]):
    """Values that are sent while they are passed on: `for` over it. Each is stored, then passed on.

    Raises ApiError when it can't be stored, and InvalidPayloadError for what has no JSON form.
    """

    def __init__(self, target: Target, key: str, source: Iterable[T]) -> None:
        """Use `metadata.stream` of `runwell.sync`."""
        self._target: Target = target
        self._key = key
        self._source = source

    def __iter__(self) -> Iterator[T]:
        """Send each value, and pass it on."""
        sender = _begin(self._target, self._key)
        if sender is None:
            yield from self._source
            return
        try:
            for value in self._source:
                sender.add(value)
                default_client.run_blocking(sender.send_flow(is_last=False))
                yield value
        finally:
            default_client.run_blocking(sender.send_flow(is_last=True))


class _Sender:
    """A writer of a stream: values that are to be sent, and the number of the first of them."""

    def __init__(self, runtime: Runtime, target: Target, key: str) -> None:
        place = "self" if target == "run" else target
        self._path = (
            f"/realtime/v1/streams/{quote(runtime.ctx.run.id, safe='')}/{place}/"
            f"{quote(key, safe='')}"
        )
        self._what = f"a value of the stream {key!r}"
        self._name = secrets.token_hex(12)
        self._first = 0
        self.pending: list[str] = []

    def add(self, value: object) -> None:
        self.pending.append(encode_value(value, what=self._what, limit=_MAX_VALUE_BYTES))

    def send_flow(self, *, is_last: bool) -> Flow[Response]:
        """Send what there is; with the last of it the writer ends."""
        values, self.pending = self.pending, []
        headers = {"x-client-id": self._name, "x-resume-from-chunk": str(self._first)}
        if not is_last:
            headers["x-stream-continues"] = "true"
        self._first += len(values)
        body = "".join(f"{value}\n" for value in values).encode()
        call = Call(method="POST", path=self._path, body=body, headers=headers)
        return (yield from default_client.request(call))


class _Pump:
    """Sends in the background, for as long as there is something to send."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._task: asyncio.Task[None] | None = None

    async def take(self, value: object) -> None:
        self._sender.add(value)
        if self._task is not None and self._task.done():
            await self._settle()
        if self._task is None:
            self._task = asyncio.create_task(self._send(), name="stream")
        if len(self._sender.pending) >= _MOST_PENDING:
            await self._settle()

    async def finish(self) -> None:
        """Send the rest, and end."""
        await self._settle()
        await default_client.run(self._sender.send_flow(is_last=True))

    async def _settle(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await task

    async def _send(self) -> None:
        while self._sender.pending:
            await default_client.run(self._sender.send_flow(is_last=False))


def _begin(target: Target, key: str) -> _Sender | None:
    """A writer, whose stream the metadata tells of; None outside of a run, where nobody reads."""
    runtime = find_runtime()
    if runtime is None:
        return None
    known = runtime.read_metadata().get("$$streams")
    if target != "run" or not (isinstance(known, list) and key in known):
        runtime.change_metadata(target, AppendOperation(key="$$streams", value=key))
    url = default_client.settings.base_url.rstrip("/")
    runtime.change_metadata(target, SetOperation(key="$$streamsVersion", value="v1"))
    runtime.change_metadata(target, SetOperation(key="$$streamsBaseUrl", value=url))
    return _Sender(runtime, target, key)
