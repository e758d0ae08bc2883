"""Tokens: waitpoints that somebody completes, once, by the API, by their URL or by an event."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runwell.core.errors import RequestError
from runwell.core.event_filters import matches
from runwell.core.ids import make_id
from runwell.core.payloads import JSON_TYPE, MAX_PAYLOAD_BYTES, Json, check_text, encode_json
from runwell.core.timing import parse_duration, parse_instant
from runwell.core.token_schemas import CreateTokenBody, TokenStatus
from runwell.engine.db import Database, Row, Transaction, allow_any_plan
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("tokens")

_KEY_LIFETIME = timedelta(days=30)
#: Tokens that are never completed end after this long when no timeout was given.
DEFAULT_TIMEOUT = timedelta(minutes=10)
_MOST_PER_LOOK = 500


@dataclass(frozen=True, kw_only=True)
class CreatedToken:
    """A token; `is_cached` says that its idempotency key had it already."""

    id: str
    callback_secret: str
    is_cached: bool


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token with what it was completed with, if it was."""

    id: str
    callback_secret: str
    status: TokenStatus
    tags: list[str]
    idempotency_key: str | None
    output: str | None
    output_type: str | None
    created_at: datetime
    completed_at: datetime | None
    timeout_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class TokenPage:
    """A part of a list, the newest first; a cursor is None where nothing follows."""

    tokens: list[Token]
    next: str | None
    previous: str | None


async def create_token(
    db: Database, environment: Environment, body: CreateTokenBody, *, now: datetime
) -> CreatedToken:
    """Create a token, or give the one of the idempotency key.

    Raises RequestError 400 for a timeout or lifetime that is none.
    """
    created = CreatedToken(
        id=make_id("waitpoint", now), callback_secret=secrets.token_urlsafe(24), is_cached=False
    )
    for text in (body.idempotency_key, *(body.tags or ())):
        if text is not None:
            check_text(text, what="a tag or key")
    lifetime = (
        _KEY_LIFETIME
        if body.idempotency_key_ttl is None
        else _read_duration(body.idempotency_key_ttl, "idempotencyKeyTTL")
    )
    due_at = now + DEFAULT_TIMEOUT if body.timeout is None else _read_timeout(body.timeout, now)

    async def act(tx: Transaction) -> CreatedToken:
        if body.idempotency_key is not None:
            await tx.execute(
                _sql.free_expired_key,
                environment_id=environment.id,
                idempotency_key=body.idempotency_key,
                now=now,
            )
        inserted = await tx.fetch_value(
            _sql.insert_token,
            id=created.id,
            environment_id=environment.id,
            due_at=due_at,
            tags=body.tags or [],
            idempotency_key=body.idempotency_key,
            idempotency_key_expires_at=now + lifetime if body.idempotency_key else None,
            callback_secret=created.callback_secret,
            event_name=None if body.event is None else body.event.name,
            event_filter=(
                None
                if body.event is None or body.event.filter is None
                else encode_json(body.event.filter)
            ),
            now=now,
        )
        if inserted is not None:
            return created
        row = await tx.fetch_one(
            _sql.find_token_of_key,
            environment_id=environment.id,
            idempotency_key=body.idempotency_key,
        )
        assert row is not None
        return CreatedToken(id=row["id"], callback_secret=row["callback_secret"], is_cached=True)

    return await db.run(act)


async def get_token(tx: Transaction, environment: Environment, token_id: str) -> Token:
    """A token; raises RequestError 404 when there is none."""
    row = await tx.fetch_one(_sql.find_token, id=token_id, environment_id=environment.id)
    if row is None:
        raise _no_such_token(token_id, environment)
    return _token(row)


async def list_tokens(
    tx: Transaction,
    environment: Environment,
    *,
    statuses: Sequence[TokenStatus] | None,
    tags: Sequence[str] | None,
    size: int,
    after: str | None,
    before: str | None,
) -> TokenPage:
    """A page of an environment's tokens, the newest first."""
    await allow_any_plan(tx)
    wanted = None if statuses is None else list(statuses)
    tagged = None if tags is None else list(tags)
    if before is not None:
        rows = await tx.fetch(
            _sql.list_newer_tokens,
            environment_id=environment.id,
            before=before,
            statuses=wanted,
            tags=tagged,
            most=size + 1,
        )
        found = [_token(row) for row in reversed(rows[:size])]
        return TokenPage(
            tokens=found,
            next=found[-1].id if found else None,
            previous=found[0].id if found and len(rows) > size else None,
        )
    rows = await tx.fetch(
        _sql.list_older_tokens,
        environment_id=environment.id,
        after=after,
        statuses=wanted,
        tags=tagged,
        most=size + 1,
    )
    found = [_token(row) for row in rows[:size]]
    return TokenPage(
        tokens=found,
        next=found[-1].id if len(rows) > size else None,
        previous=found[0].id if found and after is not None else None,
    )


async def complete_token(
    db: Database, environment: Environment, token_id: str, data: Json, *, now: datetime
) -> None:
    """Complete a token; one that is complete, or has timed out, stays as it is.

    Raises RequestError 404 without it and 413 for too much data.
    """
    output = _encode(data)

    async def act(tx: Transaction) -> None:
        await get_token(tx, environment, token_id)
        await _complete(tx, [token_id], output, now=now)

    await db.run(act)


async def complete_by_url(
    db: Database, token_id: str, callback_secret: str, data: Json, *, now: datetime
) -> None:
    """Complete the token of a URL; raises RequestError 404 for a URL that no token has."""
    output = _encode(data)

    async def act(tx: Transaction) -> None:
        row = await tx.fetch_one(
            _sql.find_token_by_secret, id=token_id, callback_secret=callback_secret
        )
        if row is None:
            raise RequestError(404, "no token has this URL")
        await _complete(tx, [token_id], output, now=now)

    await db.run(act)


async def send_event(
    db: Database, environment: Environment, name: str, payload: Json, *, now: datetime
) -> int:
    """Complete every token that waits for such an event; returns how many.

    What begins to wait later does not hear of it.
    """
    output = _encode(payload)
    completed, after = 0, ""
    while True:
        async with db.connection() as tx:
            rows = await tx.fetch(
                _sql.list_tokens_of_event,
                environment_id=environment.id,
                event_name=name,
                after=after,
                most=_MOST_PER_LOOK,
            )
        ids = [
            row["id"]
            for row in rows
            if row["event_filter"] is None or matches(json.loads(row["event_filter"]), payload)
        ]
        if ids:
            completed += await db.run(lambda tx, ids=ids: _complete(tx, ids, output, now=now))
        if len(rows) < _MOST_PER_LOOK:
            return completed
        after = rows[-1]["id"]


async def _complete(
    tx: Transaction, token_ids: Sequence[str], output: str, *, now: datetime
) -> int:
    rows = await tx.fetch(
        _sql.complete_tokens, ids=list(token_ids), output=output, output_type=JSON_TYPE, now=now
    )
    return len(rows)


def _encode(data: Json) -> str:
    text = encode_json(data)
    check_text(text, what="the data")
    if len(text.encode()) > MAX_PAYLOAD_BYTES:
        raise RequestError(
            413, f"the data is larger than {MAX_PAYLOAD_BYTES} bytes: send a URL of it instead"
        )
    return text


def _read_duration(text: str, name: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise RequestError(400, f"{name}: {error}") from None


def _read_timeout(text: str, now: datetime) -> datetime:
    for read in (lambda: now + parse_duration(text), lambda: parse_instant(text)):
        try:
            return read()
        except (ValueError, OverflowError):
            continue
    raise RequestError(
        400,
        f"timeout: {text[:64]!r} is neither a duration like '1h30m' nor an instant like "
        "'2027-01-31T09:00:00Z'",
    )


def _no_such_token(token_id: str, environment: Environment) -> RequestError:
    return RequestError(
        404, f"there is no token {token_id[:64]} in the environment {environment.slug}"
    )


def _token(row: Row) -> Token:
    status: TokenStatus = "WAITING"
    if row["status"] == "COMPLETED":
        status = "TIMED_OUT" if row["is_error"] else "COMPLETED"
    return Token(
        id=row["id"],
        callback_secret=row["callback_secret"],
        status=status,
        tags=row["tags"],
        idempotency_key=row["idempotency_key"],
        output=row["output"],
        output_type=row["output_type"],
        created_at=row["created_at"],
        completed_at=row["completed_at"],
        timeout_at=row["due_at"],
    )
