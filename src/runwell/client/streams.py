"""Reading streams of runs: each value once and in order, whatever happens to the network.

Each step is one request that ends as soon as it has brought something, so blocking and async
callers share all rules. It says which event was the last that came.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Final, cast
from urllib.parse import quote

from runwell.client.api import ApiClient
from runwell.client.options import Retry
from runwell.client.run_handles import RunReference, path_id
from runwell.client.transport import (
    ApiConnectionError,
    Call,
    Flow,
    InternalServerError,
    Pause,
    RateLimitError,
    RequestOptions,
)
from runwell.core.payloads import Json

# A request is held for 20 seconds; the connection is given up well after that.
_OPTIONS: Final = RequestOptions(retry=Retry(max_attempts=1), timeout=60)
_HELD_SECONDS: Final = "20"
_FIRST_PAUSE_SECONDS, _PAUSE_FACTOR, _LONGEST_PAUSE_SECONDS = 0.1, 1.3, 10.0


class StreamReader:
    """The values of a stream: `async for` over it, or `for` with `runwell.sync`.

    From the first one on, until the stream is closed or its run has ended; each loop begins anew.
    Raises ApiError for what the server refuses.
    """

    def __init__(self, client: ApiClient, run: RunReference, key: str) -> None:
        """Use `runs.fetch_stream`."""
        self._client = client
        self._path = f"/realtime/v1/streams/{path_id(run)}/{quote(key, safe='')}"

    async def __aiter__(self) -> AsyncIterator[Json]:
        """Read without blocking the event loop."""
        position = _Position(self._client, self._path)
        while not position.is_over:
            for value in await self._client.run(position.next_flow()):
                yield value

    def __iter__(self) -> Iterator[Json]:
        """Read, blocking the caller."""
        position = _Position(self._client, self._path)
        while not position.is_over:
            yield from self._client.run_blocking(position.next_flow())


class _Position:
    """Where a reader is in a stream."""

    def __init__(self, client: ApiClient, path: str) -> None:
        self._client = client
        self._path = path
        self._last = ""
        self.is_over = False

    def next_flow(self) -> Flow[list[Json]]:
        """One answer: the values that it brought."""
        headers = {"accept": "text/event-stream", "timeout-seconds": _HELD_SECONDS}
        if self._last:
            headers["last-event-id"] = self._last
        call = Call(
            method="GET",
            path=self._path,
            query={"once": "true"},
            headers=headers,
            options=_OPTIONS,
        )
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                response = yield from self._client.request(call)
            except (ApiConnectionError, InternalServerError, RateLimitError):
                yield Pause(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * _PAUSE_FACTOR)
            else:
                return self._take(response.body.decode())

    def _take(self, text: str) -> list[Json]:
        values: list[Json] = []
        for event in text.split("\n\n"):
            lines = event.split("\n")
            data = [line[6:] for line in lines if line.startswith("data: ")]
            if data:
                values.append(_value("\n".join(data)))
                self._last = next(line[4:] for line in lines if line.startswith("id: "))
            self.is_over = self.is_over or event == ": end"
        return values


def _value(text: str) -> Json:
    """What isn't JSON is a text, as writers other than tasks may send."""
    try:
        return cast("Json", json.loads(text))
    except (ValueError, RecursionError):
        return text
