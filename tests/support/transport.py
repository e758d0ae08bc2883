"""A transport without I/O for tests: answers are given beforehand, requests and pauses are kept."""

import json
from collections.abc import Callable, Mapping

from runwell.client.api import ApiClient
from runwell.client.transport import (
    ApiConnectionError,
    ClientSettings,
    Outcome,
    Pause,
    Request,
    Response,
    Step,
)

#: What a test gives as an answer: an outcome, or a function that makes one of the request.
Answer = Response | ApiConnectionError | Callable[[Request], Response]


class FakeTransport:
    """Gives the answers in order; the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        """With what it answers."""
        self._answers = list(answers)
        self.requests: list[Request] = []
        self.pauses: list[float] = []

    async def perform(self, step: Step) -> Outcome:
        """Answer a request; note a pause."""
        return self.perform_blocking(step)

    def perform_blocking(self, step: Step) -> Outcome:
        """Answer a request; note a pause."""
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            return None
        self.requests.append(step)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer(step) if callable(answer) else answer

    def bodies(self) -> list[object]:
        """The bodies of the requests, as JSON."""
        return [json.loads(request.body or b"null") for request in self.requests]


def answer_json(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with a JSON body."""
    return Response(status, dict(headers or {}), json.dumps(body).encode())


def fake_client(transport: FakeTransport, settings: ClientSettings | None = None) -> ApiClient:
    """A client with a key on this transport."""
    given = settings or ClientSettings(base_url="http://api.test", secret_key="tr_dev_key")
    return ApiClient(lambda: given, transport)
