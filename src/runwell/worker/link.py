"""The way to the server: one place that knows whether it answers, and how to wait until it does."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runwell.client.transport import (
    ApiAnswerError,
    ApiError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
)
from runwell.core.errors import ConfigurationError
from runwell.worker.events import ServerReachable, ServerUnreachable, WorkerEvent

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
# The server was there with this key once: a key that was revoked or a path that a proxy does not
# know during a deployment may come back, and what runs must not be lost for it.
_LASTING_ERRORS = (AuthenticationError, PermissionDeniedError, NotFoundError)


class ServerLink:
    """Calls the server until it answers."""

    def __init__(self, tell: Callable[[WorkerEvent], None]) -> None:
        self._tell = tell
        self._away_since: float | None = None
        self._is_back = asyncio.Event()
        self._has_been_reached = False

    @property
    def is_away(self) -> bool:
        """Whether the last call got no answer."""
        return self._away_since is not None

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` answers, however long that takes; `ask` is sent again as it is.

        Raises the ApiError of a refusal, which asking again would not change, and at the very start
        ConfigurationError for a URL or key that is wrong.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = await ask()
            except ApiError as error:
                if not self._has_been_reached and isinstance(error, _LASTING_ERRORS):
                    raise ConfigurationError(f"the server refuses this worker: {error}") from error
                if _is_refusal(error):
                    self._note_answer()
                    raise
                self._note_silence(error)
                await self._pause(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
            else:
                self._has_been_reached = True
                self._note_answer()
                return answer

    def _note_answer(self) -> None:
        if self._away_since is not None:
            seconds = asyncio.get_running_loop().time() - self._away_since
            self._away_since = None
            self._tell(ServerReachable(seconds_away=seconds))
            # Everybody who waits may go on now, whoever found out.
            self._is_back.set()
            self._is_back = asyncio.Event()

    def _note_silence(self, error: ApiError) -> None:
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
            self._tell(ServerUnreachable(message=str(error)))

    async def _pause(self, seconds: float) -> None:
        # Many workers that lost one server must not come back in one instant.
        try:
            async with asyncio.timeout(seconds * random.uniform(0.5, 1)):
                await self._is_back.wait()
        except TimeoutError:
            pass


def _is_refusal(error: ApiError) -> bool:
    return (
        error.status is not None
        and 400 <= error.status < 500
        and error.status not in _TRANSIENT_STATUSES
        and not isinstance(error, (ApiAnswerError, *_LASTING_ERRORS))
    )
