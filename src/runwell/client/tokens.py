"""Calls about tokens and events, as flows that both kinds of caller drive."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast
from urllib.parse import quote

from runwell.client.api import ApiClient
from runwell.client.options import read_duration, read_instant
from runwell.client.transport import Call, Flow, RequestOptions, json_body
from runwell.client.triggering import read_key, read_key_ttl, read_tags
from runwell.core.payloads import MAX_PAYLOAD_BYTES, Json, encode_value, parse_json
from runwell.core.timing import Duration
from runwell.core.token_schemas import (
    TOKEN_STATUSES,
    CompletedToken,
    CreatedToken,
    EventAnswer,
    TokenList,
    TokenObject,
    TokenStatus,
)

_TOKENS = "/api/v1/waitpoints/tokens"

#: A length of time, or the instant itself.
Timeout = Duration | datetime


def create_flow(
    client: ApiClient,
    *,
    timeout: Timeout | None = None,
    tags: str | Sequence[str] | None = None,
    idempotency_key: str | Sequence[str] | None = None,
    idempotency_key_ttl: Duration | None = None,
    event: Mapping[str, object] | None = None,
    options: RequestOptions | None = None,
) -> Flow[CreatedToken]:
    """Create a token."""
    body: dict[str, object] = {}
    if timeout is not None:
        body["timeout"] = _read_timeout(timeout)
    if tags is not None:
        body["tags"] = read_tags(tags)
    if idempotency_key is not None:
        body["idempotencyKey"] = read_key(idempotency_key)
    if idempotency_key_ttl is not None:
        body["idempotencyKeyTTL"] = read_key_ttl(idempotency_key_ttl)
    if event is not None:
        body["event"] = event
    call = Call(method="POST", path=_TOKENS, body=json_body(body), options=options)
    return client.ask(call, CreatedToken)


def complete_flow(
    client: ApiClient, token: object, data: object, options: RequestOptions | None
) -> Flow[CompletedToken]:
    """Complete a token."""
    call = Call(
        method="POST",
        path=f"{_TOKENS}/{read_token_id(token, quoted=True)}/complete",
        body=json_body({"data": to_json(data, "the data")}),
        options=options,
    )
    return client.ask(call, CompletedToken)


def retrieve_flow(
    client: ApiClient, token: object, options: RequestOptions | None
) -> Flow[TokenObject]:
    """Fetch a token."""
    path = f"{_TOKENS}/{read_token_id(token, quoted=True)}"
    return client.ask(Call(method="GET", path=path, options=options), TokenObject)


def list_flow(
    client: ApiClient,
    *,
    status: TokenStatus | Sequence[TokenStatus] | None,
    tags: str | Sequence[str] | None,
    limit: int,
    after: str | None,
    options: RequestOptions | None,
) -> Flow[TokenList]:
    """A page of tokens."""
    query = {"page[size]": str(limit)}
    if status is not None:
        statuses = [status] if isinstance(status, str) else list(status)
        for given in statuses:
            if given not in TOKEN_STATUSES:
                raise ValueError(f"status={given!r}: it is one of {', '.join(TOKEN_STATUSES)}")
        query["filter[status]"] = ",".join(statuses)
    if tags is not None:
        query["filter[tags]"] = ",".join(cast("list[str]", read_tags(tags)))
    if after is not None:
        query["page[after]"] = after
    return client.ask(Call(method="GET", path=_TOKENS, query=query, options=options), TokenList)


def send_event_flow(
    client: ApiClient, name: str, payload: object, options: RequestOptions | None
) -> Flow[EventAnswer]:
    """Tell of an event."""
    body: dict[str, object] = {"name": name, "payload": to_json(payload, "the payload")}
    call = Call(method="POST", path="/api/v1/events", body=json_body(body), options=options)
    return client.ask(call, EventAnswer)


def read_token_id(token: object, *, quoted: bool = False) -> str:
    """The id of a token that was given as its id or as an object of it; raises ValueError."""
    token_id: object = token if isinstance(token, str) else getattr(token, "id", None)
    if not isinstance(token_id, str) or not token_id.strip("."):
        raise ValueError(f"{token!r} names no token: give its id ('waitpoint_...'), or the token")
    return quote(token_id, safe="") if quoted else token_id


def to_json(value: object, what: str) -> Json:
    """A value as plain JSON; raises InvalidPayloadError."""
    if value is None:
        return None
    return parse_json(encode_value(value, what=what, limit=MAX_PAYLOAD_BYTES), what=what)


def _read_timeout(value: Timeout) -> str:
    if isinstance(value, datetime):
        return read_instant("timeout", value).astimezone(UTC).isoformat()
    seconds = read_duration("timeout", value).total_seconds()
    # The API takes whole seconds; a wait is rather longer than shorter.
    return f"{-int(-seconds // 1)}s"
