"""The requests of `retry.fetch`: what an answer, or none, means for the next attempt.

Imported when it is first used, since httpx takes its time.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from ssl import SSLContext
from typing import Final, TypedDict, cast

import httpx

from runwell.client.options import Retry, read_duration
from runwell.core.timing import RetryOptions, retry_delay
from runwell.sdk.pauses import pause, pause_blocking
from runwell.sdk.retry import ByStatus, FetchOptions, ResetFormat, RetryByHeaders, log_retry

_TIMEOUT_SECONDS: Final = 30
_BY_STATUS: Final[ByStatus] = {"408,409,429,5xx": Retry(max_attempts=10)}
_STATUSES: Final = re.compile(r"([1-5])xx|([1-5]\d\d)(?:-([1-5]\d\d))?")
_LENGTH: Final = re.compile(
    r"(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m(?!s))?"
    r"(?:(?P<seconds>\d+(?:\.\d+)?)s)?(?:(?P<milliseconds>\d+(?:\.\d+)?)ms)?"
)


class _ClientOptions(TypedDict):
    timeout: httpx.Timeout
    verify: SSLContext
    follow_redirects: bool


async def fetch(url: str, options: FetchOptions) -> httpx.Response:
    """Send a request until it is answered well (see `retry.fetch`)."""
    fetching = Fetching(url, options)
    async with httpx.AsyncClient(**fetching.client_options) as client:
        while True:
            try:
                response = await client.send(fetching.request(client))
            except httpx.TransportError as error:
                delay = fetching.delay_without_answer(error)
            else:
                delay = fetching.delay_after(response)
                if delay is None:
                    return response
            await pause(delay, "retry.fetch")


def fetch_blocking(url: str, options: FetchOptions) -> httpx.Response:
    """The same, blocking the thread."""
    fetching = Fetching(url, options)
    with httpx.Client(**fetching.client_options) as client:
        while True:
            try:
                response = client.send(fetching.request(client))
            except httpx.TransportError as error:
                delay = fetching.delay_without_answer(error)
            else:
                delay = fetching.delay_after(response)
                if delay is None:
                    return response
            pause_blocking(delay, "retry.fetch")


class Fetching:
    """A request and its attempts. No I/O."""

    def __init__(self, url: str, options: FetchOptions) -> None:
        """Raises ValueError and TypeError that name the option."""
        self._url = url
        self._options = options
        self._method = options.get("method", "GET")
        self._attempt = 1
        self._rules = [
            (statuses, rule)
            for key, rule in options.get("by_status", _BY_STATUS).items()
            for statuses in _read_statuses(key, rule)
        ]
        # Where the secrets of a URL are, nobody wants them in a log.
        self._what = f"retry.fetch: {self._method} {url.partition('?')[0]}"
        unknown = set(options) - set(FetchOptions.__annotations__)
        if unknown:
            raise TypeError(f"retry.fetch has no option '{min(unknown)}'")
        if not isinstance(options.get("content", ""), bytes | str):
            raise TypeError("content: it takes a text or bytes, which can be sent again")

    @property
    def client_options(self) -> _ClientOptions:
        """How the client is made."""
        timeout = read_duration("timeout", self._options.get("timeout", _TIMEOUT_SECONDS))
        return {
            "timeout": httpx.Timeout(timeout.total_seconds()),
            "verify": _ssl_context(),
            "follow_redirects": self._options.get("follow_redirects", True),
        }

    def request(self, client: httpx.AsyncClient | httpx.Client) -> httpx.Request:
        """The request, made anew for each attempt."""
        options = self._options
        return client.build_request(
            self._method,
            self._url,
            headers=options.get("headers"),
            params=options.get("params"),
            json=options.get("json"),
            content=options.get("content"),
            data=cast("dict[str, object] | None", options.get("data")),
        )

    def delay_without_answer(self, error: httpx.TransportError) -> float:
        """The seconds until the next attempt; raises the error when there is none."""
        if isinstance(error, httpx.TimeoutException):
            rule = self._options.get("timeout_retry", Retry())
        elif isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise error
        else:
            rule = self._options.get("connection_retry", Retry())
        options = rule.to_options()
        if self._attempt >= options.max_attempts:
            raise error
        return self._next(retry_delay(options, self._attempt), f"{type(error).__name__}: {error}")

    def delay_after(self, response: httpx.Response) -> float | None:
        """The seconds until the next attempt, None when the answer is the result.

        Raises HTTPStatusError when there is none.
        """
        status = response.status_code
        rule = next((rule for statuses, rule in self._rules if status in statuses), None)
        if rule is None:
            return None
        if self._attempt >= rule.max_attempts:
            raise self._error(response, f"after {self._attempt} attempts")
        if isinstance(rule, Retry):
            return self._next(retry_delay(rule.to_options(), self._attempt), f"status {status}")
        delay = _read_reset(response.headers.get(rule.reset_header), rule.reset_format)
        if delay is None:
            delay = retry_delay(RetryOptions(), self._attempt)
        longest = read_duration("max_delay", rule.max_delay)
        if delay > longest:
            raise self._error(response, f"and says to wait for {delay}: the most is {longest}")
        told = {
            name: response.headers.get(header)
            for name, header in (
                ("limit", rule.limit_header),
                ("remaining", rule.remaining_header),
            )
            if header is not None
        }
        return self._next(delay, f"status {status}", **told)

    def _next(self, delay: timedelta, why: str, **attributes: object) -> float:
        seconds = delay.total_seconds()
        log_retry(self._what, why, self._attempt, seconds, **attributes)
        self._attempt += 1
        return seconds

    def _error(self, response: httpx.Response, why: str) -> httpx.HTTPStatusError:
        return httpx.HTTPStatusError(
            f"{self._method} {self._url.partition('?')[0]} was answered with "
            f"{response.status_code} {response.reason_phrase} {why}",
            request=response.request,
            response=response,
        )


@cache
def _ssl_context() -> SSLContext:
    # Reading the certificates takes longer than many a request.
    return httpx.create_ssl_context()


def _read_statuses(key: object, rule: object) -> list[range]:
    if not isinstance(rule, Retry | RetryByHeaders):
        raise ValueError(f"by_status[{key!r}]={rule!r}: it takes Retry(...) or RetryByHeaders(...)")
    ranges: list[range] = []
    for part in str(key).split(","):
        match = _STATUSES.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"by_status: {key!r} names no statuses: write 429, '5xx', '500-599' or '408,429'"
            )
        of_hundred, first, last = match.groups()
        if of_hundred:
            ranges.append(range(int(of_hundred) * 100, int(of_hundred) * 100 + 100))
        else:
            ranges.append(range(int(first), int(last or first) + 1))
    return ranges


def _read_reset(value: str | None, form: ResetFormat) -> timedelta | None:
    """How long from now until what a header says; None when it says nothing that lies ahead."""
    if value is None:
        return None
    now = datetime.now(UTC)
    try:
        delay = _read_delay(value.strip(), form, now)
    except (ValueError, OverflowError, OSError):
        return None
    return delay if delay is not None and delay > timedelta() else None


def _read_delay(value: str, form: ResetFormat, now: datetime) -> timedelta | None:
    match form:
        case "retry_after" if value.isdecimal():
            return timedelta(seconds=int(value))
        case "retry_after":
            return _aware(parsedate_to_datetime(value)) - now
        case "unix_timestamp":
            return datetime.fromtimestamp(float(value), UTC) - now
        case "unix_timestamp_in_ms":
            return datetime.fromtimestamp(float(value) / 1000, UTC) - now
        case "iso_8601":
            return _aware(datetime.fromisoformat(value)) - now
        case "iso_8601_duration_openai_variant":
            match = _LENGTH.fullmatch(value)
            parts: Mapping[str, str] = match.groupdict("0") if match else {}
            return timedelta(**{unit: float(number) for unit, number in parts.items()})


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
