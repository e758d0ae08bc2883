"""Bodies in, answers out: reading within a cap, strict JSON, one shape for every error."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from runwell.core.errors import InvalidPayloadError, InvalidTransitionError, RequestError
from runwell.core.payloads import Json, check_text, parse_json
from runwell.core.rate_limit_schemas import RateLimitBody
from runwell.core.schemas import ErrorBody
from runwell.engine.db import DatabaseBusyError, DatabaseUnavailableError
from runwell.engine.object_store import ObjectStoreError
from runwell.server import validation
from runwell.server.request_limits import RateLimitedError

ModelT = TypeVar("ModelT", bound=BaseModel)
Headers = Sequence[tuple[str, str]]

MEGABYTE = 1024 * 1024
REQUEST_KEY_HEADER = "x-trigger-request-idempotency-key"
_REQUEST_KEY_CHARACTERS = 256
#: A body has to be there within this time.
_BODY_SECONDS = 60.0
_RETRY_AFTER_SECONDS = "1"
_JSON_TYPE = (b"content-type", b"application/json")

# Bytes that a text must hold before a strict reader would refuse what pydantic takes.
_SUSPECT = (b"\\u0000", b"NaN", b"Infinity")

_log = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


class BadBodyError(RequestError):
    """A body that does not fit its model; `details` has every problem with its path."""

    def __init__(self, message: str, details: list[Json]) -> None:
        super().__init__(400, message)
        self.details = details


class Answer:
    """A whole answer: status, body, headers. An ASGI application, as Starlette's responses are."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, *, status: int = 200, headers: Headers = ()) -> None:
        """Answer JSON, unless the headers say another content type."""
        self.status = status
        self.body = body
        self.headers = headers

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        encoded = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers
        ]
        if not any(name == b"content-type" for name, _ in encoded):
            encoded.append(_JSON_TYPE)
        encoded.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": encoded})
        await send({"type": "http.response.body", "body": self.body})


def answer(model: BaseModel, *, status: int = 200, headers: Headers = ()) -> Answer:
    """A model as JSON; what is None is left out, as clients want it."""
    body = to_json(model, by_alias=True, exclude_none=True)
    return Answer(body, status=status, headers=headers)


def error_answer(
    status: int, message: str, *, headers: Headers = (), details: list[Json] | None = None
) -> Answer:
    """An error as the API has it: `{"error": "..."}`, with details for programs."""
    return answer(
        ErrorBody(error=_readable(message), details=details), status=status, headers=headers
    )


def answer_for(error: Exception) -> Answer:
    """The answer to a request that ended in an exception; what nobody foresaw is logged."""
    match error:
        case BadBodyError():
            return error_answer(error.status, str(error), details=error.details)
        case RateLimitedError():
            return _rate_limited(error)
        case RequestError(status=403):
            return answer(
                ErrorBody(
                    error=_readable(str(error)),
                    code="unauthorized",
                    param="access_token",
                    type="authorization",
                ),
                status=403,
                headers=(("x-should-retry", "false"),),
            )
        case RequestError():
            return error_answer(error.status, str(error), headers=_headers_for(error.status))
        case InvalidPayloadError():
            return error_answer(400, str(error))
        case InvalidTransitionError():
            return error_answer(422, str(error))
        case DatabaseUnavailableError() | DatabaseBusyError() | ObjectStoreError():
            return _unavailable(error)
        case _:
            error_id = secrets.token_hex(6)
            _log.error("request_failed", exc_info=error, extra={"fields": {"error_id": error_id}})
            return error_answer(
                500, f"an unexpected error happened here; the server's log has it as {error_id}"
            )


async def read_body(request: Request, *, limit: int) -> bytes:
    """The body, counted while it comes in; raises RequestError 413 beyond `limit` bytes."""
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    first = await request.receive()
    if first["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = first.get("body", b"")
    if len(body) > limit:
        raise _too_large(limit)
    if first.get("more_body", False):
        return await _read_rest(request, body, limit)
    return body


async def read_model(
    request: Request, model: type[ModelT], *, limit: int = MEGABYTE, allows_nul: bool = False
) -> ModelT:
    """The body as a model.

    Raises RequestError for what is no strict JSON or does not fit. `allows_nul` is for bodies whose
    texts the engine cleans itself.
    """
    return parse_model(await read_body(request, limit=limit), model, allows_nul=allows_nul)


def parse_model(body: bytes, model: type[ModelT], *, allows_nul: bool = False) -> ModelT:
    """A body as a model; see `read_model`."""
    if not body:
        raise RequestError(400, "the body is empty: send a JSON object")
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            # The strict reader says where; what it takes after all is a matter of its size.
            parse_json(body)
        problems = validation.find_problems(error, body)
        raise BadBodyError(validation.describe(problems), validation.details(problems)) from None
    if not allows_nul and any(mark in body for mark in _SUSPECT):
        parse_json(body)
    return parsed


def base_url(request: Request) -> str:
    """Scheme and host by which whoever made a request reaches this server."""
    scheme = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    if scheme not in ("http", "https"):
        scheme = request.url.scheme
    return f"{scheme}://{request.url.netloc}"


def path_text(request: Request, name: str) -> str:
    """A part of the path that is to be looked up; raises RequestError 400 for a NUL in it."""
    text: str = request.path_params[name]
    check_text(text, what=f"{name} in the URL")
    return text


def key_header(request: Request, name: str, most: int) -> str | None:
    """A key in a header; raises RequestError 400 for one that is empty or too long."""
    key = request.headers.get(name)
    if key is None:
        return None
    if not 1 <= len(key) <= most:
        raise RequestError(400, f"the header {name} must have 1 to {most:,} characters")
    check_text(key, what=f"the header {name}")
    return key


def request_key(request: Request) -> str | None:
    """What names a request however often it is sent; raises RequestError 400."""
    return key_header(request, REQUEST_KEY_HEADER, _REQUEST_KEY_CHARACTERS)


def integer_parameter(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    """A number of the query; raises RequestError 400 that names it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise RequestError(
            400, f"{name} must be a number from {least} to {most}, not {text[:32]!r}"
        )
    return int(text)


def _unavailable(error: DatabaseUnavailableError | DatabaseBusyError | ObjectStoreError) -> Answer:
    fields = {"error": str(error)}
    seconds, message = _RETRY_AFTER_SECONDS, str(error)
    match error:
        case DatabaseUnavailableError():
            # Not louder: each request of an outage says the same, and the notifications say it too.
            _log.debug("database_unavailable", extra={"fields": fields})
            message = "the database can't be reached at the moment: try again in a second"
        case DatabaseBusyError():
            _log.warning("statement_timed_out", extra={"fields": fields})
            seconds, message = "5", f"{error}: ask for less, or later"
        case ObjectStoreError():
            _log.warning("object_store_failed", extra={"fields": fields})
    return error_answer(503, message, headers=(("retry-after", seconds),))


def _rate_limited(error: RateLimitedError) -> Answer:
    """The answer in the two shapes at once that clients know: a problem, and an error."""
    body = RateLimitBody(
        error=str(error),
        detail=str(error),
        reset=error.reset_at,
        limit=error.limit,
        seconds_until_reset=error.seconds,
    )
    return answer(
        body,
        status=429,
        headers=(
            ("content-type", "application/problem+json"),
            ("retry-after", str(error.seconds)),
            ("x-ratelimit-limit", str(error.limit)),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", str(error.reset_at)),
        ),
    )


def _readable(message: str) -> str:
    # A message may quote what was sent, lone surrogates and all.
    return message.encode("utf-8", "replace").decode()


def _headers_for(status: int) -> Headers:
    match status:
        case 401:
            return (("www-authenticate", "Bearer"),)
        case 503:
            return (("retry-after", _RETRY_AFTER_SECONDS),)
        case 404:
            # Said to clients that would ask again otherwise: what isn't here won't come.
            return (("x-should-retry", "false"),)
        case _:
            return ()


async def _read_rest(request: Request, start: bytes, limit: int) -> bytes:
    parts, size = [start], len(start)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise RequestError(
            408, f"the body was not complete after {_BODY_SECONDS:.0f} seconds"
        ) from None


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413, f"the request body is too large: at most {limit:,} bytes are accepted here"
    )
