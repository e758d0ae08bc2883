"""Who asks: the credential of a request, and whether it lets the request pass.

`Resource` (`operations.py`) reads the credential before a route is called, by the table in
`access.py`. A route whose resources are known only then calls `require`; the answer to a public
token that no `require` has let pass never leaves.

Environments and keys are looked up by an index and kept for a few seconds, so that the hot paths
cost no query for it. A credential is never logged and never part of an error.
"""

import base64
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, cast

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.requests import Request

from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.payloads import Json, parse_json
from runwell.core.public_tokens import AUDIENCE, ISSUER, as_instant, hash_credential
from runwell.core.scopes import Resource, allows, names_of
from runwell.engine import credentials, environments, people
from runwell.engine.credentials import Signers
from runwell.engine.db import Database
from runwell.engine.environments import Environment
from runwell.engine.people import TOKEN_PREFIX, Person
from runwell.server.access import Access

T = TypeVar("T")

#: A key that was revoked may work this much longer.
KEPT_SECONDS = 5.0
_MAX_KEPT = 1_000
_MAX_TOKEN_CHARACTERS = 64 * 1024
_KEY = re.compile(r"tr_[A-Za-z0-9_]{1,200}")
_GRANT = "runwell.grant"
_EXAMPLE = "send the header 'Authorization: Bearer tr_dev_...'"
# For who has clicked on a link that `runwell dev` prints.
_IN_A_BROWSER = "(`runwell env` prints the key; in a terminal, `runwell runs show ID` shows a run)"


@dataclass(frozen=True, kw_only=True)
class Credential:
    """Whoever holds it acts on this environment: with a secret key, or a public token's scopes.

    `scopes` of None: a secret key, which may do everything there.
    """

    environment: Environment
    scopes: frozenset[str] | None = None
    #: Of a token that is good for one use: what it is remembered by, and when it ends.
    one_time_hash: str | None = None
    expires_at: datetime | None = None
    #: The newest secret key of the environment, when the holder doesn't know one.
    signing_key: str | None = None

    @property
    def is_public(self) -> bool:
        """Whether it is a public access token."""
        return self.scopes is not None

    def allows(self, action: str, *resources: Resource, super_scopes: tuple[str, ...] = ()) -> bool:
        """Whether it lets an action on any of these resources pass."""
        return self.scopes is None or allows(self.scopes, action, resources, super_scopes)


@dataclass(kw_only=True)
class Grant:
    """What a request may do: its credential, and what its route takes.

    `person` is who has come with a personal access token; there is no credential of an environment
    then.
    """

    credential: Credential | None
    person: Person | None = None
    access: Access
    #: Whether something was required of the credential, and it let that pass.
    is_checked: bool


class ForbiddenError(RequestError):
    """A credential that is good, and not for this."""

    def __init__(self, message: str) -> None:
        super().__init__(403, f"Unauthorized: {message}")


class KeyRing:
    """The environments of the keys that were seen lately, and the keys that sign for them."""

    def __init__(self) -> None:
        """Know none yet."""
        self._by_key = _Kept[Environment]()
        self._signers = _Kept[Signers]()
        self._people = _Kept[Person]()
        #: Public tokens whose signature was right; when they end is looked at each time.
        self.tokens = _Kept[Credential]()

    async def find(self, db: Database, secret_key: str, *, now: datetime) -> Environment | None:
        """The environment of a key; None when no environment has it."""
        kept_as = hash_credential(secret_key)
        found = self._by_key.get(kept_as)
        if found is None:
            async with db.connection() as tx:
                found = await environments.find_by_secret_key(tx, secret_key, now=now)
            if found is not None:
                self._by_key.put(kept_as, found)
        return found

    async def find_signers(self, db: Database, public_id: str, *, now: datetime) -> Signers | None:
        """Whose public tokens name this environment; None when there is none."""
        found = self._signers.get(public_id)
        if found is None:
            async with db.connection() as tx:
                found = await credentials.find_signers(tx, public_id, now=now)
            if found is not None:
                self._signers.put(public_id, found)
        return found

    async def find_person(self, db: Database, token: str, *, now: datetime) -> Person | None:
        """Whose personal access token it is; None when it is nobody's."""
        kept_as = hash_credential(token)
        found = self._people.get(kept_as)
        if found is None:
            async with db.connection() as tx:
                found = await people.find_person(tx, token, now=now)
            if found is not None:
                self._people.put(kept_as, found)
        return found

    def forget_person(self, person: Person) -> None:
        """Look up anew what was kept about a person: their tokens have changed."""
        self._people.drop(lambda kept: kept.id == person.id)

    def forget(self, environment: Environment) -> None:
        """Look up anew what was kept about an environment: its keys have changed."""
        self._by_key.drop(lambda kept: kept.id == environment.id)
        self._signers.drop(lambda kept: kept.environment.id == environment.id)
        self.tokens.drop(lambda kept: kept.environment.id == environment.id)


class _Kept(Generic[T]):
    """Values that are looked up again after some seconds."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, T]] = {}

    def get(self, name: str) -> T | None:
        kept = self._kept.get(name)
        if kept is None:
            return None
        if time.monotonic() < kept[0]:
            return kept[1]
        del self._kept[name]
        return None

    def put(self, name: str, value: T) -> None:
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[name] = (time.monotonic() + KEPT_SECONDS, value)

    def drop(self, is_meant: Callable[[T], bool]) -> None:
        self._kept = {name: kept for name, kept in self._kept.items() if not is_meant(kept[1])}


async def read_credential(
    request: Request, access: Access, keys: KeyRing, db: Database, *, now: datetime
) -> Credential | Person:
    """The credential of a request to a route, or who has come.

    Raises RequestError 401 that says what came instead.

    A public token is refused where the route takes none (403), once it is known to be good.
    """
    given = read_bearer(request)
    if given.startswith(TOKEN_PREFIX) and access.takes_personal_tokens:
        person = await keys.find_person(db, given, now=now)
        if person is None:
            raise RequestError(
                401, "this personal access token is unknown here, was revoked, or has expired"
            )
        return person
    if given.count(".") == 2:
        credential = await _read_public_token(given, keys, db, now=now)
        if not access.takes_public_tokens:
            raise ForbiddenError(
                "this is a public access token, which is not accepted here: use the secret key of "
                "the environment (tr_...)"
            )
        return credential
    _check_secret_key(given)
    if not access.takes_secret_keys:
        raise RequestError(
            401,
            "this is a secret key, which is not accepted here: use a personal access token "
            "(tr_pat_...)",
        )
    environment = await keys.find(db, given, now=now)
    if environment is None:
        raise _unknown_key()
    return Credential(environment=environment)


def read_bearer(request: Request) -> str:
    """The credential in the authorization header; raises RequestError 401 without one."""
    header = request.headers.get("authorization")
    if header is None:
        raise RequestError(401, f"there is no authorization header: {_EXAMPLE} {_IN_A_BROWSER}")
    scheme, _, credential = header.partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise RequestError(401, f"the authorization header is no bearer token: {_EXAMPLE}")
    return credential


def hold(request: Request, grant: Grant) -> None:
    """Keep what a request may do, for its route."""
    request.scope[_GRANT] = grant


def grant_of(request: Request) -> Grant:
    """What a request may do; a route that takes no credential has none to ask for."""
    grant = cast("Grant | None", request.scope.get(_GRANT))
    if grant is None:
        raise RuntimeError(f"{request.url.path} takes no credential, and asks for one")
    return grant


def credential_of(request: Request) -> Credential:
    """The credential of a request, read before its route was called."""
    credential = grant_of(request).credential
    if credential is None:
        raise RuntimeError(f"{request.url.path} takes personal tokens, which name no environment")
    return credential


def person_of(request: Request) -> Person:
    """Who has come with a personal access token."""
    person = grant_of(request).person
    if person is None:
        raise RuntimeError(f"{request.url.path} takes other credentials than personal tokens")
    return person


def require(request: Request, *resources: Resource, of_all: bool = False) -> None:
    """Let a request pass when its scopes allow the route's action on any of these resources.

    With `of_all` on each of them. Raises ForbiddenError, the same whether there is such a thing or
    not. A secret key passes always.
    """
    grant = grant_of(request)
    if not may(request, *resources, of_all=of_all):
        raise ForbiddenError(
            "this public access token lacks the scope for this: it needs "
            + describe_scopes(grant.access)
        )
    grant.is_checked = True


def may(request: Request, *resources: Resource, of_all: bool = False) -> bool:
    """Whether `require` would let a request pass."""
    grant = grant_of(request)
    given, access = credential_of(request), grant.access
    groups = [(resource,) for resource in resources] if of_all else [resources]
    return all(
        given.allows(access.action, *group, super_scopes=access.super_scopes) for group in groups
    )


def describe_scopes(access: Access) -> str:
    """The scopes that a route takes, as words."""
    kinds = [name for kind in access.resources for name in names_of(access.action, Resource(kind))]
    own = [f"{access.action}:{kind}:ID" for kind in access.resources]
    return "one of " + ", ".join(dict.fromkeys((*access.super_scopes, *kinds, *own)))


async def _read_public_token(
    token: str, keys: KeyRing, db: Database, *, now: datetime
) -> Credential:
    if len(token) > _MAX_TOKEN_CHARACTERS or not token.isascii():
        raise _unreadable()
    kept_as = hash_credential(token)
    known = keys.tokens.get(kept_as)
    if known is not None and known.expires_at is not None and known.expires_at > now:
        return known
    claims = _read_part(token.split(".")[1])
    environment_id = claims.get("sub")
    if not isinstance(environment_id, str) or not environment_id or "\x00" in environment_id:
        raise _unreadable()
    signers = await keys.find_signers(db, environment_id, now=now)
    if signers is None or not any(_is_signed(token, key) for key in signers.secret_keys):
        raise RequestError(
            401, "this public access token was not signed with a living key of an environment here"
        )
    expires_at = claims.get("exp")
    if (
        claims.get("iss") != ISSUER
        or claims.get("aud") != AUDIENCE
        or claims.get("pub") is not True
    ):
        raise RequestError(
            401, "this token is no public access token: `iss`, `aud` or `pub` is another one's"
        )
    if not isinstance(expires_at, int | float) or isinstance(expires_at, bool):
        raise RequestError(401, "this public access token has no end (`exp`): make another")
    if expires_at <= now.timestamp():
        raise RequestError(401, "this public access token has expired: make another")
    scopes = claims.get("scopes")
    given = scopes if isinstance(scopes, list) else []
    credential = Credential(
        environment=signers.environment,
        scopes=frozenset(scope for scope in given if isinstance(scope, str)),
        # The signature can be written in several ways, what it is over can not.
        one_time_hash=(
            hash_credential(token.rpartition(".")[0]) if claims.get("otu") is True else None
        ),
        expires_at=as_instant(int(min(expires_at, 253_402_300_799))),
        signing_key=signers.secret_keys[0],
    )
    keys.tokens.put(kept_as, credential)
    return credential


def _is_signed(token: str, secret_key: str) -> bool:
    """Whether a token is signed with a key, by HS256 alone; compared in constant time."""
    try:
        jws.deserialize_compact(token, OctKey.import_key(secret_key), algorithms=["HS256"])
    except (JoseError, ValueError):
        return False
    return True


def _read_part(part: str) -> dict[str, Json]:
    """The claims of a token that nobody has verified yet."""
    try:
        decoded = parse_json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, InvalidPayloadError):
        raise _unreadable() from None
    if not isinstance(decoded, dict):
        raise _unreadable()
    return decoded


def _unreadable() -> RequestError:
    return RequestError(
        401, "this is no public access token that can be read: it is three parts with dots between"
    )


def _check_secret_key(credential: str) -> None:
    if credential.startswith("pk_"):
        raise RequestError(
            401, "this is a public key (pk_...), which nothing accepts: use the secret key (tr_...)"
        )
    if credential.startswith("tr_pat_"):
        raise RequestError(
            401,
            "this is a personal access token (tr_pat_...), which is not accepted here: use the "
            "secret key of an environment (tr_dev_..., tr_prod_...)",
        )
    if not _KEY.fullmatch(credential):
        raise RequestError(
            401, "this is no secret key: those look like tr_dev_ and 20 letters or digits"
        )


def _unknown_key() -> RequestError:
    return RequestError(
        401,
        "no environment here has this secret key: was it made by another server, or replaced? "
        "`runwell env` prints those of the local one",
    )
