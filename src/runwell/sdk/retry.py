"""`retry`: repeat a part of a task that may fail, and HTTP requests by what they answer.

Sources: docs `errors-retrying.md`. A retry of a part happens within the attempt: it takes none of
the run's attempts, and the process stays. From five seconds on the pause between is a wait of the
run, as in the platform's own SDK. `sdk/fetching.py` does the requests.
"""

import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypedDict, TypeVar, Unpack, overload

from runwell.client.options import Retry
from runwell.core.errors import AbortTaskRunError
from runwell.core.timing import Duration, format_duration, retry_delay
from runwell.sdk.logger import logger
from runwell.sdk.pauses import pause, pause_blocking

if TYPE_CHECKING:
    import httpx

_T = TypeVar("_T")

#: How a header says when a limit ends.
ResetFormat = Literal[
    "retry_after",
    "unix_timestamp",
    "unix_timestamp_in_ms",
    "iso_8601",
    "iso_8601_duration_openai_variant",
]


class RetryFields(TypedDict, total=False):
    """The fields of `Retry` as options of a call."""

    max_attempts: int
    factor: float
    min_timeout: Duration
    max_timeout: Duration
    randomize: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryByHeaders:
    """Repeat a request when the headers of its answer say that it may be repeated.

    By default that is `Retry-After`: seconds or a date. `reset_format` says how the header reads:
    `"unix_timestamp"`, `"unix_timestamp_in_ms"`, `"iso_8601"`, or a length of time such as `1m2.5s`
    (`"iso_8601_duration_openai_variant"`). `limit_header` and `remaining_header` are for the line
    that is logged. Without the header, waits grow as those of `Retry()`. When it says to wait
    longer than `max_delay`, the answer is an error at once.

    Example:
        >>> from runwell import RetryByHeaders
        >>> limits = RetryByHeaders(
        ...     reset_header="x-ratelimit-reset", reset_format="unix_timestamp_in_ms"
        ... )
    """

    reset_header: str = "retry-after"
    reset_format: ResetFormat = "retry_after"
    limit_header: str | None = None
    remaining_header: str | None = None
    max_attempts: int = 10
    max_delay: Duration = "1h"


#: Statuses ("429", "500-599", "5xx", "408,409", or a number), and how requests that get them are
#: repeated.
ByStatus = Mapping[int | str, Retry | RetryByHeaders]


class FetchOptions(TypedDict, total=False):
    """The options of `retry.fetch`: of the request as in httpx, and of its repetitions.

    `timeout` is how long an answer may take, 30 seconds by default. `by_status` replaces what is
    repeated by default: 408, 409, 429 and 5xx. `timeout_retry` and `connection_retry` are for
    requests without an answer.
    """

    method: str
    headers: Mapping[str, str]
    params: Mapping[str, str | int | float | bool | None]
    json: object
    content: bytes | str
    data: Mapping[str, object]
    follow_redirects: bool
    timeout: Duration
    by_status: ByStatus
    timeout_retry: Retry
    connection_retry: Retry


class RetryFunctions:
    """Repeats what may fail, within an attempt.

    Example:
        >>> import asyncio
        >>> from runwell import retry
        >>> async def flaky(attempt: int) -> str:
        ...     if attempt < 2:
        ...         raise ConnectionError("not yet")
        ...     return f"attempt {attempt}"
        >>> asyncio.run(retry.on_throw(flaky, max_attempts=3, min_timeout=0))
        'attempt 2'
    """

    __slots__ = ()

    @overload
    async def on_throw(
        self, function: Callable[[int], Awaitable[_T]], /, **options: Unpack[RetryFields]
    ) -> _T: ...
    @overload
    async def on_throw(
        self, function: Callable[[], Awaitable[_T]], /, **options: Unpack[RetryFields]
    ) -> _T: ...
    @overload
    async def on_throw(
        self, function: Callable[[int], _T], /, **options: Unpack[RetryFields]
    ) -> _T: ...
    @overload
    async def on_throw(
        self, function: Callable[[], _T], /, **options: Unpack[RetryFields]
    ) -> _T: ...
    async def on_throw(
        self, function: Callable[..., object], /, **options: Unpack[RetryFields]
    ) -> object:
        """Call a function until it doesn't raise, at most `max_attempts` times; its result.

        It is called with the number of the attempt, from 1, if it takes an argument. Raises the
        last error when all fail, and `AbortTaskRunError` at once.
        """
        attempts, takes_number = Attempts("retry.on_throw", options), _takes_number(function)
        while True:
            try:
                value = function(attempts.number) if takes_number else function()
                return await value if inspect.isawaitable(value) else value
            # Whatever the function may raise.
            except Exception as error:  # noqa: BLE001
                delay = attempts.delay_after(error)
            await pause(delay, "retry.on_throw")

    async def fetch(self, url: str, /, **options: Unpack[FetchOptions]) -> "httpx.Response":
        """Send an HTTP request until it is answered well; the answer of the last one.

        Raises `httpx.HTTPStatusError` when the last one still got a status that is repeated, and
        httpx's error when it got no answer. Any other status, 404 say, is simply the answer.
        """
        return await importlib.import_module("runwell.sdk.fetching").fetch(url, options)


class BlockingRetryFunctions:
    """Repeats what may fail, blocking the thread that calls."""

    __slots__ = ()

    @overload
    def on_throw(self, function: Callable[[int], _T], /, **options: Unpack[RetryFields]) -> _T: ...
    @overload
    def on_throw(self, function: Callable[[], _T], /, **options: Unpack[RetryFields]) -> _T: ...
    def on_throw(self, function: Callable[..., _T], /, **options: Unpack[RetryFields]) -> _T:
        """Call a function until it doesn't raise, at most `max_attempts` times; its result."""
        attempts, takes_number = Attempts("retry.on_throw", options), _takes_number(function)
        while True:
            try:
                return function(attempts.number) if takes_number else function()
            # Whatever the function may raise.
            except Exception as error:  # noqa: BLE001
                delay = attempts.delay_after(error)
            pause_blocking(delay, "retry.on_throw")

    def fetch(self, url: str, /, **options: Unpack[FetchOptions]) -> "httpx.Response":
        """Send an HTTP request until it is answered well; the answer of the last one."""
        return importlib.import_module("runwell.sdk.fetching").fetch_blocking(url, options)


retry: Final = RetryFunctions()
blocking_retry: Final = BlockingRetryFunctions()


class Attempts:
    """Counts attempts, and says how long to wait between them."""

    def __init__(self, what: str, options: RetryFields) -> None:
        self.number = 1
        self._what = what
        self._options = Retry(**options).to_options()

    def delay_after(self, error: Exception) -> float:
        """The seconds until the next one; raises the error when there is none."""
        if self.number >= self._options.max_attempts or isinstance(error, AbortTaskRunError):
            raise error
        delay = retry_delay(self._options, self.number).total_seconds()
        log_retry(self._what, f"{type(error).__name__}: {error}", self.number, delay)
        self.number += 1
        return delay


def log_retry(what: str, why: str, attempt: int, delay: float, **attributes: object) -> None:
    """Say in the log that something failed and is tried again after so many seconds."""
    logger.warn(
        f"{what}: attempt {attempt} failed, another one follows in {format_duration(delay)}: {why}",
        attempt=attempt,
        delay_seconds=delay,
        **attributes,
    )


def _takes_number(function: Callable[..., object]) -> bool:
    return any(
        parameter.default is inspect.Parameter.empty
        and parameter.kind
        in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for parameter in inspect.signature(function).parameters.values()
    )
