"""Secret keys of environments, and one-time tokens that were used.

An environment has several keys while one is being replaced: the old one goes on until it ends.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from runwell.core.errors import RequestError
from runwell.core.ids import make_secret_key
from runwell.engine import environments
from runwell.engine.db import Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("credentials")

#: A key that was replaced works for this much longer, unless told otherwise.
DEFAULT_OVERLAP = timedelta(hours=24)
MAX_OVERLAP = timedelta(days=90)
_MOST_KEYS = 20


@dataclass(frozen=True, kw_only=True)
class Signers:
    """An environment with the secret keys that verify its public tokens, the newest first."""

    environment: Environment
    secret_keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SecretKey:
    """A key of an environment; `expires_at` of None: until it is replaced."""

    secret_key: str
    created_at: datetime
    expires_at: datetime | None


async def find_signers(tx: Transaction, public_id: str, *, now: datetime) -> Signers | None:
    """The environment of a public id with its living keys; None when there is none."""
    rows = await tx.fetch(_sql.list_signing_keys, public_id=public_id, now=now)
    if not rows:
        return None
    environment = await environments.get_by_id(tx, rows[0]["environment_id"])
    return Signers(environment=environment, secret_keys=tuple(row["secret_key"] for row in rows))


async def list_keys(tx: Transaction, environment: Environment, *, now: datetime) -> list[SecretKey]:
    """The living keys of an environment, the newest first."""
    rows = await tx.fetch(_sql.list_signing_keys, public_id=environment.public_id, now=now)
    return [
        SecretKey(
            secret_key=row["secret_key"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )
        for row in rows
    ]


async def rotate_key(
    tx: Transaction, environment: Environment, *, overlap: timedelta, now: datetime
) -> SecretKey:
    """Make a new secret key; the others end after `overlap`, if they don't before.

    Servers that know an old key take it for some seconds more (`server/auth.py`). Raises
    RequestError 422 when there are too many living keys.
    """
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise RequestError(400, f"overlap must be from 0 to {MAX_OVERLAP.days} days")
    # Whoever rotates at the same time waits here: each of them ends the keys of all before.
    await tx.execute(_sql.lock_environment, environment_id=environment.id)
    await tx.execute(_sql.end_keys, environment_id=environment.id, ends_at=now + overlap, now=now)
    living = await tx.fetch_value(_sql.count_keys, environment_id=environment.id, now=now)
    if living >= _MOST_KEYS:
        raise RequestError(
            422,
            f"the environment {environment.slug} has {living} keys that have not ended: rotate "
            "with a shorter overlap, or 0",
        )
    secret_key = make_secret_key(environment.slug)
    await tx.execute(_sql.insert_key, environment_id=environment.id, secret_key=secret_key, now=now)
    return SecretKey(secret_key=secret_key, created_at=now, expires_at=None)


async def use_token(
    tx: Transaction,
    environment: Environment,
    token_hash: str,
    *,
    request_key: str | None,
    expires_at: datetime,
) -> None:
    """Use a one-time token within the transaction of what it is used for.

    Raises RequestError 422 when it was used, by another request than this one sent again.
    """
    is_ours = await tx.fetch_value(
        _sql.use_token,
        token_hash=token_hash,
        environment_id=environment.id,
        request_key=request_key,
        expires_at=expires_at,
    )
    if not is_ours:
        raise RequestError(
            422, "this public access token was used: it was made for one use, so make another"
        )


async def delete_used_tokens(tx: Transaction, *, now: datetime, most: int) -> None:
    """Forget used tokens that have ended: nothing takes them any more."""
    await tx.execute(_sql.delete_used_tokens, now=now, most=most)
