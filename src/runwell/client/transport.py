"""One request to the server's API: settings, authentication, retries, and answers as errors.

Nothing here does I/O. A *flow* is a generator that yields requests and pauses; who drives it
(`connections.py`, or a test) sends and waits, so blocking and async callers share every rule.

    ApiError                    the API answered with an error; `.status`, `.headers`, `.body`
      BadRequestError           400: the request is malformed; the message says where
      AuthenticationError       401: the secret key is missing or unknown
      PermissionDeniedError     403: the key may not do this
      NotFoundError             404: there is no such run, task, ...
      ConflictError             409: something else happened at the same time
      UnprocessableEntityError  422: the request is well formed and can't be honoured
      RateLimitError            429: too many requests; `.headers` say when to come back
      InternalServerError       5xx: the server failed
      ApiConnectionError        there was no answer at all; `.status` is None
      ApiAnswerError            the answer can't be read; `.status` is the one it had
"""

import json
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import urlencode, urlsplit

from runwell._version import __version__
from runwell.client.options import Retry, read_duration
from runwell.core.errors import ConfigurationError, RunwellError
from runwell.core.payloads import Json
from runwell.core.public_tokens import Expiration
from runwell.core.timing import Clock, Duration, SystemClock, retry_delay

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:3030"
DEFAULT_TIMEOUT: Final = 60.0
#: Waits of 1, 1.6, 2.56 and 4.1 seconds.
DEFAULT_RETRY: Final = Retry(
    max_attempts=5, factor=1.6, min_timeout="1s", max_timeout="30s", randomize=False
)
#: A server that says "come back later" than this gets no wait: the caller is told at once.
LONGEST_PAUSE_SECONDS: Final = 60.0

_RETRIED_STATUSES: Final = frozenset({408, 409, 429})
_MAX_SHOWN_BODY: Final = 300


class ApiError(RunwellError):
    """The API could not do what it was asked.

    `status` is the HTTP status, None when there was no answer; `headers` are those of the answer,
    with lower-case names; `body` is its JSON, or its text when it is none.

    Example:
        >>> from runwell import ApiError
        >>> error = ApiError("404: no such run", status=404, body={"error": "no such run"})
        >>> error.status, error.body
        (404, {'error': 'no such run'})
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: Json = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers: Mapping[str, str] = headers or {}
        self.body = body


class BadRequestError(ApiError):
    """400: the request is malformed; the message says where."""


class AuthenticationError(ApiError):
    """401: the secret key is missing or unknown."""


class PermissionDeniedError(ApiError):
    """403: the key may not do this."""


class NotFoundError(ApiError):
    """404: there is no such thing in the environment of the key."""


class ConflictError(ApiError):
    """409: something else happened at the same time."""


class UnprocessableEntityError(ApiError):
    """422: the request is well formed and can't be honoured; the message says why."""


class RateLimitError(ApiError):
    """429: too many requests; the headers say when to come back."""


class InternalServerError(ApiError):
    """5xx: the server failed."""


class ApiConnectionError(ApiError):
    """There was no answer: the server can't be reached, or the connection broke."""


class ApiAnswerError(ApiError):
    """There was an answer that can't be read: not from this API, or from another version of it."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings:
    """Where the API is and how it is called. `secret_key` of None: nobody has set one.

    `parent_run_id` is the run in which the call is made: what it triggers are its children.
    """

    base_url: str = DEFAULT_URL
    secret_key: str | None = field(default=None, repr=False)
    version: str | None = None
    parent_run_id: str | None = None
    retry: Retry = DEFAULT_RETRY
    timeout: Duration = DEFAULT_TIMEOUT


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestOptions:
    """How one call is made, in place of what `configure` says.

    `timeout` bounds the wait for one answer; with `retry=Retry(max_attempts=1)` nothing is retried.
    `public_token_expiration` says when the token of a trigger's handle ends: after an hour without.

    Example:
        >>> from runwell import RequestOptions, Retry
        >>> once = RequestOptions(retry=Retry(max_attempts=1), timeout="5s")
    """

    retry: Retry | None = None
    timeout: Duration | None = None
    public_token_expiration: Expiration | None = None


class Request(NamedTuple):
    """What is sent. `timeout` in seconds."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout: float


class Response(NamedTuple):
    """What came back; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Pause(NamedTuple):
    """A wait before the next step."""

    seconds: float


#: What a flow asks for, and what it is told: a response, no answer, or that the pause is over.
Step = Request | Pause
Outcome = Response | ApiConnectionError | None
#: A flow yields steps, is sent their outcomes, and returns its result.
Flow = Generator[Step, Outcome, T]


class Transport(Protocol):
    """Who does the I/O; the seam that tests replace."""

    async def perform(self, step: Step) -> Outcome:
        """Send a request, or pause, without blocking the event loop."""
        ...

    def perform_blocking(self, step: Step) -> Outcome:
        """Send a request, or pause."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of the API: what is asked, before it is known where and with which key.

    `headers` come on top of those that every request has.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    options: RequestOptions | None = None


def read_environment() -> ClientSettings:
    """The settings that the environment gives: this is where the user side reads it."""
    return ClientSettings(
        base_url=os.environ.get("TRIGGER_API_URL") or DEFAULT_URL,
        secret_key=os.environ.get("TRIGGER_SECRET_KEY") or os.environ.get("TRIGGER_ACCESS_TOKEN"),
        version=os.environ.get("TRIGGER_VERSION") or None,
    )


def read_access_token() -> tuple[str, str] | None:
    """The URL and the personal access token that the environment gives; None without a token."""
    token, url = os.environ.get("TRIGGER_ACCESS_TOKEN", "").strip(), read_environment().base_url
    return (check_url(url), token) if token.startswith("tr_pat_") else None


def check_url(url: str) -> str:
    """The URL of a server without a slash at its end; raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"{url!r} is not the URL of a server: TRIGGER_API_URL, or base_url of configure(), "
            f"must be like {DEFAULT_URL}"
        )
    return url.rstrip("/")


def request_flow(
    call: Call, settings: ClientSettings, clock: Clock | None = None
) -> Flow[Response]:
    """Send one call until it is answered: retries what may succeed when it is sent again.

    Returns a response with a status of 2xx; raises the ApiError of any other.
    """
    options = call.options or RequestOptions()
    request = _build(call, settings, options)
    return (yield from _send(call, request, options.retry or settings.retry, clock))


def presigned_flow(
    method: str,
    url: str,
    settings: ClientSettings,
    *,
    data: bytes | None = None,
    data_type: str | None = None,
    options: RequestOptions | None = None,
) -> Flow[Response]:
    """Send or fetch a packet at a URL of any host that needs no key; else as `request_flow`."""
    options = options or RequestOptions()
    timeout = read_duration("timeout", options.timeout or settings.timeout).total_seconds()
    headers = {"user-agent": f"runwell-python/{__version__}"}
    if data_type is not None:
        headers["content-type"] = data_type
    # What follows the question mark lets whoever reads it in.
    call = Call(method=method, path=url.partition("?")[0])
    request = Request(method, url, headers, data, timeout)
    return (yield from _send(call, request, options.retry or settings.retry, None))


def _send(call: Call, request: Request, retry: Retry, clock: Clock | None) -> Flow[Response]:
    now = (clock or SystemClock()).now
    for attempt in range(1, retry.max_attempts + 1):
        outcome = yield request
        wait: float | None = None
        match outcome:
            case Response() if outcome.status < 300:
                return outcome
            case Response():
                error, wait = _read_error(call, outcome), _wait_asked_for(outcome, now())
                is_final = not _may_retry(outcome) or (wait or 0) > LONGEST_PAUSE_SECONDS
            case ApiConnectionError():
                error, is_final = outcome, False
            case None:
                raise RuntimeError("the outcome of a request is a response or an error")
        if is_final or attempt == retry.max_attempts:
            raise error
        if wait is None:
            wait = retry_delay(retry.to_options(), attempt).total_seconds()
        yield Pause(wait)
    raise AssertionError("the loop returns or raises")


def json_body(value: Mapping[str, object]) -> bytes:
    """The body of a request, as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def answer_error(call: Call, response: Response, reason: str) -> ApiAnswerError:
    """The error of an answer with status 2xx that is not what the API answers."""
    return ApiAnswerError(
        f"{call.method} {call.path}: the answer can't be read ({reason}): is the URL that of a "
        "Runwell server, and is it of this version?",
        status=response.status,
        headers=response.headers,
        body=_read_body(response),
    )


def _build(call: Call, settings: ClientSettings, options: RequestOptions) -> Request:
    if not settings.secret_key:
        raise ConfigurationError(
            "there is no secret key: set TRIGGER_SECRET_KEY, or call configure(secret_key=...). "
            "`runwell env` prints the one of the local server"
        )
    if not settings.secret_key.isascii() or not settings.secret_key.isprintable():
        raise ConfigurationError(
            "the secret key has characters that no key has: copy TRIGGER_SECRET_KEY again"
        )
    url = check_url(settings.base_url) + call.path
    timeout = read_duration("timeout", options.timeout or settings.timeout).total_seconds()
    headers = {
        "authorization": f"Bearer {settings.secret_key}",
        "content-type": "application/json",
        "accept": "application/json",
        "trigger-version": __version__,
        "user-agent": f"runwell-python/{__version__}",
        **call.headers,
    }
    query = f"?{urlencode(call.query)}" if call.query else ""
    return Request(call.method, url + query, headers, call.body, timeout)


def _may_retry(response: Response) -> bool:
    asked = response.headers.get("x-should-retry")
    if asked in ("true", "false"):
        return asked == "true"
    return response.status in _RETRIED_STATUSES or response.status >= 500


def _wait_asked_for(response: Response, now: datetime) -> float | None:
    """The seconds that the server asks to wait; None when it says nothing, or what is over."""
    reset = response.headers.get("x-ratelimit-reset", "")
    if response.status == 429 and reset.isdecimal():
        wait = int(reset) / 1000 - now.timestamp()
        if wait > 0:
            return wait
    after = response.headers.get("retry-after", "")
    if after.isdecimal():
        return float(after)
    try:
        moment = parsedate_to_datetime(after)
    except (TypeError, ValueError):
        return None
    wait = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    return wait if wait > 0 else None


def _read_error(call: Call, response: Response) -> ApiError:
    body = _read_body(response)
    kind = _BY_STATUS.get(response.status, ApiError)
    if response.status >= 500:
        kind = InternalServerError
    return kind(
        f"{response.status} on {call.method} {call.path}: {_reason(body)}",
        status=response.status,
        headers=response.headers,
        body=body,
    )


def _reason(body: Json) -> str:
    if isinstance(body, dict):
        error = body.get("error")
        if isinstance(error, dict):
            error = error.get("message")
        if isinstance(error, str) and error:
            return error
    text = body if isinstance(body, str) else json.dumps(body)
    if body is None or not text.strip():
        return "the answer says nothing more"
    return text if len(text) <= _MAX_SHOWN_BODY else f"{text[:_MAX_SHOWN_BODY]}..."


def _read_body(response: Response) -> Json:
    text = response.body.decode(errors="replace")
    try:
        return cast("Json", json.loads(text)) if text else None
    except (ValueError, RecursionError):
        return text
