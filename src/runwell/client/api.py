"""Drives flows: the one place where a call meets settings, a transport, and sync or async."""

import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar, cast

from pydantic import BaseModel, ValidationError

from runwell.client.tracing import traced_flow
from runwell.client.transport import (
    Call,
    ClientSettings,
    Flow,
    Outcome,
    RequestOptions,
    Response,
    Step,
    Transport,
    answer_error,
    presigned_flow,
    request_flow,
)

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


# What stands before the connections, within the block of a `send_through`.
_through: ContextVar[Callable[[Transport], Transport] | None] = ContextVar(
    "runwell.through", default=None
)


@contextmanager
def send_through(wrap: Callable[[Transport], Transport]) -> Generator[None]:
    """Let another transport stand before the connections of clients, within the block.

    It holds for this thread, or this asyncio task and what it starts.
    """
    token = _through.set(wrap)
    try:
        yield
    finally:
        _through.reset(token)


class ApiClient:
    """Sends calls to the API; a client may be used from any event loop and any thread.

    `settings` is asked at each call, so that a change of the environment or of `configure` holds
    from the next call on.
    """

    def __init__(
        self, settings: Callable[[], ClientSettings], transport: Transport | None = None
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._connections: Transport | None = None

    @property
    def settings(self) -> ClientSettings:
        """The settings that the next call is made with."""
        return self._settings()

    def over(self, transport: Transport) -> "ApiClient":
        """A client with the same settings whose I/O another transport does."""
        return ApiClient(self._settings, transport)

    def request(self, call: Call) -> Flow[Response]:
        """The flow of one call, retries included."""
        return traced_flow(call, lambda traced: request_flow(traced, self._settings()))

    def presigned(
        self,
        method: str,
        url: str,
        *,
        data: bytes | None = None,
        data_type: str | None = None,
        options: RequestOptions | None = None,
    ) -> Flow[Response]:
        """The flow of one request to a presigned URL, retries included."""
        return presigned_flow(
            method, url, self._settings(), data=data, data_type=data_type, options=options
        )

    def ask(self, call: Call, answer: type[ModelT]) -> Flow[ModelT]:
        """The flow of one call whose answer is a model; raises ApiAnswerError for another one."""
        response = yield from self.request(call)
        return parse_answer(call, response, answer)

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow in the running event loop and return its result."""
        steps, transport = _Steps(flow), self.transport
        while (step := steps.next) is not None:
            steps.take(await transport.perform(step))
        return steps.result

    def run_blocking(self, flow: Flow[T]) -> T:
        """Drive a flow, blocking this thread, and return its result."""
        steps, transport = _Steps(flow), self.transport
        while (step := steps.next) is not None:
            steps.take(transport.perform_blocking(step))
        return steps.result

    @property
    def transport(self) -> Transport:
        """Who does the I/O of this client."""
        if self._transport is not None:
            return self._transport
        if self._connections is None:
            # asyncio and ssl are half of what `import runwell` may cost; a program that defines
            # tasks and calls nothing does not pay for them.
            module = importlib.import_module("runwell.client.connections")
            self._connections = cast("Transport", module.HttpTransport())
        wrap = _through.get()
        return self._connections if wrap is None else wrap(self._connections)


def parse_answer(call: Call, response: Response, answer: type[ModelT]) -> ModelT:
    """The model in a response; raises ApiAnswerError."""
    try:
        return answer.model_validate_json(response.body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise answer_error(call, response, f"{place}: {first['msg']}") from None


class _Steps(Generic[T]):
    """A flow as a sequence of steps, and its result at the end."""

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self.next: Step | None = None
        self.take(None)

    def take(self, outcome: Outcome) -> None:
        """Go on with the outcome of the last step."""
        try:
            self.next = self._flow.send(outcome)
        except StopIteration as end:
            self.next, self._result = None, cast("T", end.value)

    @property
    def result(self) -> T:
        """What the flow returned, once there is no next step."""
        return self._result
