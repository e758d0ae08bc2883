"""People, their personal access tokens, and the projects of their organisations.

A token is shown once, when it is made, and kept as a hash. One is different: that of the server's
own machine, which is in `local.json` as the secret keys are, and made anew from a secret that the
database has.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runwell.core.errors import RequestError
from runwell.core.ids import ALPHABET, make_id
from runwell.core.public_tokens import hash_credential
from runwell.engine import environments
from runwell.engine.db import Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("people")

TOKEN_PREFIX: Final = "tr_pat_"
#: Who the server's own machine acts as.
LOCAL_EMAIL: Final = "local@runwell.local"
_LOCAL_NAME: Final = "the server's own machine"
_TOKEN_LETTERS: Final = 40
_MAX_TOKENS: Final = 100
_MAX_NAME_CHARACTERS: Final = 128
_MAX_EMAIL_CHARACTERS: Final = 254
_EMAIL: Final = re.compile(r"[^@\s\x00]+@[^@\s\x00]+\.[^@\s\x00]+")


@dataclass(frozen=True, kw_only=True)
class Person:
    """A user, by their personal access token."""

    id: int
    public_id: str
    email: str


@dataclass(frozen=True, kw_only=True)
class PersonalToken:
    """A personal access token as it can be shown; `expires_at` of None: until it is revoked."""

    id: str
    name: str
    obfuscated: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class MemberProject:
    """A project of an organisation that somebody is a member of."""

    id: str
    ref: str
    name: str
    slug: str
    created_at: datetime
    organization_id: str
    organization_name: str
    organization_slug: str
    organization_created_at: datetime


async def ensure_local_token(tx: Transaction, *, now: datetime) -> str:
    """The token of the server's own machine, which acts on every organisation."""
    secret = str(await tx.fetch_value(_sql.find_local_secret))
    digest = hmac.digest(secret.encode(), b"local token", hashlib.sha512)
    token = TOKEN_PREFIX + "".join(ALPHABET[b % len(ALPHABET)] for b in digest[:_TOKEN_LETTERS])
    user_id = await _ensure_user(tx, LOCAL_EMAIL, now=now)
    await tx.execute(_sql.join_all_organizations, user_id=user_id, now=now)
    await tx.execute(
        _sql.insert_token,
        public_id=make_id("pat", now),
        user_id=user_id,
        name=_LOCAL_NAME,
        token_hash=hash_credential(token),
        obfuscated=_obfuscate(token),
        expires_at=None,
        now=now,
    )
    return token


async def find_person(tx: Transaction, token: str, *, now: datetime) -> Person | None:
    """Whose token it is; None for one that is unknown, revoked or has expired."""
    row = await tx.fetch_one(_sql.find_person, token_hash=hash_credential(token), now=now)
    if row is None:
        return None
    return Person(id=row["id"], public_id=row["public_id"], email=row["email"])


async def create_token(
    tx: Transaction,
    maker: Person,
    *,
    name: str,
    email: str | None = None,
    expires_at: datetime | None = None,
    now: datetime,
) -> tuple[str, PersonalToken]:
    """Make a token, for the maker or for somebody else in the same organisations.

    Only an owner makes tokens for others. Returns the token, which nobody can show again.
    """
    if not 1 <= len(name) <= _MAX_NAME_CHARACTERS:
        raise RequestError(400, f"name must have 1 to {_MAX_NAME_CHARACTERS} characters")
    if expires_at is not None and expires_at <= now:
        raise RequestError(400, "expiresAt is past: the token would be good for nothing")
    user_id = maker.id
    if email is not None and email.lower() != maker.email:
        user_id = await _invite(tx, maker, email.lower(), now=now)
    if await tx.fetch_value(_sql.count_tokens, user_id=user_id) >= _MAX_TOKENS:
        raise RequestError(422, f"there are {_MAX_TOKENS} tokens already: revoke some")
    token = _random_token()
    row = await tx.fetch_one(
        _sql.insert_token,
        public_id=make_id("pat", now),
        user_id=user_id,
        name=name,
        token_hash=hash_credential(token),
        obfuscated=_obfuscate(token),
        expires_at=expires_at,
        now=now,
    )
    assert row is not None
    return token, _token(row)


async def list_tokens(tx: Transaction, person: Person) -> list[PersonalToken]:
    """The tokens of a person, the newest first."""
    return [_token(row) for row in await tx.fetch(_sql.list_tokens, user_id=person.id)]


async def revoke_token(tx: Transaction, person: Person, token_id: str) -> None:
    """End a token of a person; servers that know it take it for some seconds more."""
    if not await tx.fetch_value(_sql.delete_token, user_id=person.id, public_id=token_id):
        raise RequestError(404, f"you have no personal access token {token_id[:64]}")


async def list_projects(tx: Transaction, person: Person) -> list[MemberProject]:
    """The projects of a person's organisations."""
    rows = await tx.fetch(_sql.list_projects, user_id=person.id, ref=None)
    return [_project(row) for row in rows]


async def get_project(tx: Transaction, person: Person, ref: str) -> MemberProject:
    """A project of a person's organisations; raises RequestError 404 without one."""
    rows = await tx.fetch(_sql.list_projects, user_id=person.id, ref=ref)
    if not rows:
        raise _no_such_project(ref)
    return _project(rows[0])


async def list_environments(tx: Transaction, person: Person, ref: str) -> list[Environment]:
    """The environments of such a project; raises RequestError 404 without one."""
    rows = await tx.fetch(_sql.list_environments, user_id=person.id, ref=ref)
    if not rows:
        raise _no_such_project(ref)
    return [await environments.get_by_id(tx, row["id"]) for row in rows]


async def get_environment(tx: Transaction, person: Person, ref: str, slug: str) -> Environment:
    """An environment of such a project; raises RequestError 404 without one."""
    for environment in await list_environments(tx, person, ref):
        if environment.slug == slug:
            return environment
    raise RequestError(404, f"the project {ref[:64]} has no environment {slug[:64]!r}")


async def _ensure_user(tx: Transaction, email: str, *, now: datetime) -> int:
    user_id: int = await tx.fetch_value(
        _sql.ensure_user, public_id=make_id("user", now), email=email, now=now
    )
    return user_id


async def _invite(tx: Transaction, maker: Person, email: str, *, now: datetime) -> int:
    if len(email) > _MAX_EMAIL_CHARACTERS or not _EMAIL.fullmatch(email):
        raise RequestError(400, f"{email[:64]!r} is no e-mail address")
    user_id = await _ensure_user(tx, email, now=now)
    if not await tx.fetch_value(
        _sql.join_organizations, user_id=user_id, owner_id=maker.id, now=now
    ):
        raise RequestError(403, "only the owner of an organisation makes tokens for others")
    return user_id


def _random_token() -> str:
    return TOKEN_PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(_TOKEN_LETTERS))


def _obfuscate(token: str) -> str:
    letters = token.removeprefix(TOKEN_PREFIX)
    return f"{TOKEN_PREFIX}{letters[:4]}{'•' * 18}{letters[-4:]}"


def _token(row: Row) -> PersonalToken:
    return PersonalToken(
        id=row["public_id"],
        name=row["name"],
        obfuscated=row["obfuscated"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


def _project(row: Row) -> MemberProject:
    return MemberProject(**dict(row))


def _no_such_project(ref: str) -> RequestError:
    return RequestError(404, f"there is no project {ref[:64]} that you are a member of")
