"""Tokens: create, complete, retrieve, list; and the events that complete them."""

from starlette.requests import Request

from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.payloads import MAX_PAYLOAD_BYTES, Json, parse_json
from runwell.core.token_schemas import (
    TOKEN_STATUSES,
    CompletedToken,
    CompleteTokenBody,
    CreatedToken,
    CreateTokenBody,
    EventAnswer,
    EventBody,
    TokenList,
    TokenObject,
    TokenPagination,
    TokenStatus,
)
from runwell.engine import tokens
from runwell.server import auth
from runwell.server.backend import Backend
from runwell.server.http import (
    MEGABYTE,
    Answer,
    answer,
    base_url,
    integer_parameter,
    path_text,
    read_body,
    read_model,
)
from runwell.server.operations import Operation, Parameter

_TOKENS = "/api/v1/waitpoints/tokens"
_MAX_BODY = MAX_PAYLOAD_BYTES + MEGABYTE
_NO_TOKEN = (404, "There is no such token in the key's environment.")
_TOO_LARGE = (413, "The data is too large.")


async def create(request: Request, backend: Backend) -> Answer:
    """Create a token, or give the one that has the idempotency key."""
    environment = await backend.authenticate(request)
    body = await read_model(request, CreateTokenBody)
    created = await tokens.create_token(backend.db, environment, body, now=backend.now())
    # Its timeout may be sooner than all dates that are known.
    backend.note_dates()
    return answer(
        CreatedToken(
            id=created.id,
            is_cached=created.is_cached,
            url=_url(request, created.id, created.callback_secret),
        ),
        headers=backend.trigger_headers(
            auth.credential_of(request), [f"write:waitpoints:{created.id}"]
        ),
    )


async def retrieve(request: Request, backend: Backend) -> Answer:
    """A token."""
    environment = await backend.authenticate(request)
    token_id = path_text(request, "tokenId")
    async with backend.db.connection() as tx:
        found = await tokens.get_token(tx, environment, token_id)
    return answer(_object(request, found))


async def list_tokens(request: Request, backend: Backend) -> Answer:
    """A page of tokens, the newest first."""
    environment = await backend.authenticate(request)
    size = integer_parameter(request, "page[size]", default=25, least=1, most=100)
    async with backend.db.transaction() as tx:
        page = await tokens.list_tokens(
            tx,
            environment,
            statuses=_read_statuses(request),
            tags=_read_list(request, "filter[tags]"),
            size=size,
            after=request.query_params.get("page[after]"),
            before=request.query_params.get("page[before]"),
        )
    return answer(
        TokenList(
            data=[_object(request, found) for found in page.tokens],
            pagination=TokenPagination(next=page.next, previous=page.previous),
        )
    )


async def complete(request: Request, backend: Backend) -> Answer:
    """Complete a token; one that is complete stays as it is."""
    environment = await backend.authenticate(request)
    token_id = path_text(request, "tokenId")
    body = await read_model(request, CompleteTokenBody, limit=_MAX_BODY)
    await tokens.complete_token(backend.db, environment, token_id, body.data, now=backend.now())
    backend.wake_waiting()
    return answer(CompletedToken())


async def complete_by_url(request: Request, backend: Backend) -> Answer:
    """Complete the token of a URL with the body, whatever it is; the URL is the key."""
    token_id, secret = path_text(request, "tokenId"), path_text(request, "secret")
    raw = await read_body(request, limit=_MAX_BODY)
    await tokens.complete_by_url(backend.db, token_id, secret, _read_any(raw), now=backend.now())
    backend.wake_waiting()
    return answer(CompletedToken())


async def send_event(request: Request, backend: Backend) -> Answer:
    """Something happened: complete the tokens that wait for it."""
    environment = await backend.authenticate(request)
    body = await read_model(request, EventBody, limit=_MAX_BODY)
    completed = await tokens.send_event(
        backend.db, environment, body.name, body.payload, now=backend.now()
    )
    backend.wake_waiting()
    return answer(EventAnswer(completed=completed))


def _object(request: Request, found: tokens.Token) -> TokenObject:
    is_over = found.status != "WAITING"
    return TokenObject(
        id=found.id,
        url=_url(request, found.id, found.callback_secret),
        status=found.status,
        tags=found.tags,
        created_at=found.created_at,
        completed_at=found.completed_at,
        timeout_at=found.timeout_at,
        idempotency_key=found.idempotency_key,
        output=found.output,
        output_type=found.output_type,
        output_is_error=found.status == "TIMED_OUT" if is_over else None,
    )


def _url(request: Request, token_id: str, secret: str) -> str:
    return f"{base_url(request)}{_TOKENS}/{token_id}/callback/{secret}"


def _read_any(raw: bytes) -> Json:
    """A body as JSON when it is that, else as text."""
    if not raw.strip():
        return None
    try:
        return parse_json(raw)
    except InvalidPayloadError:
        return raw.decode("utf-8", "replace").replace("\x00", "\ufffd")


def _read_statuses(request: Request) -> list[TokenStatus] | None:
    given = _read_list(request, "filter[status]")
    if given is None:
        return None
    statuses: list[TokenStatus] = [status for status in TOKEN_STATUSES if status in given]
    unknown = set(given) - set(statuses)
    if unknown:
        raise RequestError(
            400,
            f"filter[status]: {min(unknown)[:32]!r} is not one of {', '.join(TOKEN_STATUSES)}",
        )
    return statuses


def _read_list(request: Request, name: str) -> list[str] | None:
    text = request.query_params.get(name)
    return None if not text else [part for part in text.split(",") if part]


_PAGE = (
    Parameter(name="page[size]", place="query", description="So many, 25 by default, 100 at most"),
    Parameter(name="page[after]", place="query", description="Behind this token"),
    Parameter(name="page[before]", place="query", description="Before this token"),
    Parameter(name="filter[status]", place="query", description="WAITING, COMPLETED, TIMED_OUT"),
    Parameter(name="filter[tags]", place="query", description="With any of these tags"),
)

operations: list[Operation] = [
    Operation(
        method="POST",
        path=_TOKENS,
        endpoint=create,
        name="createToken",
        summary="Create a token that a run can wait for",
        tag="tokens",
        body=CreateTokenBody,
        answer=CreatedToken,
        answer_description="The token, and the URL that completes it.",
    ),
    Operation(
        method="GET",
        path=_TOKENS,
        endpoint=list_tokens,
        name="listTokens",
        summary="List tokens, the newest first",
        tag="tokens",
        answer=TokenList,
        parameters=_PAGE,
    ),
    Operation(
        method="GET",
        path=f"{_TOKENS}/{{tokenId}}",
        endpoint=retrieve,
        name="retrieveToken",
        summary="Retrieve a token",
        tag="tokens",
        answer=TokenObject,
        refusals=(_NO_TOKEN,),
    ),
    Operation(
        method="POST",
        path=f"{_TOKENS}/{{tokenId}}/complete",
        endpoint=complete,
        name="completeToken",
        summary="Complete a token with data",
        tag="tokens",
        body=CompleteTokenBody,
        answer=CompletedToken,
        refusals=(_NO_TOKEN, _TOO_LARGE),
    ),
    Operation(
        method="POST",
        path=f"{_TOKENS}/{{tokenId}}/callback/{{secret}}",
        endpoint=complete_by_url,
        name="completeTokenByUrl",
        summary="Complete a token with any body; needs no key",
        tag="tokens",
        answer=CompletedToken,
        refusals=((404, "No token has this URL."), _TOO_LARGE),
    ),
    Operation(
        method="POST",
        path="/api/v1/events",
        endpoint=send_event,
        name="sendEvent",
        summary="Send an event to the runs that wait for it",
        tag="tokens",
        body=EventBody,
        answer=EventAnswer,
        refusals=(_TOO_LARGE,),
    ),
]
