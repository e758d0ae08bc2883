"""Answers as they came: what `with_raw_response` is made of.

A method is called on an object of its own, whose client notes the last response.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Concatenate, Generic, ParamSpec, TypeVar

from runwell.client.api import ApiClient
from runwell.client.transport import Outcome, Response, Step, Transport

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


# No slots: `RawResponse[int](...)` sets an attribute, which a frozen class with slots can't take.
@dataclass(frozen=True, kw_only=True)
class RawResponse(Generic[T_co]):
    """What a call returns as `data`, with the last answer of the server that it came from.

    `headers` have names in lower case; `body` is as it arrived.

    Example:
        >>> from runwell import RawResponse, runs
        >>> async def size_of(run_id: str) -> int:
        ...     response = await runs.with_raw_response.retrieve(run_id)
        ...     print(response.status, response.headers["content-type"], response.data.status)
        ...     return len(response.body)
    """

    data: T_co
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class _Recorder:
    """A transport that notes the last response."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.last: Response | None = None

    async def perform(self, step: Step) -> Outcome:
        """Perform a step."""
        return self._note(await self._transport.perform(step))

    def perform_blocking(self, step: Step) -> Outcome:
        """Perform a step, blocking."""
        return self._note(self._transport.perform_blocking(step))

    def answer(self, data: T) -> RawResponse[T]:
        """The result of a call with the response that it ended with."""
        assert self.last is not None
        return RawResponse(
            data=data, status=self.last.status, headers=self.last.headers, body=self.last.body
        )

    def _note(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Response):
            self.last = outcome
        return outcome


def raw(
    make: Callable[[ApiClient], S],
    client: ApiClient,
    method: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[P, Coroutine[object, None, RawResponse[T]]]:
    """A method of what `make` makes, that returns its result with the response."""

    async def call(*args: P.args, **kwargs: P.kwargs) -> RawResponse[T]:
        recorder = _Recorder(client.transport)
        data = await method(make(client.over(recorder)), *args, **kwargs)
        return recorder.answer(data)

    return call


def blocking_raw(
    make: Callable[[ApiClient], S],
    client: ApiClient,
    method: Callable[Concatenate[S, P], T],
) -> Callable[P, RawResponse[T]]:
    """The same for a method that blocks."""

    def call(*args: P.args, **kwargs: P.kwargs) -> RawResponse[T]:
        recorder = _Recorder(client.transport)
        data = method(make(client.over(recorder)), *args, **kwargs)
        return recorder.answer(data)

    return call
